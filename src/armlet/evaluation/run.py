"""A run: every item of every task under every condition, batch by batch, into a journal that survives."""

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from armlet.evaluation.conditions import Condition, applies
from armlet.evaluation.engine import Ask, Engine, Sampling
from armlet.evaluation.graders import Grader, named
from armlet.evaluation.journal import Journal, Row
from armlet.evaluation.problems import Kind, Task

PACKAGES = ("armlet", "torch", "transformers", "tokenizers", "math-verify")
"""Whose versions decide an answer or its grade."""


@dataclass(frozen=True)
class Plan:
    """What is run.

    Args:
        tasks: with names of their own.
        conditions: with names of their own, the baseline first.
        sampling: how answers are generated; `max_new_tokens` by kind of task.
        batch: items in a batch.
        systems: the system prompt of each kind of task.
        graders: of answers in words, by kind of task; multiple choice needs none.
        grader: the name of that of mathematics.
    """

    tasks: Sequence[Task]
    conditions: Sequence[Condition]
    sampling: dict[Kind, Sampling]
    batch: int
    systems: dict[Kind, str]
    graders: dict[Kind, Grader]
    grader: str = "math-verify"

    def manifest(self, engine: Engine) -> dict[str, Any]:
        """Everything that decides the answers, as plain values."""
        kinds: list[Kind] = sorted({task.kind for task in self.tasks})
        return {
            "engine": engine.describe(),
            "tasks": [
                {
                    "name": task.name,
                    "kind": task.kind,
                    "items": len(task.problems),
                    "sha256": task.fingerprint(),
                    "source": dict(task.source),
                }
                for task in self.tasks
            ],
            "conditions": [condition.plain() for condition in self.conditions],
            "sampling": {kind: vars(self.sampling[kind]) for kind in kinds if kind != "choice"},
            "systems": {kind: self.systems[kind] for kind in kinds if kind != "choice"},
            "graders": named(self.grader, kinds),
            "batch": self.batch,
            "versions": {name: metadata.version(name) for name in PACKAGES},
        }


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


def run(plan: Plan, engine: Engine, journal: Journal, tick: Callable[[int], None] = lambda _: None) -> None:
    """Runs what is not in the journal yet; `tick(answers)` after each unit, also of those that are."""
    for unit in units(plan, engine):
        if not journal.has(unit.key):
            rows = _choose(unit, engine) if unit.task.kind == "choice" else _answer(unit, engine, plan)
            journal.close(unit.key, rows, {"arm": engine.fired()})
        tick(len(unit.asks))


def _answer(unit: Unit, engine: Engine, plan: Plan) -> list[Row]:
    kind = unit.task.kind
    outputs = engine.answer(unit.asks, unit.condition, plan.sampling[kind], batch=unit.batch, sample=unit.sample)
    rows = []
    for ask, output in zip(unit.asks, outputs, strict=True):
        graded = plan.graders[kind](output.text, ask.problem)
        rows.append({**_named(unit, ask), **vars(output), **vars(graded)})
    return rows


def _choose(unit: Unit, engine: Engine) -> list[Row]:
    """The likeliest choice counts; the likeliest by its length, which favours no short one, is kept beside it."""
    rows = []
    for ask, weights in zip(unit.asks, engine.weigh(unit.asks, unit.condition), strict=True):
        gold, choices = int(ask.problem.gold), ask.problem.choices
        by_length = [weight / len(choice) for weight, choice in zip(weights, choices, strict=True)]
        chosen, normalised = (max(range(len(each)), key=each.__getitem__) for each in (weights, by_length))
        found = {"loglikelihoods": weights, "extracted": str(chosen), "correct": chosen == gold}
        rows.append({**_named(unit, ask), **found, "correct_normalised": normalised == gold})
    return rows


def _named(unit: Unit, ask: Ask) -> Row:
    return {
        "task": unit.task.name,
        "condition": unit.condition.name,
        "item": ask.problem.id,
        "sample": unit.sample,
        "batch": unit.batch,
    }


def machine() -> dict[str, Any]:
    """Where this runs, as far as it may change the last bits of an answer."""
    import torch

    return {
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
