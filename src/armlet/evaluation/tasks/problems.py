"""Problems, tasks, and the system prompt of each kind of task."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from string import ascii_uppercase
from typing import Any, Literal

from armlet.redistribution.errors import ArgumentError

Kind = Literal["integer", "maths", "code", "choice"]

SYSTEMS: dict[Kind, str] = {
    "integer": "Work out the expression in steps, then write # and the value, for example: 2+3=5;5*4=20#20",
    "maths": "Please reason step by step, and put your final answer within \\boxed{}.",
    "code": "Complete the function. Answer with the whole function in one Python code block.",
    "choice": "",
}
"""The system prompt of each kind of task. Multiple choice has none, because it is scored as plain text."""


@dataclass(frozen=True)
class Problem:
    """One item."""

    id: str  # unique in its task
    question: str  # the question; for programs, the beginning of the program
    gold: str  # the right answer: an integer, LaTeX, the index of the right choice, or the tests of a program
    context: str = ""  # for multiple choice: the text before the question
    choices: tuple[str, ...] = ()  # for multiple choice: the continuations, at least two
    entry_point: str = ""  # for programs: the function that the tests call
    solution: str = field(default="", repr=False)  # the answer of a few-shot example; not a part of the item's hash
    row: str = field(default="", repr=False, compare=False)  # such as "line 3", if that has no id: then it is a hash

    @property
    def label(self) -> str:
        """The item in messages, by what its author wrote."""
        return self.row or f"item {self.id}"

    def content_hash(self) -> str:
        """16 hexadecimal digits of what is asked: the same for one item in files with other names, ids or golds."""
        text = repr((self.question.strip(), self.context.strip(), self.choices))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Task:
    """Problems of one kind."""

    name: str  # the name in reports
    kind: Kind  # how answers are graded
    problems: tuple[Problem, ...]  # at least one, with unique ids
    source: Mapping[str, str | int | None]  # a file's name and hash, a dataset, or a generator and its settings

    def fingerprint(self) -> str:
        """The sha256 of all problems: two runs with the same fingerprint have the same items."""
        text = "".join(f"{problem!r}\n" for problem in self.problems)
        return hashlib.sha256(text.encode()).hexdigest()


def unused_system(kinds: Mapping[str, str], systems: Mapping[Any, str]) -> list[str]:
    """Says for which tasks a system prompt that is not the default is not used.

    kinds, systems: the kind of each task by its name, and the system prompts by kind.
    """
    names = ", ".join(name for name, kind in kinds.items() if kind == "choice")
    defaults = [(kind, text) for kind, text in SYSTEMS.items() if kind in kinds.values() and kind != "choice"]
    is_stated = any(systems.get(kind) not in (None, "", default) for kind, default in defaults)
    reason = "multiple choice is scored as plain text"
    return [f"the system prompt is not used for {names}: {reason}"] if names and is_stated else []


def with_letters(task: Task) -> Task:
    """Lists the choices in each question after letters, which become the choices, as MMLU is asked.

    Raises ArgumentError unless the task is multiple choice, with questions, and with at most 26 choices.
    """
    if task.kind != "choice":
        raise ArgumentError(f"letters: {task.name} is not multiple choice; leave it out")
    return replace(task, problems=tuple(map(_with_letters, task.problems)))


def _with_letters(problem: Problem) -> Problem:
    letters = ascii_uppercase[: len(problem.choices)]
    if not problem.question or len(letters) < len(problem.choices):
        raise ArgumentError(f"letters: {problem.label} has no question, or more than 26 choices")
    listed = (f"{letter}. {choice}" for letter, choice in zip(letters, problem.choices, strict=True))
    question, solution = "\n".join((problem.question, *listed)), letters[int(problem.gold)]
    return replace(problem, question=question, choices=tuple(letters), solution=solution)
