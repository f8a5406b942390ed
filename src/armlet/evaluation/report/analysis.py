"""Computes findings from answers: accuracy and form of each condition, paired comparisons, and verdicts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from armlet.evaluation.conditions.conditions import BASELINE
from armlet.evaluation.conditions.placebos import REPEAT
from armlet.evaluation.origins import no_test
from armlet.evaluation.report.answers import (
    AskedItem,
    ConditionAnswers,
    GradedAnswer,
    Samples,
    TaskAnswers,
    read_answers,
)
from armlet.evaluation.report.findings import (
    COMPARED_ROLES,
    ChosenAnswers,
    ConditionFindings,
    DiscordantItem,
    NoiseFloor,
    PairedComparison,
    PlannedPower,
    Report,
    Side,
    TaskFindings,
    Verdict,
    WrittenAnswers,
)
from armlet.evaluation.report.pairs import PlannedPair, plan_comparisons
from armlet.evaluation.report.sentences import verdict_sentence
from armlet.evaluation.settings import RunSettings
from armlet.evaluation.tasks.problems import Kind, Task
from armlet.runs.folder import RunFolder
from armlet.statistics.comparison import compare
from armlet.statistics.power import detectable, items_for_margin
from armlet.statistics.significance import corrected, holm
from armlet.statistics.votes import KS, distinct_2, majority, pass_at_k

VERDICT_CONFIDENCE = 0.95

ASSUMED_DISCORDANT = 0.2
"""The share of discordant pairs that is assumed to compute the smallest detectable difference before a run."""

QUOTED = 60  # characters of an answer that are shown as an example

EXACT_PLACEBOS = ("identity", "draw-only")  # placebos whose answers must match the baseline's exactly

Equal = Callable[[str, str], bool]
Correctness = NDArray[np.float64]


def analyse_run(
    journal: RunFolder,
    tasks: Sequence[Task],
    equal: Mapping[Kind, Equal],
    *,
    seed: int = 0,
) -> Report:
    """Analyses a complete or interrupted armlet run, from its journal and tasks; see `analyse`."""
    settings = RunSettings.from_manifest(journal.manifest)
    answers = [read_answers(journal, task, settings.conditions) for task in tasks]
    return analyse(settings, answers, {**equal}, seed=seed)


def analyse(
    settings: RunSettings,
    tasks: Sequence[TaskAnswers],
    equal: Mapping[str, Equal],
    *,
    seed: int = 0,
) -> Report:
    """Analyses any run. Tasks without an answered item are left out, and the run counts as incomplete.

    Args:
        settings: the settings of the run, with its margin; they may include tasks without answers.
        tasks: the answers to each task.
        equal: a function for each kind of task that checks whether two extracted answers are equal.
        seed: seed of the bootstrap.
    """
    planned = [plan_comparisons([answers.condition for answers in task.conditions], task.kind) for task in tasks]
    judged = sum(pair.judged for pairs in planned for pair in pairs)
    answered = [(task, pairs) for task, pairs in zip(tasks, planned, strict=True) if task.items]
    rules = Rules(seed, judged, settings.margin_share)
    tested = [_analyse_task(task, pairs, equal.get(task.kind), rules) for task, pairs in answered]
    analysed = correct_by_holm(tested, judged)
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


def planned_power(items: int, judged: int = 1, margin: float | None = None) -> PlannedPower:
    """The power of a number of items before a run, with Holm's correction for `judged` comparisons."""
    confidence = corrected(VERDICT_CONFIDENCE, max(judged, 1))
    smallest = detectable(items, ASSUMED_DISCORDANT, confidence)
    needed = None if margin is None else items_for_margin(margin, ASSUMED_DISCORDANT, confidence)
    return PlannedPower(items, ASSUMED_DISCORDANT, judged, smallest, margin, needed)


@dataclass(frozen=True)
class Rules:
    """How all comparisons of a run are judged."""

    seed: int  # of the bootstrap
    judged: int  # number of comparisons that receive a verdict
    margin: float | None


def _analyse_task(task: TaskAnswers, pairs: Sequence[PlannedPair], equal: Equal | None, rules: Rules) -> TaskFindings:
    by_name = {answers.condition.name: answers for answers in task.conditions}
    baseline = by_name[BASELINE].items
    comparisons = _compare_pairs(pairs, by_name, equal, rules)
    return TaskFindings(
        name=task.name,
        kind=task.kind,
        items=len(task.items),
        planned_items=task.planned_items,
        planned=planned_power(task.planned_items, rules.judged, rules.margin),
        conditions=[_describe_condition(answers, task.kind) for answers in task.conditions],
        comparisons=comparisons,
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
        noise_floor=_noise_floor(task, comparisons),
    )


def _noise_floor(task: TaskAnswers, comparisons: Sequence[PairedComparison]) -> NoiseFloor | None:
    baseline, *others = task.conditions
    repeated = next((answers for answers in others if answers.condition.placebo == REPEAT), None)
    if repeated is None:
        return None
    pair = next(pair for pair in comparisons if pair.treated == Side(repeated.condition.name))
    texts = ([[answer.text for answer in samples] for samples in side.items] for side in (baseline, repeated))
    differing = sum(first != again for first, again in zip(*texts, strict=True))
    sampled = task.kind != "choice" and bool(repeated.condition.temperature)
    return NoiseFloor(differing, len(task.items), pair.comparison.difference, pair.interval, sampled)


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
    endings = [answer.ended for answer in answers if answer.ended is not None]
    extracted = np.array([answer.extracted is not None for answer in answers])
    unreadable = [answer for answer in answers if answer.extracted is None and answer.ended is not False]
    return WrittenAnswers(
        extracted=float(extracted.mean()),
        format_ok=float(np.mean(formats)),
        truncated=float(1 - np.mean(endings)) if endings else None,
        accuracy_of_extracted=float(correct.reshape(-1)[extracted].mean()) if extracted.any() else None,
        tokens=float(np.mean(lengths)) if lengths else None,
        distinct_2=repetition,
        pass_at={str(k): float(pass_at_k(correct, k).mean()) for k in KS if k <= correct.shape[1]},
        unreadable=len(unreadable) / len(answers),
        unreadable_example=_quoted(unreadable[0]) if unreadable else None,
    )


def _quoted(answer: GradedAnswer) -> str:
    """The end of an answer, where a final one is expected, on one line without control characters, and the reason."""
    text = " ".join(answer.text.split())
    end = text if len(text) <= QUOTED else f"…{text[1 - QUOTED :]}"
    return f"{end!r} ({answer.unreadable})" if answer.unreadable else repr(end)


def _compare_pairs(
    pairs: Sequence[PlannedPair], by_name: Mapping[str, ConditionAnswers], equal: Equal | None, rules: Rules
) -> list[PairedComparison]:
    """Compares all pairs, except by log-probabilities that are not recorded."""
    comparisons = []
    for pair in pairs:
        base, treated = (_select(by_name[side.condition].items, side, equal) for side in (pair.against, pair.treated))
        if base is not None and treated is not None:
            counted = max(rules.judged, 1)
            comparison = compare(base, treated, seed=rules.seed, comparisons=counted, margin=rules.margin)
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


def correct_by_holm(tasks: Sequence[TaskFindings], planned: int) -> list[TaskFindings]:
    """Applies Holm's correction over all judged comparisons of all tasks, and separately over their margins' tests.

    `planned` counts also those that have no answers yet. Their p-values are 1, so that they can only add to what is
    shown once they are answered.
    """
    judged = [pair.comparison for task in tasks for pair in task.comparisons if pair.judged]
    missing = [1.0] * (planned - len(judged))
    p_holm = iter(holm([*(comparison.p_value for comparison in judged), *missing]))
    p_equivalence = [comparison.p_equivalence for comparison in judged if comparison.p_equivalence is not None]
    p_equivalence_holm = iter(holm([*p_equivalence, *missing] if p_equivalence else []))
    corrected_tasks = []
    for task in tasks:
        pairs = [
            replace(pair, p_holm=next(p_holm), p_equivalence_holm=next(p_equivalence_holm, None))
            if pair.judged
            else pair
            for pair in task.comparisons
        ]
        corrected_tasks.append(replace(task, comparisons=pairs))
    return corrected_tasks
