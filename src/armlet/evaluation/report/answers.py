"""The answers that findings are made of: read here from an armlet run, and elsewhere from runs of lm-eval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from armlet.evaluation.conditions.conditions import applies
from armlet.evaluation.report.findings import LayerActivity
from armlet.evaluation.settings import ConditionSettings
from armlet.evaluation.tasks.problems import Problem, Task
from armlet.runs.folder import Record, RunFolder


@dataclass(frozen=True)
class Form:
    """The form of a generated answer.

    Args:
        format_ok: it is in the requested form.
        ended: the model ended it; otherwise it was cut off.
        tokens: its length; None where the engine does not say.
    """

    format_ok: bool
    ended: bool
    tokens: int | None


@dataclass(frozen=True)
class GradedAnswer:
    """One answer to one item; None stands for what was not recorded.

    Args:
        correct: 1 or 0, or a score between them.
        text: as a reader sees it; of multiple choice, the chosen one.
        extracted: what the grader read; None also where it could read nothing.
        form: of a generated answer.
        logprob: the mean log-probability of its tokens.
        loglikelihoods: of multiple choice: of each choice.
        correct_normalised: of multiple choice: the same as `correct` by log-likelihoods per character.
    """

    correct: float
    text: str
    extracted: str | None = None
    form: Form | None = None
    logprob: float | None = None
    loglikelihoods: tuple[float, ...] = ()
    correct_normalised: float | None = None


Samples = Sequence[GradedAnswer]
"""The answers of one condition to one item."""


@dataclass(frozen=True)
class Item:
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
    """One task's answers to the items that every condition has answered.

    Args:
        name: of the task.
        kind: as of `Task`, or "text".
        planned_items: to be answered.
        items: which are answered, possibly none.
        conditions: the baseline first, each with the same items in the same order.
    """

    name: str
    kind: str
    planned_items: int
    items: Sequence[Item]
    conditions: Sequence[ConditionAnswers]


def read_answers(journal: RunFolder, task: Task, conditions: Sequence[ConditionSettings]) -> TaskAnswers:
    """One task's answers from the journal of a run, whole or cut short.

    Args:
        journal: of the run.
        task: one of those that were asked.
        conditions: all of the run's.
    """
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
    ordered = sorted(rows, key=lambda row: (row["condition"], row["item"], row["sample"]))
    for (condition, item), group in groupby(ordered, key=lambda row: (row["condition"], row["item"])):
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
    return GradedAnswer(
        correct=float(row["correct"]),
        text=row["text"],
        extracted=row["extracted"],
        form=Form(row["format_ok"], row["ended"], row["tokens"]),
        logprob=row["logprob"],
    )


def _read_item(problem: Problem) -> Item:
    question = "\n".join(part for part in (problem.context, problem.question) if part)
    return Item(problem.id, question, problem.choices[int(problem.gold)] if problem.choices else problem.gold)


def _sum_activity(journal: RunFolder, task: str) -> dict[str, dict[str, LayerActivity]]:
    """What ARM did under each condition, layer by layer, over all batches."""
    reports: dict[str, dict[str, list[Mapping[str, float]]]] = {}
    for (name, _, condition, _), closing in journal.closed.items():
        if name == task:
            for layer, report in closing["arm"].items():
                reports.setdefault(condition, {}).setdefault(layer, []).append(report)
    return {
        condition: {layer: _add_up(batches) for layer, batches in layers.items()}
        for condition, layers in reports.items()
    }


def _add_up(batches: Sequence[Mapping[str, float]]) -> LayerActivity:
    tokens = moved = passed = 0
    share = 0.0
    for batch in batches:
        weighted = share * tokens + batch["share_moved"] * batch["tokens"]
        tokens, moved, passed = (
            int(total + batch[name]) for name, total in (("tokens", tokens), ("moved", moved), ("passed", passed))
        )
        share = weighted / tokens if tokens else 0.0
    return LayerActivity(tokens, moved, share, passed)
