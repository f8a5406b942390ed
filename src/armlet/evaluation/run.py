"""A run: every item of every task under every condition, batch by batch, into a journal that survives."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from armlet.evaluation.conditions.conditions import Condition, applies
from armlet.evaluation.engines.engine import Ask, Engine
from armlet.evaluation.plan import Plan
from armlet.evaluation.tasks.problems import Task
from armlet.runs.folder import Record, RunFolder


@dataclass(frozen=True)
class Unit:
    """What is run at once and written at once."""

    task: Task
    batch: int
    asks: tuple[Ask, ...]
    condition: Condition
    sample: int

    @property
    def key(self) -> tuple[str, int, str, int]:
        """What tells it from the others of the run."""
        return (self.task.name, self.batch, self.condition.name, self.sample)


def units(plan: Plan, engine: Engine) -> Iterator[Unit]:
    """The whole run in order: batch by batch all conditions, so that what is there when it ends early is paired."""
    for task in plan.tasks:
        asks = [Ask(problem, at, plan.systems[task.kind]) for at, problem in enumerate(task.problems)]
        asks.sort(key=lambda ask: (engine.length(ask), ask.number))
        for batch in range(0, len(asks), plan.batch):
            for condition in _applying(plan, task):
                for sample in range(1 if task.kind == "choice" else condition.samples):
                    yield Unit(task, batch // plan.batch, tuple(asks[batch : batch + plan.batch]), condition, sample)


def count(plan: Plan) -> int:
    """Answers in the whole run."""
    return sum(
        len(task.problems) * (1 if task.kind == "choice" else condition.samples)
        for task in plan.tasks
        for condition in _applying(plan, task)
    )


def _applying(plan: Plan, task: Task) -> list[Condition]:
    return [each for each in plan.conditions if applies(each.role, task.kind)]


def run(plan: Plan, engine: Engine, journal: RunFolder, tick: Callable[[int], None] = lambda _: None) -> None:
    """Runs what is not in the journal yet; `tick(answers)` after each unit, also of those that are."""
    for unit in units(plan, engine):
        if not journal.has(unit.key):
            rows = _choose(unit, engine) if unit.task.kind == "choice" else _answer(unit, engine, plan)
            journal.close(unit.key, rows, {"arm": engine.fired()})
        tick(len(unit.asks))


def _answer(unit: Unit, engine: Engine, plan: Plan) -> list[Record]:
    kind = unit.task.kind
    outputs = engine.answer(unit.asks, unit.condition, plan.sampling[kind], batch=unit.batch, sample=unit.sample)
    rows = []
    for ask, output in zip(unit.asks, outputs, strict=True):
        graded = plan.graders[kind](output.text, ask.problem)
        rows.append({**_named(unit, ask), **vars(output), **vars(graded)})
    return rows


def _choose(unit: Unit, engine: Engine) -> list[Record]:
    """The likeliest choice counts; the likeliest by its length, which favours no short one, is kept beside it."""
    rows = []
    for ask, weights in zip(unit.asks, engine.weigh(unit.asks, unit.condition), strict=True):
        gold, choices = int(ask.problem.gold), ask.problem.choices
        by_length = [weight / len(choice) for weight, choice in zip(weights, choices, strict=True)]
        chosen, normalised = (max(range(len(each)), key=each.__getitem__) for each in (weights, by_length))
        found = {"loglikelihoods": weights, "extracted": str(chosen), "correct": chosen == gold}
        rows.append({**_named(unit, ask), **found, "correct_normalised": normalised == gold})
    return rows


def _named(unit: Unit, ask: Ask) -> Record:
    return {
        "task": unit.task.name,
        "condition": unit.condition.name,
        "item": ask.problem.id,
        "sample": unit.sample,
        "batch": unit.batch,
    }
