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
    """One item."""

    id: str  # unique in its task
    question: str  # what is asked; for programs, the beginning of one
    gold: str  # the right answer: an integer, LaTeX, the index of the right choice, or the tests of a program
    context: str = ""  # of multiple choice: the text before the question
    choices: tuple[str, ...] = ()  # of multiple choice: the continuations, at least two
    entry_point: str = ""  # of programs: the function that the tests call


@dataclass(frozen=True)
class Task:
    """Problems of one kind."""

    name: str  # in reports
    kind: Kind  # how answers are graded
    problems: tuple[Problem, ...]  # at least one, each with an id of its own
    source: Mapping[str, str | int | None]  # a file's name and hash, a dataset, or a generator and its settings

    def fingerprint(self) -> str:
        """sha256 of all problems: two runs with the same fingerprint were asked the same."""
        text = "".join(f"{problem!r}\n" for problem in self.problems)
        return hashlib.sha256(text.encode()).hexdigest()
