"""What is run: tasks, conditions and how answers are generated, with the defaults of each kind of task."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from armlet.evaluation.conditions.conditions import Condition
from armlet.evaluation.engines.engine import Engine, Sampling
from armlet.evaluation.grading.graders import Grader, grader_names, graders
from armlet.evaluation.tasks.problems import SYSTEMS, Kind, Task
from armlet.evaluation.tasks.sources import ARITHMETIC, ARITHMETIC_ITEMS, arithmetic, hub_task, read_task
from armlet.redistribution.errors import ArgumentError

BUILT_IN_BATCH, LOCAL_BATCH = 250, 16
"""Items at once: of the embedded model, and of any other."""

MAX_NEW_TOKENS: dict[Kind, int] = {"integer": 256, "maths": 1024, "code": 512}
"""Of an answer, by kind of task."""

LEAST_TEMPERATURE = 1e-6
"""Below it answers are greedy. It is also the least top-p."""

VERSIONED_PACKAGES = ("armlet", "torch", "transformers", "tokenizers", "math-verify")
"""Whose versions decide an answer or its grade."""


@dataclass(frozen=True)
class Plan:
    """What is run.

    Args:
        tasks: with unique names.
        conditions: with unique names, the baseline first.
        sampling: how answers are generated; `max_new_tokens` by kind of task.
        batch: items in a batch.
        systems: the system prompt of each kind of task.
        graders: of generated answers, by kind of task; multiple choice needs none.
        grader: the name of the one for mathematics.
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
            "graders": grader_names(self.grader, kinds),
            "batch": self.batch,
            "versions": {name: metadata.version(name) for name in VERSIONED_PACKAGES},
        }


def collect_tasks(
    names: Sequence[str] | None, files: Sequence[Path] | None, items: int | None, difficulty: int | None, seed: int
) -> list[Task]:
    """The tasks that the command line names; the built-in one where it names none.

    Raises:
        ArgumentError: a task that cannot be read, or two of one name.
    """
    names = names or ([] if files else [ARITHMETIC])
    if difficulty is not None and ARITHMETIC not in names:
        raise ArgumentError(f"--difficulty: belongs to the task {ARITHMETIC}, which is not among the tasks")

    def task_of(name: str) -> Task:
        if name == ARITHMETIC:
            return arithmetic(items or ARITHMETIC_ITEMS, seed=seed, difficulty=difficulty)
        return hub_task(name, items)

    tasks = [*map(task_of, names), *(read_task(file, items) for file in files or ())]
    task_names = [task.name for task in tasks]
    for at, name in enumerate(task_names):
        if name in task_names[:at]:
            option, advice = ("--task", "") if at < len(names) else ("--data", "; give the file another name")
            raise ArgumentError(f"{option}: {name!r} is given twice{advice}")
    return tasks


def make_plan(
    tasks: Sequence[Task],
    conditions: Sequence[Condition],
    *,
    built_in: bool,
    seed: int,
    max_new_tokens: int | None = None,
    system: str | None = None,
    top_p: float = 1.0,
    grader: str = "math-verify",
    allow_code: bool = False,
    batch: int | None = None,
) -> Plan:
    """A plan with the defaults of each kind of task.

    Args:
        tasks: what is asked.
        conditions: under which conditions.
        built_in: the embedded model answers, which was trained on bare expressions without a system prompt.
        seed: of sampling.
        max_new_tokens: None for `MAX_NEW_TOKENS`.
        system: None for the prompt of each kind.
        top_p: of sampling.
        grader: one of `MATHS_GRADERS`.
        allow_code: programs may be run.
        batch: None for `BUILT_IN_BATCH` or `LOCAL_BATCH`.

    Raises:
        ArgumentError: no such grader, or tasks with programs where they may not be run.
    """
    if system is None and built_in:
        system = ""
    return Plan(
        tasks=tasks,
        conditions=conditions,
        sampling={kind: Sampling(max_new_tokens or most, top_p, seed) for kind, most in MAX_NEW_TOKENS.items()},
        batch=batch or (BUILT_IN_BATCH if built_in else LOCAL_BATCH),
        systems={kind: text if system is None else system for kind, text in SYSTEMS.items()},
        graders=graders(grader, {task.kind for task in tasks}, allow_code=allow_code),
        grader=grader,
    )


def servable_conditions(
    compared: Sequence[Condition], tasks: Sequence[Task]
) -> tuple[list[Condition], list[Condition]]:
    """The conditions that a server or vLLM can run, and the others.

    They have ARM as it is configured, without what a placebo needs, and weigh choices at temperature 1.
    """
    weighed = any(task.kind == "choice" for task in tasks)
    kept = [condition for condition in compared if not condition.placebo and (condition.weighing == 1 or not weighed)]
    return kept, [condition for condition in compared if condition not in kept]
