"""A row of a data set as a problem.

The row's keys decide its kind: `choices` with `gold` is multiple choice, `prompt` with `test` and `entry_point` is a
program, as in HumanEval, and a problem with an answer is mathematics.
"""

import hashlib
import json
from collections.abc import Mapping

from armlet.evaluation.tasks.problems import Kind, Problem
from armlet.redistribution.errors import ArgumentError

JsonRow = Mapping[str, object]

ID_KEYS = ("id", "unique_id", "task_id", "ID")
QUESTION_KEYS = ("problem", "question")
GOLD_KEYS = ("final", "answer")  # GSM8K's answer is the whole solution; `final` is the result alone


def parse_row(place: str, row: JsonRow) -> tuple[Kind, Problem]:
    """The problem in a row, and its kind.

    Raises:
        ArgumentError: starts with the row's place, and says what is wrong.
    """
    # An id for a row that has none depends neither on its place nor on the other rows.
    content = hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest()[:16]
    id = str(next((row[key] for key in ID_KEYS if row.get(key) is not None), content))
    if "choices" in row:
        return "choice", _parse_choice(place, id, row)
    if "entry_point" in row:
        name = _required_text(place, row, "entry_point")
        if not name.isidentifier():
            raise ArgumentError(f"{place}: entry_point must be a function's name, found {name!r}")
        prompt, test = (_required_text(place, row, key) for key in ("prompt", "test"))
        return "code", Problem(id, prompt, test, entry_point=name)
    question, gold = (next((key for key in keys if key in row), None) for keys in (QUESTION_KEYS, GOLD_KEYS))
    if question is None or gold is None:
        raise ArgumentError(
            f"{place}: expected problem or question with answer, choices with gold, or prompt with test and "
            f"entry_point; found {', '.join(row) or 'nothing'}"
        )
    answer = _parse_answer(place, row, gold)
    return "maths", Problem(id, _required_text(place, row, question), answer)


def _parse_answer(place: str, row: JsonRow, key: str) -> str:
    """The answer as text: of a worked solution in GSM8K's form, the part after the last ####."""
    value = row[key]
    if not isinstance(value, str | int | float) or isinstance(value, bool) or str(value) in ("nan", "inf", "-inf"):
        raise ArgumentError(f"{place}: {key} must be a text or a number, found {value!r}")
    answer = str(value).rpartition("####")[2].strip()
    if not answer:
        raise ArgumentError(f"{place}: the answer is empty")
    return answer


def _parse_choice(place: str, id: str, row: JsonRow) -> Problem:
    choices, gold = row["choices"], row.get("gold")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise ArgumentError(f"{place}: choices must be a list of at least two texts")
    if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(choices):
        raise ArgumentError(f"{place}: gold must be an index into the {len(choices)} choices, found {gold!r}")
    context, question = (str(row.get(key) or "") for key in ("context", "question"))
    if not context and not question:
        raise ArgumentError(f"{place}: expected context or question")
    return Problem(id, question, str(gold), context=context, choices=tuple(choices))


def _required_text(place: str, row: JsonRow, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ArgumentError(f"{place}: {key} must be a text, found {value!r}")
    return value
