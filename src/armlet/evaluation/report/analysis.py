"""Computes findings from answers: accuracy and form of each condition, paired comparisons, and verdicts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from armlet.evaluation.conditions.conditions import BASELINE
from armlet.evaluation.origins import no_test
from armlet.evaluation.report.answers import AskedItem, ConditionAnswers, Samples, TaskAnswers, applying, read_answers
from armlet.evaluation.report.findings import (
    COMPARED_ROLES,
    ChosenAnswers,
    ConditionFindings,
    DiscordantItem,
    PairedComparison,
    PlannedPower,
    Report,
    Selection,
    Side,
    TaskFindings,
    Verdict,
    WrittenAnswers,
)
from armlet.evaluation.report.sentences import verdict_sentence
from armlet.evaluation.settings import ConditionSettings, RunSettings
from armlet.evaluation.tasks.problems import Kind, Task
from armlet.runs.folder import RunFolder
from armlet.statistics.comparison import compare
from armlet.statistics.power import detectable
from armlet.statistics.significance import corrected, holm
from armlet.statistics.votes import KS, distinct_2, majority, pass_at_k

VERDICT_CONFIDENCE = 0.95

ASSUMED_DISCORDANT = 0.2
"""The share of discordant pairs that is assumed to compute the smallest detectable difference before a run."""

EXACT_PLACEBOS = ("identity", "draw-only")  # placebos whose answers must match the baseline's exactly

Equal = Callable[[str, str], bool]
Correctness = NDArray[np.float64]


def analyse_run(journal: RunFolder, tasks: Sequence[Task], equal: Mapping[Kind, Equal], *, seed: int = 0) -> Report:
    """Analyses a complete or interrupted armlet run, from its journal and tasks; see `analyse`."""
    settings = RunSettings.from_manifest(journal.manifest)
    answers = [read_answers(journal, task, settings.conditions) for task in tasks]
    return analyse(settings, answers, {**equal}, seed=seed)


def analyse(
    settings: RunSettings, tasks: Sequence[TaskAnswers], equal: Mapping[str, Equal], *, seed: int = 0
) -> Report:
    """Analyses any run. Tasks without an answered item are left out, and the run counts as incomplete.

    Args:
        settings: the settings of the run; they may include tasks without answers.
        tasks: the answers to each task.
        equal: a function for each kind of task that checks whether two extracted answers are equal.
        seed: seed of the bootstrap.
    """
    planned = [plan_comparisons([answers.condition for answers in task.conditions], task.kind) for task in tasks]
    judged = sum(pair.judged for pairs in planned for pair in pairs)
    answered = [(task, pairs) for task, pairs in zip(tasks, planned, strict=True) if task.items]
    analysed = [_analyse_task(task, pairs, equal.get(task.kind), seed, judged) for task, pairs in answered]
    analysed = _correct_by_holm(analysed)
    items = {task.name: task.items for task in analysed}
    judged_pairs = [(task, pair) for task in analysed for pair in task.comparisons if pair.judged]
    return Report(
        armlet=settings.versions["armlet"] or "",
        complete=all(items.get(task.name, 0) == task.items for task in settings.tasks),
        verdicts=[
            Verdict(
                pair.verdict,
                verdict_sentence(task, pair) + no_test(settings, task.name, pair.treated.condition),
            )
            for task, pair in judged_pairs
        ],
        tasks=analysed,
        settings=settings,
    )


def planned_power(items: int, judged: int = 1) -> PlannedPower:
    """The power of a number of items before a run, with Holm's correction for `judged` comparisons."""
    confidence = corrected(VERDICT_CONFIDENCE, max(judged, 1))
    return PlannedPower(items, ASSUMED_DISCORDANT, judged, detectable(items, ASSUMED_DISCORDANT, confidence))


def count_judged(conditions: Sequence[ConditionSettings], tasks: Sequence[Task]) -> int:
    """The number of comparisons that receive a verdict, over all tasks of a run."""
    return sum(pair.judged for task in tasks for pair in plan_comparisons(applying(conditions, task), task.kind))


@dataclass(frozen=True)
class PlannedPair:
    """Two sides to compare, and whether their comparison receives a verdict."""

    treated: Side
    against: Side
    judged: bool


def plan_comparisons(conditions: Sequence[ConditionSettings], kind: str) -> list[PlannedPair]:
    """Pairs every condition with the baseline, also by majority, and every treatment with its matched placebo.

    Programs have no majority, because programs that do the same are rarely written in the same way.
    """
    voted: list[Selection] = [] if kind == "code" else ["majority"]
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
            matched = [c.name for c in conditions if c.placebo == "matched" and c.treatment == condition.treatment]
            pairs += [PlannedPair(Side(name), Side(placebo), False) for placebo in matched]
    return pairs


def _analyse_task(
    task: TaskAnswers, pairs: Sequence[PlannedPair], equal: Equal | None, seed: int, judged: int
) -> TaskFindings:
    by_name = {answers.condition.name: answers for answers in task.conditions}
    baseline = by_name[BASELINE].items
    return TaskFindings(
        name=task.name,
        kind=task.kind,
        items=len(task.items),
        planned_items=task.planned_items,
        planned=planned_power(task.planned_items, judged),
        conditions=[_describe_condition(answers, task.kind) for answers in task.conditions],
        comparisons=_compare_pairs(pairs, by_name, equal, seed, judged),
        same_as_baseline={
            answers.condition.name: _count_same(answers.items, baseline)
            for answers in task.conditions
            if answers.condition.placebo in EXACT_PLACEBOS
        },
        unchanged={
            answers.condition.name: _count_same(answers.items, baseline)
            for answers in task.conditions
            if answers.condition.is_function
        },
        discordant=[
            item
            for answers in task.conditions
            if answers.condition.role in COMPARED_ROLES
            for item in _discordant_items(answers.condition.name, task.items, baseline, answers.items)
        ],
    )


def _describe_condition(answers: ConditionAnswers, kind: str) -> ConditionFindings:
    condition, correct = answers.condition, correctness(answers.items)
    return ConditionFindings(
        name=condition.name,
        role=condition.role,
        samples=correct.shape[1],
        accuracy=float(correct.mean()),
        answers=_describe_chosen(answers.items) if kind == "choice" else _describe_written(answers.items, correct),
        arm=answers.arm,
    )


def _describe_chosen(items: Sequence[Samples]) -> ChosenAnswers:
    normalised = [answer.correct_normalised for samples in items for answer in samples]
    recorded = [value for value in normalised if value is not None]
    return ChosenAnswers(float(np.mean(recorded)) if len(recorded) == len(normalised) else None)


def _describe_written(items: Sequence[Samples], correct: Correctness) -> WrittenAnswers:
    answers = [answer for samples in items for answer in samples]
    repetition = distinct_2(answer.text for answer in answers)
    formats = [answer.format_ok for answer in answers if answer.format_ok is not None]
    if not formats:
        return WrittenAnswers(None, None, None, None, None, repetition, {})
    lengths = [answer.tokens for answer in answers if answer.tokens is not None]
    extracted = np.array([answer.extracted is not None for answer in answers])
    return WrittenAnswers(
        extracted=float(extracted.mean()),
        format_ok=float(np.mean(formats)),
        truncated=float(1 - np.mean([answer.ended for answer in answers if answer.ended is not None])),
        accuracy_of_extracted=float(correct.reshape(-1)[extracted].mean()) if extracted.any() else None,
        tokens=float(np.mean(lengths)) if lengths else None,
        distinct_2=repetition,
        pass_at={str(k): float(pass_at_k(correct, k).mean()) for k in KS if k <= correct.shape[1]},
    )


def _compare_pairs(
    pairs: Sequence[PlannedPair], by_name: Mapping[str, ConditionAnswers], equal: Equal | None, seed: int, judged: int
) -> list[PairedComparison]:
    """Compares all pairs, except by log-probabilities that are not recorded."""
    comparisons = []
    for pair in pairs:
        base, treated = (_select(by_name[side.condition].items, side, equal) for side in (pair.against, pair.treated))
        if base is not None and treated is not None:
            comparison = compare(base, treated, seed=seed, comparisons=max(judged, 1))
            comparisons.append(PairedComparison(pair.treated, pair.against, pair.judged, comparison))
    return comparisons


def correctness(items: Sequence[Samples]) -> Correctness:
    """The correctness of each answer, `[items, samples]`."""
    return np.array([[answer.correct for answer in samples] for samples in items])


def _select(items: Sequence[Samples], side: Side, equal: Equal | None) -> Correctness | None:
    """Correctness `[items, samples]`, or `[items]` of selected answers; None if log-probabilities are not recorded."""
    correct = correctness(items)
    if side.selection == "":
        return correct
    if side.selection == "any":
        return correct.max(axis=1)
    if side.selection == "likeliest":
        logprobs = np.array([[answer.logprob for answer in samples] for samples in items], dtype=float)
        most_likely = logprobs.argmax(axis=1)
        return None if np.isnan(logprobs).any() else correct[np.arange(len(correct)), most_likely]
    assert equal is not None, "answers that cannot be compared have no majority"
    votes = [majority([answer.extracted for answer in samples], equal) for samples in items]
    return np.array([0.0 if index is None else row[index] for index, row in zip(votes, correct, strict=True)])


def _count_same(items: Sequence[Samples], baseline: Sequence[Samples]) -> int:
    """The number of items with exactly the baseline's texts or log-likelihoods."""
    outputs = ([[(a.text, a.loglikelihoods) for a in samples] for samples in side] for side in (items, baseline))
    return sum(output == expected for output, expected in zip(*outputs, strict=True))


def _discordant_items(
    condition: str, items: Sequence[AskedItem], baseline: Sequence[Samples], treated: Sequence[Samples]
) -> Iterator[DiscordantItem]:
    for item, (base, *_), (answer, *_) in zip(items, baseline, treated, strict=True):
        if base.correct != answer.correct:
            gained = answer.correct > base.correct
            yield DiscordantItem(condition, item.id, item.question, item.gold, gained, base.text, answer.text)


def _correct_by_holm(tasks: Sequence[TaskFindings]) -> list[TaskFindings]:
    """Applies Holm's correction over all judged comparisons of all tasks."""
    p_values = [pair.comparison.p_value for task in tasks for pair in task.comparisons if pair.judged]
    adjusted = iter(holm(p_values))
    corrected_tasks = []
    for task in tasks:
        pairs = [replace(pair, p_holm=next(adjusted)) if pair.judged else pair for pair in task.comparisons]
        corrected_tasks.append(replace(task, comparisons=pairs))
    return corrected_tasks
