"""The graders, by kind of task."""

from collections.abc import Callable, Iterable

from armlet.evaluation.grading.grade import Grade, equal, equal_integers, grade, grade_integer, grade_released
from armlet.evaluation.grading.programs import humaneval_program
from armlet.evaluation.grading.sandbox import require_sandbox, run_program
from armlet.evaluation.tasks.problems import Kind, Problem
from armlet.redistribution.errors import ArgumentError

Grader = Callable[[str, Problem], Grade]

MATHS_GRADERS = {"math-verify": grade, "released": grade_released}
RULES = {"math-verify": "math-verify, rules of 2026-11-30", "released": "released"}
"""The graders in a manifest: a run that other rules graded is not resumed, because its grades would be mixed."""

EQUAL: dict[Kind, Callable[[str, str], bool]] = {"maths": equal, "integer": equal_integers}
"""Functions that check whether two extracted answers are equal, for a majority vote; programs have no majority."""


def grader_names(name: str, kinds: Iterable[Kind]) -> dict[Kind, str]:
    """The description of each kind's grader, for the manifest; `name` is the grader for mathematics."""
    names: dict[Kind, str] = {
        "integer": "the whole number after the last #",
        "maths": RULES[name],
        "code": "the problem's own tests of the function that is asked for",
        "choice": "the likeliest choice",
    }
    return {kind: names[kind] for kind in sorted(kinds)}


def graders(name: str, kinds: Iterable[Kind], *, allow_code: bool = False) -> dict[Kind, Grader]:
    """The grader for each kind of generated answers, with `name` for mathematics.

    Raises:
        ArgumentError: the grader is unknown, no task needs it, programs may not be run, or no task runs any.
        ArmletError: this system cannot isolate programs.
    """
    kinds = set(kinds)
    if name not in MATHS_GRADERS:
        raise ArgumentError(f"grader: expected {' or '.join(MATHS_GRADERS)}, found {name!r}")
    if name != "math-verify" and "maths" not in kinds:
        raise ArgumentError(f"grader: {name!r} grades mathematics, and none of these tasks is mathematics")
    if "code" in kinds:
        if not allow_code:
            raise ArgumentError(
                "these problems are graded by running programs that the model wrote: "
                "allow them to run, in a sandbox, by allow_code (on the command line, --allow-code-execution)"
            )
        require_sandbox()
    elif allow_code:
        raise ArgumentError("allow_code: none of these tasks runs programs; leave it out")
    return {
        "integer": lambda text, problem: grade_integer(text, problem.gold),
        "maths": lambda text, problem: MATHS_GRADERS[name](text, problem.gold),
        "code": _grade_program,
    }


def _grade_program(text: str, problem: Problem) -> Grade:
    outcome = run_program(humaneval_program(problem.question, text, problem.gold, problem.entry_point))
    return Grade(outcome.passed, text if text.strip() else None, "```" in text)
