"""The answers that findings are made of: read here from an armlet run, and elsewhere from runs of lm-eval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from armlet.evaluation.conditions.conditions import applies
from armlet.evaluation.report.findings import LayerActivity
from armlet.evaluation.settings import ConditionSettings
from armlet.evaluation.tasks.problems import Problem, Task
from armlet.runs.folder import Record, RunFolder


@dataclass(frozen=True)
class GradedAnswer:
    """One answer to one item; None stands for what was not recorded."""

    correct: float  # 1 or 0, or a score between them
    text: str  # as a reader sees it; of multiple choice, the chosen one
    extracted: str | None = None  # what the grader read; None also where it could read nothing
    format_ok: bool | None = None  # of a generated answer: it is in the requested form
    ended: bool | None = None  # of a generated answer: the model ended it; otherwise it was cut off
    tokens: int | None = None  # the length of a generated answer; None also where the engine does not say
    logprob: float | None = None  # the mean log-probability of its tokens
    loglikelihoods: tuple[float, ...] = ()  # of multiple choice: of each choice
    correct_normalised: float | None = None  # of multiple choice: `correct` by log-likelihoods per character


Samples = Sequence[GradedAnswer]
"""The answers of one condition to one item."""


@dataclass(frozen=True)
class AskedItem:
    """What was asked, and the right answer, as texts."""

    id: str
    question: str
    gold: str


@dataclass(frozen=True)
class ConditionAnswers:
    """One condition's answers: the samples of each item, and what ARM did meanwhile, by layer."""

    condition: ConditionSettings
    items: Sequence[Samples]
    arm: Mapping[str, LayerActivity]


@dataclass(frozen=True)
class TaskAnswers:
    """One task's answers to the items that every condition has answered."""

    name: str
    kind: str  # as of `Task`, or "text"
    planned_items: int  # to be answered
    items: Sequence[AskedItem]  # which are answered, possibly none
    conditions: Sequence[ConditionAnswers]  # the baseline first, each with the same items in the same order


def read_answers(journal: RunFolder, task: Task, conditions: Sequence[ConditionSettings]) -> TaskAnswers:
    """One task's answers from the journal of a run, whole or cut short; `conditions` are all of the run's."""
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


def applying(conditions: Sequence[ConditionSettings], task: Task) -> list[ConditionSettings]:
    """The conditions under which a task of this kind is run."""
    return [condition for condition in conditions if applies(condition.role, task.kind)]


def _pair(
    rows: Sequence[Record], task: Task, conditions: Sequence[ConditionSettings]
) -> dict[str, dict[str, list[Record]]]:
    """For each condition, the samples of each item that has all of them, by the item's id."""
    needed = {condition.name: 1 if task.kind == "choice" else condition.samples for condition in conditions}
    by_condition: dict[str, dict[str, list[Record]]] = {name: {} for name in needed}
    ordered = sorted(rows, key=itemgetter("condition", "item", "sample"))
    for (condition, item), group in groupby(ordered, key=itemgetter("condition", "item")):
        samples = list(group)
        if len(samples) == needed[condition]:
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
    return GradedAnswer(correct=float(row["correct"]), **recorded)


def _read_item(problem: Problem) -> AskedItem:
    question = "\n".join(part for part in (problem.context, problem.question) if part)
    return AskedItem(problem.id, question, problem.choices[int(problem.gold)] if problem.choices else problem.gold)


def _sum_activity(journal: RunFolder, task: str) -> dict[str, dict[str, LayerActivity]]:
    """What ARM did under each condition, layer by layer, over all batches."""
    totals: dict[str, dict[str, LayerActivity]] = {}
    for (name, _, condition, _), closing in journal.closed.items():
        if name == task:
            layers = totals.setdefault(condition, {})
            for layer, batch in closing["arm"].items():
                layers[layer] = _add(layers.get(layer, LayerActivity(0, 0, 0.0, 0)), batch)
    return totals


def _add(total: LayerActivity, batch: Mapping[str, float]) -> LayerActivity:
    tokens = int(total.tokens + batch["tokens"])
    weighted = total.share_moved * total.tokens + batch["share_moved"] * batch["tokens"]
    share = weighted / tokens if tokens else 0.0
    return LayerActivity(tokens, int(total.moved + batch["moved"]), share, int(total.passed + batch["passed"]))
