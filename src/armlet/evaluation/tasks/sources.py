"""The sources of tasks: the built-in arithmetic, datasets on a hub, and local JSON Lines files."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import Self

from armlet.checkpoints.network import check_hub_connection, without_passwords
from armlet.evaluation.tasks.arithmetic import DIFFICULTY, exercise
from armlet.evaluation.tasks.problems import Kind, Problem, Task
from armlet.redistribution.errors import ArgumentError

ARITHMETIC, ARITHMETIC_ITEMS = "arithmetic", 2000
"""The built-in task, and its default number of problems."""

HUB: dict[str, tuple[str, str | None, str]] = {
    "math500": ("HuggingFaceH4/MATH-500", None, "test"),
    "aime24": ("HuggingFaceH4/aime_2024", None, "train"),
    "aime25": ("math-ai/aime25", None, "test"),
    "gsm8k": ("openai/gsm8k", "main", "test"),
    "humaneval": ("openai/openai_humaneval", None, "test"),
    "gpqa": ("Idavidrein/gpqa", "gpqa_diamond", "train"),
}
"""Named tasks: dataset, configuration and split on the hub."""

JsonRow = Mapping[str, object]

ID_KEYS = ("id", "unique_id", "task_id", "ID", "Record ID")
QUESTION_KEYS = ("problem", "question")
GOLD_KEYS = ("final", "answer")  # GSM8K's answer is the whole solution; `final` is only the result
SOLUTION_KEYS = ("solution", *reversed(GOLD_KEYS))  # MATH-500 has the worked solution beside the answer
GPQA_KEYS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")

SEPARATE_KINDS, GIVE_BOTH = "put each kind into a file of its own", ", and give both: --data twice, or task=[A, B]"

TaskSource = str | Path | Task | Sequence[JsonRow]
"""The name of a task, a JSON Lines file, a task, or items as dicts with the keys of a line."""


def collect_tasks(
    task: TaskSource | Sequence[TaskSource], items: int | None, difficulty: int | None, seed: int
) -> list[Task]:
    """One or several tasks with different names; items as dicts are one task, "items", or "items 1" of several.

    Raises ArgumentError if a task cannot be read, or two have the same name.
    """
    sources = task_sources(task)
    if difficulty is not None and ARITHMETIC not in sources:
        raise ArgumentError(f"difficulty: applies only to the task {ARITHMETIC}, which is not among the tasks")
    lists = sum(not isinstance(source, str | Path | Task) for source in sources)
    names = iter(["items"] if lists == 1 else [f"items {number}" for number in range(1, lists + 1)])
    tasks = [_collect_task(source, items, difficulty, seed, names) for source in sources]
    for name, count in Counter(task.name for task in tasks).items():
        if count > 1:
            raise ArgumentError(f"task: two tasks are named {name!r}; give a file another name, or use each task once")
    return tasks


def task_sources(task: TaskSource | Sequence[TaskSource]) -> list[TaskSource]:
    """One or several tasks as a list, in which items as dicts are one task."""
    if isinstance(task, str | Path | Task):
        return [_file_or_source(task)]
    if not isinstance(task, Sequence):
        raise ArgumentError(f"task: expected a name, a file or a list of dicts, found {type(task).__name__}")
    if all(isinstance(part, Mapping) for part in task):
        return [task]  # type: ignore[list-item]
    return [_file_or_source(part) for part in task]  # type: ignore[arg-type]


def _file_or_source(source: TaskSource) -> TaskSource:
    """The path for a text that names a file, but no task; anything else as it is."""
    if not isinstance(source, str) or source in (ARITHMETIC, *HUB):
        return source
    return Path(source) if source.endswith((".jsonl", ".json")) or os.path.isfile(source) else source


def _collect_task(
    source: TaskSource, items: int | None, difficulty: int | None, seed: int, names: Iterator[str]
) -> Task:
    if isinstance(source, Task):
        return source
    if isinstance(source, Path):
        return read_task(source, items)
    if not isinstance(source, str):
        return given_task(next(names), source, items)
    if source == ARITHMETIC:
        return arithmetic(items or ARITHMETIC_ITEMS, seed=seed, difficulty=difficulty)
    return hub_task(source, items)


def given_task(name: str, rows: Sequence[JsonRow], items: int | None) -> Task:
    """A task from dicts with the keys of a line of a JSON Lines file (see `read_task`)."""
    try:
        text = "\n".join(json.dumps(row) for row in rows)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"task: expected dicts of texts and numbers ({error})") from error
    return _json_task("task", name, f"{name}, item", text, items, {"items": "given"})


def arithmetic(items: int, *, seed: int = 0, difficulty: int | None = None) -> Task:
    """The built-in task: seeded chains of arithmetic, by default at the level at which abacus is evaluated."""
    level = DIFFICULTY if difficulty is None else difficulty
    exercises = (exercise(index, seed=seed, difficulty=level) for index in range(items))
    problems = (Problem(f"{seed}/{level}/{i}", item.question, str(item.value)) for i, item in enumerate(exercises))
    return Task(ARITHMETIC, "integer", tuple(problems), {"generator": ARITHMETIC, "seed": seed, "difficulty": level})


def read_task(file: Path, items: int | None = None) -> Task:
    """Reads a task from a JSON Lines file, with one object per line, and names it after the file.

    `items` is the number of items, of which those with the lowest sha256 of their ids are taken; None for all.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")  # Windows programs write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ArgumentError(f"data: {file} cannot be read ({reason})") from error
    return _json_task("data", file.stem, f"{file}, line", text, items, {"file": file.name})


def hub_task(name: str, items: int | None = None) -> Task:
    """Downloads a task from a hub: a name in `HUB`, or any dataset as "owner/name" or "owner/name:config:split".

    Rows with GPQA's columns become questions that are answered in generated text, by the letter of a choice.

    Raises ArgumentError if there is no such dataset, configuration or split, no access to it, or a row is no problem.
    """
    if name not in HUB and "/" not in name:
        known = ", ".join((ARITHMETIC, *HUB))
        raise ArgumentError(f"task: expected {known} or a dataset as owner/name, found {name!r}")
    if name in HUB:
        dataset, config, split = HUB[name]
    else:
        dataset, *rest = name.split(":")
        if len(rest) > 2:
            raise ArgumentError(f"task: expected owner/name:config:split, found {name!r}")
        config, split = rest if len(rest) == 2 else (None, *(rest or ["test"]))
    source = {"dataset": dataset, "config": config or None, "split": split}
    return _make_task("task", name, _hub_rows(**source), items, source)


def _hub_rows(dataset: str, config: str | None, split: str) -> list[tuple[str, JsonRow]]:
    try:
        from datasets import config as settings
        from datasets import load_dataset
    except ImportError as error:
        raise ArgumentError("task: datasets on a hub need an extra package: pip install 'armlet[hub]'") from error
    check_hub_connection(settings.HF_ENDPOINT)
    try:
        rows: list[JsonRow] = list(load_dataset(dataset, config, split=split))  # type: ignore[arg-type]
    except Exception as error:  # the library raises whatever its readers and its transport raise
        reason = shorten(without_passwords(error) or type(error).__name__, 200, placeholder=" …")
        advice = "a JSON Lines file works, too"
        if "gated dataset" in reason:
            advice = "accept its terms on its page, and run `hf auth login` or set HF_TOKEN"
        raise ArgumentError(f"task: {dataset} could not be read from the hub ({reason}); {advice}") from error
    return [(f"task: {dataset}, row {number}", row) for number, row in enumerate(rows, 1)]


def _json_task(option: str, name: str, row: str, text: str, items: int | None, source: Mapping[str, str]) -> Task:
    """The task of lines of JSON; `row` is how a message calls a line, before its number."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return _make_task(option, name, _json_rows(f"{option}: {row}", text), items, {**source, "sha256": digest})


def _json_rows(prefix: str, text: str) -> Iterator[tuple[str, JsonRow]]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: a text may contain other line separators
        if line.strip():
            place = f"{prefix} {number}"
            try:
                row = json.loads(line, parse_float=WrittenFloat)
                json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair, such as "\ud800", is not text
            except (ValueError, RecursionError) as error:
                why = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
                raise ArgumentError(f"{place}: is not JSON ({why})") from error
            if not isinstance(row, dict):
                raise ArgumentError(f"{place}: expected an object, found {type(row).__name__}")
            yield place, row


def _make_task(
    option: str, name: str, rows: Iterable[tuple[str, JsonRow]], items: int | None, source: Mapping[str, str | None]
) -> Task:
    kinds: dict[Kind, str] = {}  # with the place of the first row of each kind
    problems: dict[str, Problem] = {}
    places: dict[str, str] = {}  # by id
    for place, row in rows:
        kind, problem = _parse_row(place, row)
        kinds.setdefault(kind, place.removeprefix(f"{option}: "))
        number = place.rpartition(", ")[2]  # such as "line 3"
        problem = problem if _written_id(row) else replace(problem, row=number)
        if problem.id in problems:
            same = "is the same row as" if problem.row else f"has the id {problem.id!r} of"
            raise ArgumentError(f"{place}: {same} {places[problem.id]}; leave one of them out")
        problems[problem.id], places[problem.id] = problem, number
    if not problems:
        raise ArgumentError(f"{option}: {name} contains no problems")
    if len(kinds) > 1:
        mixture = " and ".join(f"{kind} ({place})" for kind, place in kinds.items())
        raise ArgumentError(f"{option}: {name} mixes kinds of problems, {mixture}: {SEPARATE_KINDS}{GIVE_BOTH}")
    # Sorted by sha256, a subset is spread over the file, and a larger subset contains the smaller one.
    chosen = set(sorted(problems, key=lambda id: hashlib.sha256(id.encode()).digest())[:items])
    return Task(name, next(iter(kinds)), tuple(problems[id] for id in problems if id in chosen), source)


def _parse_row(place: str, row: JsonRow) -> tuple[Kind, Problem]:
    """The kind of the problem in a row, which follows from the row's keys, and the problem."""
    # The id of a row without one is a hash of its content, so it does not depend on the other rows.
    content = hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest()[:16]
    id = _written_id(row) or content
    if "choices" in row:
        return "choice", _parse_choice(place, id, row)
    if GPQA_KEYS[0] in row:
        return "maths", _parse_gpqa(place, id, row)
    if "entry_point" in row:
        name = _required_text(place, row, "entry_point")
        if not name.isidentifier():
            raise ArgumentError(f"{place}: entry_point: expected a function's name, found {name!r}")
        prompt, test = (_required_text(place, row, key) for key in ("prompt", "test"))
        program = row.get("canonical_solution")
        solution = f"```python\n{prompt}{program}\n```" if program else ""
        return "code", Problem(id, prompt, test, entry_point=name, solution=solution)
    question, gold = (next((key for key in keys if key in row), None) for keys in (QUESTION_KEYS, GOLD_KEYS))
    if question is None or gold is None:
        raise ArgumentError(
            f"{place}: expected problem or question with answer, choices with gold, or prompt with test and "
            f"entry_point; found {', '.join(row) or 'nothing'}"
        )
    answer = _parse_answer(place, row, gold)
    solution = next(str(row[key]) for key in SOLUTION_KEYS if row.get(key) is not None)
    return "maths", Problem(id, _required_text(place, row, question), answer, solution=solution.strip())


def _written_id(row: JsonRow) -> str:
    """The id of a row; "" if it has none."""
    return str(next((row[key] for key in ID_KEYS if row.get(key) is not None), ""))


class WrittenFloat(float):
    """A number of a JSON file that remembers how it was written: `str` makes 1e-05 of 0.00001."""

    text: str

    def __new__(cls, text: str) -> Self:
        """The number that the text denotes."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def _parse_answer(place: str, row: JsonRow, key: str) -> str:
    """The answer as text; from a worked solution in GSM8K's form, only the part after the last ####."""
    value = row[key]
    if not isinstance(value, str | int | float) or isinstance(value, bool) or str(value) in ("nan", "inf", "-inf"):
        raise ArgumentError(f"{place}: {key}: expected a text or a number, found {value!r}")
    written = value.text if isinstance(value, WrittenFloat) else str(value)
    answer = written.rpartition("####")[2].strip()
    if not answer:
        raise ArgumentError(f"{place}: the answer is empty")
    return answer


def _parse_choice(place: str, id: str, row: JsonRow) -> Problem:
    choices, gold = row["choices"], row.get("gold", row.get("answer"))  # MMLU's answer is an index, too
    if isinstance(choices, dict) and "answerKey" in row:  # ARC
        labels, choices = choices.get("label", []), choices.get("text", [])
        gold = labels.index(row["answerKey"]) if row["answerKey"] in labels else row["answerKey"]
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise ArgumentError(f"{place}: choices: expected a list of at least two texts, found {choices!r:.60}")
    if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(choices):
        raise ArgumentError(f"{place}: gold: expected an index of the {len(choices)} choices, found {gold!r}")
    if [choice.strip() for choice in choices].count(choices[gold].strip()) > 1:
        raise ArgumentError(f"{place}: choices: the right one, {choices[gold]!r:.60}, occurs twice; leave the row out")
    context, question = (str(row.get(key) or "") for key in ("context", "question"))
    if not context and not question:
        raise ArgumentError(f"{place}: expected context or question")
    return Problem(id, question, str(gold), context=context, choices=tuple(choices), solution=choices[gold])


def _parse_gpqa(place: str, id: str, row: JsonRow) -> Problem:
    """A question of GPQA with its answers as letters, to be answered by one; their order depends only on the texts."""
    question, *answers = (_required_text(place, row, key).strip() for key in ("Question", *GPQA_KEYS))
    order = sorted(answers, key=lambda answer: hashlib.sha256(f"{question}\n{answer}".encode()).digest())
    choices = "\n".join(f"{letter}) {answer}" for letter, answer in zip("ABCD", order, strict=True))
    text = f"{question}\n\n{choices}\n\nThe final answer is the letter of the right choice."
    return Problem(id, text, "ABCD"[order.index(answers[0])])


def _required_text(place: str, row: JsonRow, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ArgumentError(f"{place}: {key}: expected a text, found {value!r}")
    return value
