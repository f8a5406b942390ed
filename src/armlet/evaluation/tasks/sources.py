"""Where tasks come from: the built-in arithmetic, the data sets of a hub, and local JSON Lines."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from armlet.evaluation.tasks.arithmetic import DIFFICULTY, exercise
from armlet.evaluation.tasks.problems import Kind, Problem, Task
from armlet.evaluation.tasks.rows import JsonRow, parse_row
from armlet.redistribution.errors import ArgumentError

ARITHMETIC, ARITHMETIC_ITEMS = "arithmetic", 2000
"""The built-in task, and how many of its endless problems are asked by default."""

HUB: dict[str, tuple[str, str | None, str]] = {
    "math500": ("HuggingFaceH4/MATH-500", None, "test"),
    "aime24": ("HuggingFaceH4/aime_2024", None, "train"),
    "aime25": ("math-ai/aime25", None, "test"),
    "gsm8k": ("openai/gsm8k", "main", "test"),
    "humaneval": ("openai/openai_humaneval", None, "test"),
}
"""Tasks by name: dataset, configuration and split on the hub."""


def arithmetic(items: int, *, seed: int = 0, difficulty: int | None = None) -> Task:
    """The built-in task: seeded chains of arithmetic; difficulty None is the level that `abacus` is tuned to."""
    level = DIFFICULTY if difficulty is None else difficulty
    exercises = (exercise(index, seed=seed, difficulty=level) for index in range(items))
    problems = (Problem(f"{seed}/{level}/{at}", drawn.question, str(drawn.value)) for at, drawn in enumerate(exercises))
    return Task(ARITHMETIC, "integer", tuple(problems), {"generator": ARITHMETIC, "seed": seed, "difficulty": level})


def read_task(file: Path, items: int | None = None) -> Task:
    """A task from local JSON Lines, named after the file.

    Args:
        file: one JSON object on each line, all of one kind.
        items: the first so many in the order of their ids' sha256; None for all.

    Raises:
        ArgumentError: names `--data`, the file and the line, and what is wrong with it.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ArgumentError(f"--data: {file} cannot be read ({reason})") from error
    digest = hashlib.sha256(text.encode()).hexdigest()
    return _make_task("--data", file.stem, _json_rows(file, text), items, {"file": file.name, "sha256": digest})


def hub_task(name: str, items: int | None = None) -> Task:
    """A task from a hub: one of `HUB` by its name, or any dataset as "owner/name", "owner/name:config:split".

    Args:
        name: of the task or the dataset.
        items: as in `read_task`.

    Raises:
        ArgumentError: names `--task`, and says that there is no such task, that the dataset cannot be loaded, or which
            row is not understood.
    """
    if name not in HUB and "/" not in name:
        known = ", ".join((ARITHMETIC, *HUB))
        raise ArgumentError(f"--task: expected {known} or a dataset as owner/name, found {name!r}")
    dataset, config, split = HUB.get(name) or _parse_dataset(name)
    source = {"dataset": dataset, "config": config, "split": split}
    return _make_task("--task", name, _hub_rows(dataset, config, split), items, source)


def _parse_dataset(name: str) -> tuple[str, str | None, str]:
    dataset, *rest = name.split(":")
    if len(rest) > 2:
        raise ArgumentError(f"--task: expected owner/name:config:split, found {name!r}")
    config, split = rest if len(rest) == 2 else (None, *(rest or ["test"]))
    return dataset, config or None, split


def _hub_rows(dataset: str, config: str | None, split: str) -> list[tuple[str, JsonRow]]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ArgumentError("--task: datasets of a hub need another package: pip install 'armlet[hub]'") from error
    try:
        rows: list[JsonRow] = list(load_dataset(dataset, config, split=split))  # type: ignore[arg-type]
    except Exception as error:  # the library passes on whatever its readers and its transport raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"--task: the hub did not give {dataset} ({reason}); --data FILE reads a local copy"
        raise ArgumentError(message) from error
    return [(f"--task: {dataset}, row {number}", row) for number, row in enumerate(rows, 1)]


def _json_rows(file: Path, text: str) -> Iterator[tuple[str, JsonRow]]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: other line separators may be in a text
        if line.strip():
            place = f"--data: {file}, line {number}"
            try:
                row = json.loads(line)
                json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair, such as "\ud800", is no text
            except (ValueError, RecursionError) as error:
                raise ArgumentError(f"{place}: is not JSON ({error})") from error
            if not isinstance(row, dict):
                raise ArgumentError(f"{place}: expected an object, found {type(row).__name__}")
            yield place, row


def _make_task(
    option: str, name: str, rows: Iterable[tuple[str, JsonRow]], items: int | None, source: Mapping[str, str | None]
) -> Task:
    kinds: dict[Kind, str] = {}  # and the place of the first row of each
    problems: dict[str, Problem] = {}
    for place, row in rows:
        kind, problem = parse_row(place, row)
        kinds.setdefault(kind, place.removeprefix(f"{option}: "))
        if problem.id in problems:
            raise ArgumentError(f"{place}: the id {problem.id!r}, or the whole row, is there twice")
        problems[problem.id] = problem
    if not problems:
        raise ArgumentError(f"{option}: {name} contains no problem")
    if len(kinds) > 1:
        mixture = " and ".join(f"{kind} ({place})" for kind, place in kinds.items())
        raise ArgumentError(f"{option}: {name} mixes kinds of problems, {mixture}: put each kind into its own file")
    # By sha256, a subset is not the beginning of a file, and a larger subset contains the smaller one.
    chosen = set(sorted(problems, key=lambda id: hashlib.sha256(id.encode()).digest())[:items])
    return Task(name, next(iter(kinds)), tuple(problems[id] for id in problems if id in chosen), source)
