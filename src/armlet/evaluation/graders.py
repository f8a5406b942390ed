"""Which grader reads the answers of which kind of task."""

import operator
from collections.abc import Callable, Iterable

from armlet.evaluation.grading import Grade, equal, grade, grade_integer
from armlet.evaluation.humaneval import check_humaneval
from armlet.evaluation.problems import Kind, Problem
from armlet.evaluation.released import grade_released
from armlet.redistribution.errors import ArgumentError

Grader = Callable[[str, Problem], Grade]

GRADERS = ("math-verify", "released")

EQUAL: dict[Kind, Callable[[str, str], bool]] = {"maths": equal, "integer": operator.eq, "code": operator.eq}
"""Whether two extracted answers are the same answer, for a vote."""


def graders(name: str, kinds: Iterable[Kind], *, allow_code: bool = False) -> dict[Kind, Grader]:
    """The grader of each kind of task; multiple choice needs none.

    Args:
        name: of the grader of mathematics.
        kinds: of the tasks that are run.
        allow_code: model-written programs may be run, in a sandbox.

    Raises:
        ArgumentError: no such grader, or programs without permission.
    """
    if name not in GRADERS:
        raise ArgumentError(f"--grader: expected {' or '.join(GRADERS)}, found {name!r}")
    if "code" in kinds and not allow_code:
        raise ArgumentError(
            "these problems are graded by running programs that the model wrote: "
            "--allow-code-execution runs them, in a sandbox"
        )
    maths = grade if name == "math-verify" else grade_released
    return {
        "integer": lambda text, problem: grade_integer(text, problem.gold),
        "maths": lambda text, problem: maths(text, problem.gold),
        "code": _grade_program,
    }


def _grade_program(text: str, problem: Problem) -> Grade:
    found = check_humaneval(problem.question, text, problem.gold, problem.entry_point)
    return Grade(found.passed, text if text.strip() else None, "```" in text)
