"""How the verdicts of a report are reached, in words."""

from armlet.evaluation.report.findings import Report
from armlet.presentation.numbers import with_points

JUDGING = "'helped' and 'hurt' need p < 0.05"
HOLM_CORRECTION = " after Holm's correction over all planned comparisons"
MARGIN_JUDGING = (
    " 'No difference larger than {margin}' and 'by less than {margin}' need two one-sided tests that reject a "
    "difference of {margin} in each direction{corrected}."
)
MARGIN_CORRECTION = ", with a Holm correction of their own, so that an interval inside the margin may not be enough"
DIFFERENCES = (
    " 'No difference shown' is neither: there may be one. Differences are in percentage points of accuracy, on the "
    "same items."
)


def judging(findings: Report) -> str:
    """How the verdicts of a report are reached."""
    several = any(task.planned.comparisons > 1 for task in findings.tasks)
    return judging_sentences(findings.settings.margin_share, several=several)


def judging_sentences(margin: float | None, *, several: bool) -> str:
    """How verdicts are reached, with Holm's correction if there are several comparisons to correct."""
    corrected, correction = (MARGIN_CORRECTION, HOLM_CORRECTION) if several else ("", "")
    tests = MARGIN_JUDGING.format(margin=with_points(margin), corrected=corrected) if margin else ""
    return f"{JUDGING}{correction}.{tests}{DIFFERENCES}"
