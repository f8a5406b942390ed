"""What keeps a run's answers from showing a difference, in sentences for readers of its verdicts."""

from collections.abc import Iterable, Iterator
from itertools import islice

from armlet.evaluation.origins import origin_sentence
from armlet.evaluation.report.findings import (
    COMPARED_ROLES,
    PairedComparison,
    Report,
    TaskFindings,
    Verdict,
    WrittenAnswers,
)
from armlet.evaluation.report.sentences import bands_without_effect
from armlet.presentation.numbers import percent

MANY_ANSWERS = 0.1
"""The share of truncated or unreadable answers above which a reader is told."""

BEYOND_MARGIN = (
    "two one-sided tests at 5 % correspond to a 90 % interval, so the 95 % interval beside a verdict may reach "
    "slightly beyond the margin"
)


def limited_verdicts(report: Report) -> list[tuple[list[Verdict], list[str]]]:
    """The verdicts of each task, with what limits them: answers that could not count, and items without room."""
    verdicts = iter(report.verdicts)
    judged = [sum(pair.judged for pair in task.comparisons) for task in report.tasks]
    return [
        ([*islice(verdicts, count)], [*task_limitations(task)])
        for task, count in zip(report.tasks, judged, strict=True)
    ]


def general_limitations(report: Report) -> list[str]:
    """What limits the whole report: nothing compared, intervals beyond the margin, and how settings were chosen."""
    compared = any(condition.role in (*COMPARED_ROLES, "best-of") for condition in report.settings.conditions)
    nothing = [] if compared else ["nothing was compared with the baseline: there is no treatment, filler or best_of"]
    beyond = beyond_margin(pair for task in report.tasks for pair in task.comparisons)
    return [*nothing, *beyond, *map(origin_sentence, report.settings.origins), *bands_without_effect(report)]


def beyond_margin(pairs: Iterable[PairedComparison]) -> list[str]:
    """Why an interval may contradict the verdict beside it, if that of a pair does."""
    return [BEYOND_MARGIN] if any(pair.reaches_beyond_margin for pair in pairs) else []


def task_limitations(task: TaskFindings) -> Iterator[str]:
    """What limits the verdicts on a task: answers that could not count, and items without room."""
    lost = {name: shares for name, shares in _unusable(task) if shares}
    if lost:
        truncated = any("truncated" in share for shares in lost.values() for share in shares)
        advice = "use a larger max_new_tokens" if truncated else "read some of them; another system prompt may help"
        conditions = "; ".join(f"{name} {' and '.join(shares)}" for name, shares in lost.items())
        yield f"{task.name}: many answers could not be graded as meant ({conditions}): {advice}"
    accuracy = task.baseline.accuracy
    if accuracy in (0, 1):
        change, items = ("worse", "easier") if accuracy == 0 else ("better", "harder")
        yield (
            f"{task.name}: the baseline's accuracy is {percent(accuracy)}, so these items cannot show that a "
            f"treatment is {change}; use {items} ones"
        )


def _unusable(task: TaskFindings) -> Iterator[tuple[str, list[str]]]:
    """The large shares of truncated and unreadable answers, in words, of the baseline and each compared condition."""
    for condition in task.conditions:
        answers = condition.answers
        if isinstance(answers, WrittenAnswers) and condition.role in ("baseline", *COMPARED_ROLES, "best-of"):
            unreadable = None if answers.extracted is None else 1 - answers.extracted
            shares = {"truncated": answers.truncated, "unreadable": unreadable}
            words = [f"{percent(share)} {what}" for what, share in shares.items() if share and share > MANY_ANSWERS]
            yield condition.name, words
