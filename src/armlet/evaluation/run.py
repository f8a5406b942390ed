"""A run: every item of every task under every condition, batch by batch, into a journal that survives a crash."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from armlet.evaluation.conditions.conditions import Condition, applies
from armlet.evaluation.engines.engine import Ask, Engine
from armlet.evaluation.grading.graders import EQUAL
from armlet.evaluation.plan import Plan
from armlet.evaluation.report.analysis import analyse_run
from armlet.evaluation.report.findings import Findings
from armlet.evaluation.tasks.problems import Task
from armlet.presentation.interruption import until_interrupted
from armlet.presentation.terminal import notes, progress
from armlet.runs.folder import Record, RunFolder, default_run_folder, open_run_folder
from armlet.runs.machine import machine


@dataclass(frozen=True)
class Unit:
    """One batch under one condition: what is run and written at once."""

    task: Task
    batch: int
    asks: tuple[Ask, ...]
    condition: Condition
    sample: int

    @property
    def key(self) -> tuple[str, int, str, int]:
        """Its identity in the run."""
        return (self.task.name, self.batch, self.condition.name, self.sample)


def units(plan: Plan, engine: Engine) -> Iterator[Unit]:
    """The whole run in order: all conditions of a batch before the next, so that an early end leaves paired items."""
    for task in plan.tasks:
        asks = [Ask(problem, at, plan.systems[task.kind]) for at, problem in enumerate(task.problems)]
        asks.sort(key=lambda ask: (engine.length(ask), ask.number))
        for batch in range(0, len(asks), plan.batch):
            for condition, samples in _conditions_of(plan, task):
                for sample in range(samples):
                    yield Unit(task, batch // plan.batch, tuple(asks[batch : batch + plan.batch]), condition, sample)


def count_answers(plan: Plan) -> int:
    """The number of answers in the whole run."""
    return sum(len(task.problems) * samples for task in plan.tasks for _, samples in _conditions_of(plan, task))


def _conditions_of(plan: Plan, task: Task) -> list[tuple[Condition, int]]:
    """The conditions that a task is run under, with their numbers of samples; choices are weighed once."""
    return [
        (condition, 1 if task.kind == "choice" else condition.samples)
        for condition in plan.conditions
        if applies(condition.role, task.kind)
    ]


def run(plan: Plan, engine: Engine, journal: RunFolder, tick: Callable[[int], None] = lambda _: None) -> None:
    """Runs what is not in the journal yet; calls `tick(answers)` after each unit, also of those in the journal."""
    for unit in units(plan, engine):
        if not journal.has(unit.key):
            rows = _weigh_choices(unit, engine) if unit.task.kind == "choice" else _generate_answers(unit, engine, plan)
            journal.close(unit.key, rows, {"arm": engine.fired()})
        tick(len(unit.asks))


@dataclass(frozen=True)
class FinishedRun:
    """The findings of a run, its folder, and whether Ctrl-C cut it short."""

    findings: Findings
    folder: Path
    interrupted: bool


def perform(plan: Plan, engine: Engine, folder: Path | None = None) -> FinishedRun:
    """Runs what a folder, by default one named after the run, does not contain yet, and analyses what is there."""
    manifest = plan.manifest(engine)
    folder = folder or default_run_folder(manifest)
    with open_run_folder(folder, manifest, machine()) as journal:
        with progress("answering", count_answers(plan)) as tick, until_interrupted() as interruption:
            run(plan, engine, journal, tick)
        with notes.status("summing up ..."):
            return FinishedRun(analyse_run(journal, plan.tasks, EQUAL), folder, interruption.happened)


def _generate_answers(unit: Unit, engine: Engine, plan: Plan) -> list[Record]:
    kind = unit.task.kind
    outputs = engine.answer(unit.asks, unit.condition, plan.sampling[kind], batch=unit.batch, sample=unit.sample)
    return [
        {**_row_identity(unit, ask), **vars(output), **vars(plan.graders[kind](output.text, ask.problem))}
        for ask, output in zip(unit.asks, outputs, strict=True)
    ]


def _weigh_choices(unit: Unit, engine: Engine) -> list[Record]:
    """The likeliest choice counts; whether the likeliest per character is right is recorded beside it."""
    rows = []
    for ask, weights in zip(unit.asks, engine.weigh(unit.asks, unit.condition), strict=True):
        gold, choices = int(ask.problem.gold), ask.problem.choices
        by_length = [weight / len(choice) for weight, choice in zip(weights, choices, strict=True)]
        chosen, normalised = (max(range(len(scores)), key=scores.__getitem__) for scores in (weights, by_length))
        graded = {"loglikelihoods": weights, "extracted": str(chosen), "correct": chosen == gold}
        rows.append({**_row_identity(unit, ask), **graded, "correct_normalised": normalised == gold})
    return rows


def _row_identity(unit: Unit, ask: Ask) -> Record:
    task, batch, condition, sample = unit.key
    return {"task": task, "condition": condition, "item": ask.problem.id, "sample": sample, "batch": batch}
