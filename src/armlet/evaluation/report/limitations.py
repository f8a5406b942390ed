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
from armlet.evaluation.tasks.problems import unused_system
from armlet.presentation.numbers import percent

MANY_ANSWERS = 0.1
"""The share of truncated or unreadable answers above which a reader is told."""

MORE_TOKENS = "allow more tokens (max_new_tokens, --max-new-tokens)"
OTHER_PROMPT = "another system prompt (system, --system) may help with the unreadable ones"

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
    """What limits the whole report: what was compared, intervals beyond the margin, prompts, and settings' origins."""
    compared = any(condition.role in (*COMPARED_ROLES, "best-of") for condition in report.settings.conditions)
    nothing = [] if compared else ["nothing was compared with the baseline: there is no treatment, filler or best_of"]
    beyond = beyond_margin(pair for task in report.tasks for pair in task.comparisons)
    run = report.settings
    unused = unused_system({task.name: task.kind for task in run.tasks}, run.systems)
    return [*nothing, *beyond, *unused, *map(origin_sentence, run.origins), *bands_without_effect(report)]


def beyond_margin(pairs: Iterable[PairedComparison]) -> list[str]:
    """Why an interval may contradict the verdict beside it, if that of a pair does."""
    return [BEYOND_MARGIN] if any(pair.reaches_beyond_margin for pair in pairs) else []


def task_limitations(task: TaskFindings) -> Iterator[str]:
    """What limits the verdicts on a task: answers that could not count, and items without room."""
    yield from _ungraded(task)
    accuracy = task.baseline.accuracy
    if accuracy in (0, 1):
        change, items = ("worse", "easier") if accuracy == 0 else ("better", "harder")
        yield (
            f"{task.name}: the baseline's accuracy is {percent(accuracy)}, so these items cannot show that a "
            f"treatment is {change}; use {items} ones"
        )


def _ungraded(task: TaskFindings) -> Iterator[str]:
    """The conditions with many answers that could not be graded as meant, and what helps against each cause."""
    written = {
        condition.name: condition.answers
        for condition in task.conditions
        if isinstance(condition.answers, WrittenAnswers) and condition.role in ("baseline", *COMPARED_ROLES, "best-of")
    }
    truncated = {name: _many(answers.truncated, "truncated") for name, answers in written.items()}
    unreadable = {name: _many(answers.unreadable, "unreadable") for name, answers in written.items()}
    words = {name: " and ".join(filter(None, (truncated[name], unreadable[name]))) for name in written}
    advice = [MORE_TOKENS] if any(truncated.values()) else []
    if first := next(filter(unreadable.get, written), None):
        advice += [f"{OTHER_PROMPT}, as for {written[first].unreadable_example}"]
    if advice:
        conditions = "; ".join(f"{name} {text}" for name, text in words.items() if text)
        yield f"{task.name}: many answers could not be graded as meant ({conditions}): {'; '.join(advice)}"


def _many(share: float | None, what: str) -> str:
    """A large share in words; "" where it is small or not known."""
    return f"{percent(share)} {what}" if share and share > MANY_ANSWERS else ""
