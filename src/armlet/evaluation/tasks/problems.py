"""What is asked: the built-in arithmetic, tasks of a hub by their id, and local JSON Lines, all as `Task`s.

The keys of a row say what it is: `choices` with `gold` (multiple choice), `prompt` with `test` and `entry_point`
(programs, as in HumanEval), or a problem with an answer (mathematics).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from armlet.redistribution.errors import ArgumentError

Kind = Literal["integer", "maths", "code", "choice"]

ARITHMETIC = "arithmetic"

ITEMS = 2000
"""Problems of the built-in task, which has no end."""

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
WORKED = "Work out the expression in steps, then write # and the value, for example: 2+3=5;5*4=20#20"
CODED = "Complete the function. Answer with the whole function in one Python code block."
SYSTEMS: dict[Kind, str] = {"integer": WORKED, "maths": BOXED, "code": CODED, "choice": ""}
"""The system prompt of each kind of task. Multiple choice has none: it is read as plain text."""

HUB: dict[str, tuple[str, str | None, str]] = {
    "math500": ("HuggingFaceH4/MATH-500", None, "test"),
    "aime24": ("HuggingFaceH4/aime_2024", None, "train"),
    "aime25": ("math-ai/aime25", None, "test"),
    "gsm8k": ("openai/gsm8k", "main", "test"),
    "humaneval": ("openai/openai_humaneval", None, "test"),
}
"""Tasks by name: dataset, configuration and split on the hub."""

TASKS = (ARITHMETIC, *HUB)

NAMES = {"id": ("id", "unique_id", "task_id", "ID"), "question": ("problem", "question"), "gold": ("answer", "final")}


@dataclass(frozen=True)
class Problem:
    """One item.

    Args:
        id: unique in its task.
        question: what is asked; for programs the beginning of one.
        gold: the right answer: an integer, LaTeX, the index of the right choice, or the tests of a program.
        context: of multiple choice: stands before the question.
        choices: of multiple choice: the continuations, at least two.
        entry_point: of programs: the function that the tests call.
    """

    id: str
    question: str
    gold: str
    context: str = ""
    choices: tuple[str, ...] = ()
    entry_point: str = ""


@dataclass(frozen=True)
class Task:
    """Problems of one kind.

    Args:
        name: in reports.
        kind: how answers are graded.
        problems: at least one, each with an id of its own.
        source: where they come from: a file's name and hash, a dataset, or a generator and its settings.
    """

    name: str
    kind: Kind
    problems: tuple[Problem, ...]
    source: Mapping[str, Any]

    def fingerprint(self) -> str:
        """sha256 over all problems: two runs with the same one were asked the same."""
        text = "".join(f"{problem!r}\n" for problem in self.problems)
        return hashlib.sha256(text.encode()).hexdigest()


def arithmetic(items: int, *, seed: int = 0, difficulty: int | None = None) -> Task:
    """The built-in task: endless, seeded chains of arithmetic.

    Args:
        items: how many, at least 1.
        seed: of the problems.
        difficulty: see `armlet.evaluation.tasks.arithmetic`; None for the one that `abacus` is tuned to.
    """
    from armlet.evaluation.tasks.arithmetic import DIFFICULTY, exercise

    level = DIFFICULTY if difficulty is None else difficulty
    drawn = (exercise(index, seed=seed, difficulty=level) for index in range(items))
    problems = [Problem(f"{seed}/{level}/{index}", each.question, str(each.value)) for index, each in enumerate(drawn)]
    source = {"generator": ARITHMETIC, "seed": seed, "difficulty": level}
    return Task(ARITHMETIC, "integer", tuple(problems), source)


def read_task(file: Path, items: int | None = None) -> Task:
    """A task from local JSON Lines, named after the file.

    Args:
        file: one JSON object on each line, all of one kind.
        items: the first so many in the order of `order`; None for all.

    Raises:
        ArgumentError: names file and line, and what is wrong with it.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ArgumentError(f"--data: {file} cannot be read ({reason})") from error
    digest = hashlib.sha256(text.encode()).hexdigest()
    return _task(file.stem, _rows(file, text), items, {"file": file.name, "sha256": digest})


def hub_task(name: str, items: int | None = None) -> Task:
    """A task from a hub: one of `HUB` by its name, or any dataset as "owner/name", "owner/name:config:split".

    Args:
        name: of the task or the dataset.
        items: as in `read_task`.

    Raises:
        ArgumentError: no such task, or the dataset cannot be had or has rows that are not understood.
    """
    if name not in HUB and "/" not in name:
        raise ArgumentError(f"--task: expected {', '.join(TASKS)} or a dataset as owner/name, found {name!r}")
    dataset, config, split = HUB.get(name) or _parse_dataset(name)
    rows = _download(dataset, config, split)
    source = {"dataset": dataset, "config": config, "split": split}
    return _task(name, ((f"{dataset}, row {at + 1}", row) for at, row in enumerate(rows)), items, source)


def order(ids: Iterable[str]) -> list[str]:
    """Ids by their sha256: a subset of a file is not its beginning, and a larger subset holds the smaller one."""
    return sorted(ids, key=lambda id: hashlib.sha256(id.encode()).hexdigest())


def _parse_dataset(name: str) -> tuple[str, str | None, str]:
    dataset, *rest = name.split(":")
    if len(rest) > 2:
        raise ArgumentError(f"--task: expected owner/name:config:split, found {name!r}")
    config, split = rest if len(rest) == 2 else (None, *(rest or ["test"]))
    return dataset, config or None, split


def _download(dataset: str, config: str | None, split: str) -> Sequence[Mapping[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ArgumentError("datasets of a hub need another package: pip install 'armlet[hub]'") from error
    try:
        return list(load_dataset(dataset, config, split=split))  # type: ignore[arg-type]
    except Exception as error:  # the library lets through whatever its readers and its transport raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"--task: the hub did not give {dataset} ({reason}); --data FILE reads a local copy"
        raise ArgumentError(message) from error


def _rows(file: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):  # a text may hold the other ends of lines
        if line.strip():
            place = f"--data: {file}, line {number}"
            try:
                row = json.loads(line)
                json.dumps(row, ensure_ascii=False).encode()  # half a character, such as "\ud800", is no text
            except (ValueError, RecursionError) as error:
                raise ArgumentError(f"{place}: is no JSON ({error})") from error
            if not isinstance(row, dict):
                raise ArgumentError(f"{place}: expected an object, found {type(row).__name__}")
            yield place, row


def _task(
    name: str, rows: Iterable[tuple[str, Mapping[str, Any]]], items: int | None, source: Mapping[str, Any]
) -> Task:
    read = [(place, *_problem(place, row)) for place, row in rows]
    if not read:
        raise ArgumentError(f"--data: {name} holds no problem")
    kinds: dict[Kind, str] = {}
    for place, kind, _ in read:
        kinds.setdefault(kind, place)
    if len(kinds) > 1:
        found = " and ".join(f"{kind} ({place})" for kind, place in kinds.items())
        raise ArgumentError(f"--data: {name} mixes kinds of problems, {found}: give each a file of its own")
    problems: dict[str, Problem] = {}
    for place, _, problem in read:
        if problem.id in problems:
            raise ArgumentError(f"{place}: the id {problem.id!r}, or the whole row, stands there twice")
        problems[problem.id] = problem
    chosen = problems if items is None else set(islice(order(problems), items))
    return Task(name, read[0][1], tuple(each for each in problems.values() if each.id in chosen), source)


def _problem(place: str, row: Mapping[str, Any]) -> tuple[Kind, Problem]:
    id = str(next((row[key] for key in NAMES["id"] if row.get(key) is not None), _hash(row)))
    if "choices" in row:
        return "choice", _choice(place, id, row)
    if "entry_point" in row:
        return "code", Problem(
            id, _text(place, row, "prompt"), _text(place, row, "test"), entry_point=_name(place, row)
        )
    question, gold = (next((key for key in NAMES[role] if key in row), None) for role in ("question", "gold"))
    if question is None or gold is None:
        raise ArgumentError(
            f"{place}: expected problem or question with answer, choices with gold, or prompt with test and "
            f"entry_point; found {', '.join(row) or 'nothing'}"
        )
    # GSM8K's answer is the whole solution; what counts stands behind its last mark.
    key = "final" if "final" in row else gold
    value = row[key]
    if not isinstance(value, str | int | float) or isinstance(value, bool) or str(value) in ("nan", "inf", "-inf"):
        raise ArgumentError(f"{place}: {key} must be a text or a number, found {value!r}")
    answer = str(value).rpartition("####")[2].strip()
    if not answer:
        raise ArgumentError(f"{place}: the answer is empty")
    return "maths", Problem(id, _text(place, row, question), answer)


def _hash(row: Mapping[str, Any]) -> str:
    """An id for a row that has none: wherever it stands and whatever is added to the file, it stays the same."""
    return hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _choice(place: str, id: str, row: Mapping[str, Any]) -> Problem:
    choices, gold = row["choices"], row.get("gold")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise ArgumentError(f"{place}: choices must be a list of at least two texts")
    if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(choices):
        raise ArgumentError(f"{place}: gold must be an index into the {len(choices)} choices, found {gold!r}")
    context, question = (str(row.get(key) or "") for key in ("context", "question"))
    if not context and not question:
        raise ArgumentError(f"{place}: expected context or question")
    return Problem(id, question, str(gold), context=context, choices=tuple(choices))


def _text(place: str, row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ArgumentError(f"{place}: {key} must be a text, found {value!r}")
    return value


def _name(place: str, row: Mapping[str, Any]) -> str:
    name = _text(place, row, "entry_point")
    if not name.isidentifier():
        raise ArgumentError(f"{place}: entry_point must be a function's name, found {name!r}")
    return name
