"""The run folder: the run's settings (manifest.json) and its results so far (items.jsonl, which only grows).

A batch is its records, then a closing line, in one write. Anything after the last closing line is discarded.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from armlet.presentation.files import write_json
from armlet.presentation.terminal import note
from armlet.redistribution.errors import ArmletError

RUNS = Path("armlet-runs")
MANIFEST_FILE, ITEMS_FILE, LOCK_FILE = "manifest.json", "items.jsonl", "lock"
MANIFEST_VERSION = 1
OPTION_NAMES = (
    *("model", "dtype", "device", "seed", "batch", "items", "budget", "difficulty"),
    *("policy", "layers", "scope", "site", "experts", "trials", "windows", "tokens", "calibration", "limit"),
    *("samples", "temperature", "top_p", "max_new_tokens", "margin", "format", "headroom", "curve", "max_cost"),
)
"""Names in a manifest that are also options of the command line."""

LONGEST_TEXT = 60  # characters of a value in a message

CLOSED = "closed"  # the key of the line that closes a batch; its value is the batch's key

Record = dict[str, Any]
"""A JSON object, such as a line of items.jsonl or a manifest."""


class RunError(ArmletError, RuntimeError):
    """A run folder cannot be used.

    Run the same command or call to resume a run; use another folder for another one. If another process uses the
    folder, wait for it.
    """


class RunFolder:
    """An open run folder; use `open_run_folder`."""

    def __init__(self, folder: Path, manifest: Record) -> None:
        self.folder, self.manifest = folder, manifest
        self.rows: list[Record]  # records of all closed batches, in the order in which they were written
        self.closed: dict[tuple[Any, ...], Record]  # closing lines, by the batch's key
        self._read()

    def has(self, key: Sequence[object]) -> bool:
        """Whether the batch with this key is closed."""
        return tuple(key) in self.closed

    def close(self, key: Sequence[object], rows: Sequence[Record], facts: Mapping[str, object]) -> None:
        """Writes a batch's records and its closing line, with facts about the batch, and flushes them to the disk.

        Raises RunError if the batch could not be written. Earlier batches stay as they are.
        """
        try:
            self._append(key, rows, facts)
        except KeyboardInterrupt:  # perhaps after the batch reached the disk, and before it was counted
            self._read()
            raise

    def _append(self, key: Sequence[object], rows: Sequence[Record], facts: Mapping[str, object]) -> None:
        closing = {CLOSED: list(key), "items": len(rows), **facts}
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (*rows, closing)).encode()
        path = self.folder / ITEMS_FILE
        try:
            with path.open("ab") as file:
                file.truncate(self._size)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError), path.open("r+b") as file:  # even on a full disk, a file can be shortened
                file.truncate(self._size)
            advice = f"saved batches: {len(self.closed)}; fix the cause, and run the same command to resume"
            raise RunError(f"{path}: cannot be written ({error.strerror}); {advice}") from error
        self._size += len(content)
        self.rows += rows
        self.closed[tuple(key)] = closing

    def _read(self) -> None:
        """Reads all closed batches, and their size in bytes."""
        path = self.folder / ITEMS_FILE
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        records = [_parse_line(line) for line in lines]
        closed = 1 + max((index for index, record in enumerate(records) if record and CLOSED in record), default=-1)
        size, rows = 0, list[Record]()
        all_rows, all_closed = list[Record](), dict[tuple[Any, ...], Record]()
        for line, record in zip(lines[:closed], records, strict=False):
            if record is None:
                raise RunError(f"{path}: a line is damaged, and complete batches follow it (byte {size})")
            size += len(line)
            if CLOSED not in record:
                rows.append(record)
                continue
            if record["items"] != len(rows):
                raise RunError(f"{path}: expected {record['items']} records, found {len(rows)} (before byte {size})")
            all_rows += rows
            all_closed[tuple(record[CLOSED])] = record
            rows = []
        self.rows, self.closed, self._size = all_rows, all_closed, size


@contextmanager
def open_run_folder(
    folder: Path, manifest: Mapping[str, object], machine: Mapping[str, object], *, answers: int | None = None
) -> Iterator[RunFolder]:
    """Opens the folder of a new run or of a run to resume, and locks it against other processes.

    Notes on stderr how many results are from an earlier run.

    Args:
        folder: the folder, which is created if needed.
        manifest: the run's settings, as plain values.
        machine: the machine; a run may resume on another one, and the manifest lists all of them.
        answers: the number of records of the whole run; None if it is unknown, or the batches have no records.

    Raises RunError if another process uses the folder, it contains another run, or it cannot be read or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE).acquire(blocking=False)
    except Timeout as error:
        raise RunError(f"{folder}: another process is using it; wait for it, or use another folder") from error
    except OSError as error:
        problem = f"the run folder cannot be created or used ({error.strerror})"
        raise RunError(f"{folder}: {problem}; run= (or --run) chooses another") from error
    with lock:
        run = RunFolder(folder, _agreed_manifest(folder, {"version": MANIFEST_VERSION, **manifest}, dict(machine)))
        if run.closed:
            note(_earlier_results(run, answers))
        yield run


def read_run_folder(folder: Path) -> RunFolder:
    """Reads a run folder as it is; raises RunError if it is none, or cannot be read."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict):
            raise ValueError("not a JSON object")
        return RunFolder(folder, manifest)
    except (OSError, ValueError) as error:
        problem = f"it has no {MANIFEST_FILE}" if isinstance(error, FileNotFoundError) else str(error)
        advice = "name the one that `evaluate` prints when it starts, which a folder of --out is not"
        raise RunError(f"{folder}: is no run folder ({problem}); {advice}") from error


def recorded_manifest(folder: Path) -> Record:
    """The manifest of a run to resume; empty if the folder has none that can be read, which `open_run_folder` says."""
    with suppress(OSError, ValueError):
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        return manifest if isinstance(manifest, dict) else {}
    return {}


def _earlier_results(run: RunFolder, answers: int | None) -> str:
    """Says that a run does not start anew."""
    if answers is not None and len(run.rows) < answers:
        return f"resuming: {len(run.rows):,} of {answers:,} answers are from an earlier run in {run.folder}"
    what = f"{len(run.closed):,} trials" if answers is None else f"all {answers:,} answers"
    return f"{what} are from an earlier run in {run.folder}; another run folder starts anew"


def _agreed_manifest(folder: Path, manifest: Mapping[str, object], machine: Record) -> Record:
    """The folder's manifest, which must agree with `manifest`; a new folder gets `manifest`."""
    path = folder / MANIFEST_FILE
    wanted = json.loads(json.dumps(manifest))  # tuples become lists, as in the file
    if not path.exists() and (folder / ITEMS_FILE).exists():
        raise RunError(f"{folder}: has {ITEMS_FILE} but not {MANIFEST_FILE}; use another folder")
    try:
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {**wanted, "machines": []}
        machines = list(stored.pop("machines"))
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise RunError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error
    if changes := readable(list(differences(stored, wanted))):
        text = "; ".join(changes[:3]) + ("; …" if len(changes) > 3 else "")
        raise RunError(f"{folder}: contains another run ({text}); use the same options and model, or another folder")
    agreed = {**stored, "machines": machines if machine in machines else [*machines, machine]}
    if machine not in machines:
        write_json(path, agreed)
    return agreed


def readable(changes: Sequence[tuple[str, str]]) -> list[str]:
    """The changes as text: options of the command line first, each once; hashes only if nothing else changed."""
    if [place for place, _ in changes] == ["engine.sha256"]:
        changed = "the model, its weights, settings, hooks or tokenizer changed, or the machine or its threads"
        return [f"{changed}, or only one of the runs read it from files"]
    options, rest = dict[str, str](), list[str]()
    for place, change in changes:
        name = place.rpartition(".")[2].partition("[")[0]
        if name in OPTION_NAMES:
            options.setdefault(name, f"--{name.replace('_', '-')} {change}")
        else:
            rest.append(f"{place} {change}")
    return [*options.values(), *(text for text in rest if "sha256 " not in text)] or rest


def differences(stored: object, wanted: object, place: str = "") -> Iterator[tuple[str, str]]:
    """The place of each value that differs between two manifests, and how."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys((*stored, *wanted)):
            yield from differences(stored.get(key), wanted.get(key), f"{place}.{key}" if place else key)
    elif isinstance(stored, list) and isinstance(wanted, list) and len(stored) == len(wanted):
        for index, pair in enumerate(zip(stored, wanted, strict=True)):
            yield from differences(*pair, f"{place}[{index}]")
    elif isinstance(stored, list) and isinstance(wanted, list):
        extras = [[_short_text(value) for value in stored if value not in wanted]]
        extras += [[_short_text(value) for value in wanted if value not in stored]]
        for side, extra in zip(("first", "second"), extras, strict=True):
            if extra:
                yield place, f"of the {side} only: {', '.join(extra)}"
        if not any(extras):
            yield place, f"was {len(stored)} values, is {len(wanted)}"
    elif stored != wanted:
        texts = [json.dumps(value, ensure_ascii=False) for value in (stored, wanted)]
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
        start = max(0, same - 20) if max(map(len, texts)) > LONGEST_TEXT else 0
        was, now = (_short_text(text, start) for text in texts)
        yield place, f"was {was}, is {now}"


def _short_text(value: object, start: int = 0) -> str:
    """The name of a part of a manifest, or its text, cut to `LONGEST_TEXT` from `start`."""
    if isinstance(value, dict) and "name" in value:
        return str(value["name"])
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = f"...{text[start:]}" if start else text
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 3]}..."


def _parse_line(line: bytes) -> Record | None:
    """A line's JSON object; None if the line is damaged or incomplete."""
    with suppress(ValueError):
        record = json.loads(line) if line.endswith(b"\n") else None
        return record if isinstance(record, dict) else None
    return None


def default_run_folder(manifest: Record) -> Path:
    """A folder in `RUNS` named after the run: the same command gets the same folder, on another day too."""
    answers = {key: value for key, value in manifest.items() if key != "margin"}  # so that another margin is refused
    engine = {key: value for key, value in manifest["engine"].items() if key != "date"}
    text = json.dumps({**answers, "engine": engine}, sort_keys=True, ensure_ascii=False)
    parts = [Path(manifest["engine"]["model"]).name, *(task["name"] for task in manifest["tasks"])]
    plain = "-".join("".join(c if c.isalnum() or c in "._" else "-" for c in part) for part in parts)
    return RUNS / f"{plain[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
