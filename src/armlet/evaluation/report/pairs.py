"""Plans which conditions of a run are compared, and which of these comparisons receive a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass

from armlet.evaluation.conditions.conditions import BASELINE
from armlet.evaluation.conditions.placebos import COMPARED_PLACEBOS
from armlet.evaluation.report.answers import applying
from armlet.evaluation.report.findings import Selection, Side
from armlet.evaluation.settings import ConditionSettings
from armlet.evaluation.tasks.problems import Task


@dataclass(frozen=True)
class PlannedPair:
    """Two sides to compare, and whether their comparison receives a verdict."""

    treated: Side
    against: Side
    judged: bool


def plan_comparisons(conditions: Sequence[ConditionSettings], kind: str) -> list[PlannedPair]:
    """Pairs every condition with the baseline, also by majority, and every treatment with its `COMPARED_PLACEBOS`.

    Programs, and texts that other tools graded, have no majority: the same content is rarely written in the same way.
    """
    voted: list[Selection] = [] if kind in ("code", "text") else ["majority"]
    pairs: list[PlannedPair] = []
    for condition in conditions:
        name = condition.name
        if condition.role == "best-of":
            selections: list[Selection] = [*voted, "likeliest", "any"]
            pairs += [PlannedPair(Side(name, by), Side(BASELINE), by != "any") for by in selections]
        elif name != BASELINE:
            selections = ["", *voted] if kind != "choice" and condition.samples > 1 else [""]
            judged = condition.role != "placebo"
            pairs += [PlannedPair(Side(name, by), Side(BASELINE, by), judged) for by in selections]
        if condition.role == "treated":
            same = [c for c in conditions if c.placebo in COMPARED_PLACEBOS and c.treatment == condition.treatment]
            pairs += [PlannedPair(Side(name), Side(control.name), False) for control in same]
    return pairs


def count_judged(conditions: Sequence[ConditionSettings], tasks: Sequence[Task]) -> int:
    """The number of comparisons that receive a verdict, over all tasks of a run."""
    return sum(pair.judged for task in tasks for pair in plan_comparisons(applying(conditions, task), task.kind))
