"""Problems and tasks: what is asked, and how each kind of task is asked."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["integer", "maths", "code", "choice"]

SYSTEMS: dict[Kind, str] = {
    "integer": "Work out the expression in steps, then write # and the value, for example: 2+3=5;5*4=20#20",
    "maths": "Please reason step by step, and put your final answer within \\boxed{}.",
    "code": "Complete the function. Answer with the whole function in one Python code block.",
    "choice": "",
}
"""The system prompt of each kind of task. Multiple choice has none: it is read as plain text."""


@dataclass(frozen=True)
class Problem:
    """One item.

    Args:
        id: unique in its task.
        question: what is asked; for programs, the beginning of one.
        gold: the right answer: an integer, LaTeX, the index of the right choice, or the tests of a program.
        context: of multiple choice: the text before the question.
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
    source: Mapping[str, str | int | None]

    def fingerprint(self) -> str:
        """sha256 of all problems: two runs with the same fingerprint were asked the same."""
        text = "".join(f"{problem!r}\n" for problem in self.problems)
        return hashlib.sha256(text.encode()).hexdigest()
