"""The run folder: what is run (manifest.json), and what came out so far (items.jsonl, to which is only appended).

A batch is written at once, its items and behind them a line that closes it, and is on the disk before the next one
starts. What stands behind the last closing line, be it half a line, is cut off when the folder is opened again.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from armlet.presentation.files import write_json
from armlet.redistribution.errors import ArmletError

MANIFEST, ITEMS, LOCK = "manifest.json", "items.jsonl", "lock"

VERSION = 1

CLOSED = "closed"
"""The key of the line that closes a batch."""

RUNS = Path("armlet-runs")

RECORDED = ("machines",)
"""Keys of a manifest that may differ when a run goes on."""

Row = dict[str, Any]


class RunError(ArmletError, RuntimeError):
    """A run folder that cannot be used."""


class Journal:
    """An open run folder; made by `open_journal`.

    Attributes:
        manifest: what is run.
        rows: the items of closed batches, in the order in which they were written.
        closed: the closing lines, by unit.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.rows: list[Row] = []
        self.closed: dict[tuple[Any, ...], Row] = {}
        self._size = self._read()

    def has(self, unit: Sequence[Any]) -> bool:
        """This unit of the run is closed."""
        return tuple(unit) in self.closed

    def close(self, unit: Sequence[Any], rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
        """Writes the items of a unit and closes it; on the disk when this returns.

        Raises:
            RunError: they could not be written. What was closed before stays as it is.
        """
        closing = {CLOSED: list(unit), "items": len(rows), **facts}
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (*rows, closing)).encode()
        path = self.folder / ITEMS
        try:
            with path.open("ab") as file:
                file.truncate(self._size)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError), path.open("r+b") as file:  # a full disk still lets a file be cut
                file.truncate(self._size)
            raise RunError(
                f"{path}: cannot be written ({error.strerror}); {len(self.closed)} batches are safe there: "
                "mend that, and the same command goes on"
            ) from error
        self._size += len(content)
        self._take(rows, closing)

    def _take(self, rows: Sequence[Row], closing: Row) -> None:
        self.rows += rows
        self.closed[tuple(closing[CLOSED])] = closing

    def _read(self) -> int:
        """Takes all closed batches; returns where the last of them ends."""
        path = self.folder / ITEMS
        content = path.read_bytes() if path.exists() else b""
        size, at, rows = 0, 0, list[Row]()
        for line in content.splitlines(keepends=True):
            at += len(line)
            row = _parse(line)
            if row is None:
                if any(CLOSED in (_parse(later) or {}) for later in content[at:].splitlines(keepends=True)):
                    raise RunError(f"{path}: a line is damaged with whole ones behind it (byte {at - len(line)})")
                break
            if CLOSED not in row:
                rows.append(row)
                continue
            if row["items"] != len(rows):
                raise RunError(f"{path}: a batch of {row['items']} items holds {len(rows)} (before byte {at})")
            self._take(rows, row)
            size, rows = at, []
        return size


@contextmanager
def open_journal(folder: Path, manifest: Mapping[str, Any], machine: Mapping[str, Any]) -> Iterator[Journal]:
    """Opens a run folder, new or to go on with, for this process alone.

    Args:
        folder: made if need be.
        manifest: what is to be run, plain values.
        machine: this one; a run may go on elsewhere, which is recorded.

    Raises:
        RunError: another process has it, it holds another run, or it cannot be read or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a")
    except OSError as error:
        raise RunError(f"{folder}: is no run folder and cannot become one ({error.strerror})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                f"{folder}: another process is working in it; wait for it, or name another folder"
            ) from error
        yield Journal(folder, _agree(folder, {"version": VERSION, **manifest}, dict(machine)))


def _agree(folder: Path, manifest: Mapping[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """The folder's manifest, which must say the same as the one given; written where there is none."""
    path = folder / MANIFEST
    wanted = json.loads(json.dumps(manifest))  # tuples become lists, as in the file
    if not path.exists():
        if (folder / ITEMS).exists():
            raise RunError(f"{folder}: has {ITEMS} without {MANIFEST}; name another folder")
        write_json(path, {**wanted, "machines": [machine]})
        return {**wanted, "machines": [machine]}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        machines = list(found["machines"])
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise RunError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error
    changes = list(differences({k: v for k, v in found.items() if k not in RECORDED}, wanted))
    if changes:
        shown = "; ".join(changes[:3]) + ("; …" if len(changes) > 3 else "")
        raise RunError(f"{folder}: holds another run ({shown}); ask for the same, or name another folder")
    if machine not in machines:
        found["machines"] = [*machines, machine]
        write_json(path, found)
    return found


def differences(found: Any, wanted: Any, place: str = "") -> Iterator[str]:
    """What differs between two manifests, one line for each value."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys((*found, *wanted)):
            yield from differences(found.get(key), wanted.get(key), f"{place}.{key}" if place else key)
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for at, (one, other) in enumerate(zip(found, wanted, strict=True)):
            yield from differences(one, other, f"{place}[{at}]")
    elif found != wanted:
        yield f"{place} was {_brief(found)}, is {_brief(wanted)}"


def _brief(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _parse(line: bytes) -> Row | None:
    """A line as an object; None where it is torn or damaged."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def run_folder(manifest: dict[str, Any]) -> Path:
    """A folder under `RUNS` named after what is run: the same command finds it again, and another run has another."""
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=False)
    parts = [Path(manifest["engine"]["model"]).name, *(task["name"] for task in manifest["tasks"])]
    plain = "-".join("".join(c if c.isalnum() or c in "._" else "-" for c in part) for part in parts)
    return RUNS / f"{plain[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
