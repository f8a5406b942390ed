"""The answers from which findings are computed, and how they are read from an armlet run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from armlet.evaluation.conditions.conditions import applies
from armlet.evaluation.report.findings import LayerActivity
from armlet.evaluation.settings import ConditionSettings, RunSettings
from armlet.evaluation.tasks.problems import Problem, Task
from armlet.runs.folder import Record, RunFolder


@dataclass(frozen=True)
class GradedAnswer:
    """One answer to one item; None means not recorded."""

    correct: float  # 1 or 0, or a score between them
    text: str  # the generated text, or the selected choice
    extracted: str | None = None  # the extracted answer; also None if nothing could be extracted
    format_ok: bool | None = None  # for generated answers: the answer is in the requested form
    ended: bool | None = None  # the model ended the generated answer, or it was cut off; None if that is not known
    tokens: int | None = None  # the length of a generated answer; also None if the engine does not report it
    logprob: float | None = None  # the mean log-probability of the tokens
    unreadable: str | None = None  # why nothing could be extracted
    loglikelihoods: tuple[float, ...] = ()  # for multiple choice: one for each choice
    correct_normalised: float | None = None  # for multiple choice: `correct` by log-likelihoods per character


Samples = Sequence[GradedAnswer]
"""The answers of one condition to one item."""


@dataclass(frozen=True)
class AskedItem:
    """An item's question and gold answer, as texts."""

    id: str
    question: str
    gold: str


@dataclass(frozen=True)
class ConditionAnswers:
    """The samples of each item under one condition, and ARM's activity by layer."""

    condition: ConditionSettings
    items: Sequence[Samples]
    arm: Mapping[str, LayerActivity]


@dataclass(frozen=True)
class TaskAnswers:
    """The answers to the items of a task that are answered under every condition."""

    name: str
    kind: str  # the kind of a `Task`, or "text"
    planned_items: int  # number of items to answer
    items: Sequence[AskedItem]  # the answered items, possibly none
    conditions: Sequence[ConditionAnswers]  # the baseline first, all with the same items in the same order


def read_answers(journal: RunFolder, task: Task, conditions: Sequence[ConditionSettings]) -> TaskAnswers:
    """Reads the answers to a task from a run's journal, complete or not; `conditions` are all conditions of the run."""
    problems = {problem.id: problem for problem in task.problems}
    compared = applying(conditions, task)
    by_condition = _pair([row for row in journal.rows if row["task"] == task.name], task, compared)
    ids = sorted(set.intersection(*({*samples} for samples in by_condition.values())))
    activity = _sum_activity(journal, task.name)
    answered = [
        ConditionAnswers(
            condition,
            [[_read_answer(row, problems[id]) for row in by_condition[condition.name][id]] for id in ids],
            activity.get(condition.name, {}),
        )
        for condition in compared
    ]
    return TaskAnswers(task.name, task.kind, len(problems), [_read_item(problems[id]) for id in ids], answered)


def any_item(journal: RunFolder, tasks: Sequence[Task]) -> bool:
    """Whether an item was answered under every condition, so that there is something to analyse."""
    conditions = RunSettings.from_manifest(journal.manifest).conditions
    return any(read_answers(journal, task, conditions).items for task in tasks)


def applying(conditions: Sequence[ConditionSettings], task: Task) -> list[ConditionSettings]:
    """The conditions under which a task of this kind is run."""
    return [condition for condition in conditions if applies(condition.role, task.kind)]


def _pair(
    rows: Sequence[Record], task: Task, conditions: Sequence[ConditionSettings]
) -> dict[str, dict[str, list[Record]]]:
    """For each condition, the samples of the items that have all samples, by the item's id."""
    required = {condition.name: 1 if task.kind == "choice" else condition.samples for condition in conditions}
    by_condition: dict[str, dict[str, list[Record]]] = {name: {} for name in required}
    ordered = sorted(rows, key=itemgetter("condition", "item", "sample"))
    for (condition, item), group in groupby(ordered, key=itemgetter("condition", "item")):
        samples = list(group)
        if len(samples) == required[condition]:
            by_condition[condition][item] = samples
    return by_condition


def _read_answer(row: Record, problem: Problem) -> GradedAnswer:
    if problem.choices:
        return GradedAnswer(
            correct=float(row["correct"]),
            text=problem.choices[int(row["extracted"])],
            extracted=row["extracted"],
            loglikelihoods=tuple(row["loglikelihoods"]),
            correct_normalised=float(row["correct_normalised"]),
        )
    recorded = {name: row[name] for name in ("text", "extracted", "format_ok", "ended", "tokens", "logprob")}
    return GradedAnswer(correct=float(row["correct"]), unreadable=row.get("unreadable"), **recorded)


def _read_item(problem: Problem) -> AskedItem:
    question = "\n".join(part for part in (problem.context, problem.question) if part)
    return AskedItem(problem.id, question, problem.choices[int(problem.gold)] if problem.choices else problem.gold)


def _sum_activity(journal: RunFolder, task: str) -> dict[str, dict[str, LayerActivity]]:
    """ARM's activity under each condition, by layer, summed over all batches."""
    totals: dict[str, dict[str, LayerActivity]] = {}
    for (name, _, condition, _), closing in journal.closed.items():
        if name == task:
            layers = totals.setdefault(condition, {})
            for layer, batch in closing["arm"].items():
                layers[layer] = add_activity(layers.get(layer, LayerActivity(0, 0, 0.0, 0)), batch)
    return totals


def add_activity(total: LayerActivity, batch: Mapping[str, float]) -> LayerActivity:
    """ARM's activity in one layer with that of a batch, or of another run, added."""
    tokens = int(total.tokens + batch["tokens"])
    weighted = total.share_moved * total.tokens + batch["share_moved"] * batch["tokens"]
    share = weighted / tokens if tokens else 0.0
    return LayerActivity(tokens, int(total.moved + batch["moved"]), share, int(total.passed + batch["passed"]))
