"""Which grader grades the answers of which kind of task."""

from collections.abc import Callable, Iterable

from armlet.evaluation.grading.extraction import Grade, equal, equal_integers, grade, grade_integer, grade_released
from armlet.evaluation.grading.programs import check_humaneval
from armlet.evaluation.grading.sandbox import require_sandbox
from armlet.evaluation.tasks.problems import Kind, Problem
from armlet.redistribution.errors import ArgumentError

Grader = Callable[[str, Problem], Grade]

GRADERS = ("math-verify", "released")

EQUAL: dict[Kind, Callable[[str, str], bool]] = {"maths": equal, "integer": equal_integers}
"""Whether two extracted answers are the same answer, for a vote; programs have none."""


def grader_names(name: str, kinds: Iterable[Kind]) -> dict[Kind, str]:
    """What grades each kind of task, for the manifest; `name` is the grader of mathematics."""
    names: dict[Kind, str] = {
        "integer": "the whole number after the last #",
        "maths": name,
        "code": "the problem's own tests",
        "choice": "the likeliest choice",
    }
    return {kind: names[kind] for kind in sorted(kinds)}


def graders(name: str, kinds: Iterable[Kind], *, allow_code: bool = False) -> dict[Kind, Grader]:
    """The grader of each kind of task, with `name` for mathematics; multiple choice needs none.

    Raises:
        ArgumentError: an unknown grader, a grader of mathematics without a task of it, or programs without permission.
        ArmletError: programs cannot be isolated on this system.
    """
    kinds = set(kinds)
    if name not in GRADERS:
        raise ArgumentError(f"--grader: expected {' or '.join(GRADERS)}, found {name!r}")
    if name != GRADERS[0] and "maths" not in kinds:
        raise ArgumentError(f"--grader: {name!r} grades mathematics, and none of these tasks is mathematics")
    if "code" in kinds:
        if not allow_code:
            raise ArgumentError(
                "these problems are graded by running programs that the model wrote: "
                "--allow-code-execution runs them, in a sandbox"
            )
        require_sandbox()
    maths = grade if name == "math-verify" else grade_released
    return {
        "integer": lambda text, problem: grade_integer(text, problem.gold),
        "maths": lambda text, problem: maths(text, problem.gold),
        "code": _grade_program,
    }


def _grade_program(text: str, problem: Problem) -> Grade:
    outcome = check_humaneval(problem.question, text, problem.gold, problem.entry_point)
    return Grade(outcome.passed, text if text.strip() else None, "```" in text)
