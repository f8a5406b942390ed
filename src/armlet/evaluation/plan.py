"""The plan of a run: tasks, conditions and how answers are generated, with the defaults of each kind of task."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from armlet.evaluation.conditions.conditions import Condition
from armlet.evaluation.conditions.placebos import GATE_PLACEBOS
from armlet.evaluation.engines.engine import Engine, OpenEngine, Sampling, WithGatePlacebos
from armlet.evaluation.grading.graders import Grader, grader_names, graders
from armlet.evaluation.settings import SettingOrigin, TaskSettings
from armlet.evaluation.tasks.examples import DEFAULT_FORM, PromptForm, make_form
from armlet.evaluation.tasks.problems import SYSTEMS, Kind, Task
from armlet.redistribution.errors import ArgumentError
from armlet.runs.folder import Record

BUILT_IN_BATCH, LOCAL_BATCH = 250, 16
"""Items in a batch, for the embedded model and for any other."""

MAX_NEW_TOKENS: dict[Kind, int] = {"integer": 256, "maths": 1024, "code": 512}
"""The most tokens of an answer, by kind of task."""

VERSIONED_PACKAGES = ("armlet", "torch", "transformers", "tokenizers", "math-verify")
"""The packages whose versions affect an answer or its grade."""


@dataclass(frozen=True)
class TimeBudget:
    """The time for answering, and the items of each task that are answered first to find out how many it allows."""

    budget: float  # in seconds
    timed_items: int  # at most; they are the first of each task, and its first batch


@dataclass(frozen=True)
class Plan:
    """Everything that a run needs except an engine."""

    tasks: Sequence[Task]  # with unique names
    conditions: Sequence[Condition]  # with unique names, the baseline first
    sampling: dict[Kind, Sampling]  # only `max_new_tokens` depends on the kind of task
    batch_size: int  # items in a batch
    systems: dict[Kind, str]  # the system prompts
    graders: dict[Kind, Grader]  # for generated answers; multiple choice needs none
    grader: str = "math-verify"  # the name of the grader for mathematics
    budget: TimeBudget | None = None
    origins: Sequence[SettingOrigin] = ()  # of the treatments' settings
    form: PromptForm = DEFAULT_FORM  # few-shot examples and template
    margin: float | None = None  # the largest difference that would not matter, in percentage points

    def manifest(self, engine: Engine) -> Record:
        """Everything that decides the answers, and the margin that judges them, as plain values."""
        kinds: list[Kind] = sorted({task.kind for task in self.tasks})
        generated: list[Kind] = [kind for kind in kinds if kind != "choice"]
        tasks = [
            TaskSettings(task.name, task.kind, len(task.problems), task.fingerprint(), dict(task.source))
            for task in self.tasks
        ]
        return {
            "engine": engine.describe(),
            "tasks": [asdict(task) for task in tasks],
            "conditions": [condition.plain() for condition in self.conditions],
            "sampling": {kind: vars(self.sampling[kind]) for kind in generated},
            "systems": {kind: self.systems[kind] for kind in generated},
            "graders": grader_names(self.grader, kinds),
            "batch": self.batch_size,
            **({"budget": vars(self.budget)} if self.budget else {}),
            "versions": {name: metadata.version(name) for name in VERSIONED_PACKAGES},
            **({"prompts": facts} if (facts := self.form.facts()) else {}),
            **({"origins": [asdict(origin) for origin in self.origins]} if self.origins else {}),
            **({} if self.margin is None else {"margin": self.margin}),
        }


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
    shots: int = 0,
    examples: str | Path | None = None,
    template: str | None = None,
    letters: bool = False,
    origins: Sequence[SettingOrigin] = (),
    margin: float | None = None,
) -> Plan:
    """Makes a plan, with the defaults of each kind of task in place of None.

    `built_in` means that the embedded model answers, which was trained on bare expressions without a system prompt.

    Raises ArgumentError if the grader does not exist, a task needs to run programs without permission, `top_p` or
    the permission would have no effect, or examples or template cannot be used (see `make_form`).
    """
    if top_p < 1 and not any(condition.temperature for condition in conditions):
        raise ArgumentError("top_p: all answers are greedy; add a temperature, such as 0.7, or leave it out")
    if system is None and built_in:
        system = ""
    return Plan(
        tasks=tasks,
        conditions=conditions,
        sampling={kind: Sampling(max_new_tokens or default, top_p, seed) for kind, default in MAX_NEW_TOKENS.items()},
        batch_size=batch or (BUILT_IN_BATCH if built_in else LOCAL_BATCH),
        systems={kind: text if system is None else system for kind, text in SYSTEMS.items()},
        graders=graders(grader, {task.kind for task in tasks}, allow_code=allow_code),
        grader=grader,
        origins=origins,
        form=make_form(tasks, shots, examples, template, letters=letters),
        margin=margin,
    )


def servable_conditions(
    compared: Sequence[Condition], tasks: Sequence[Task], engine: OpenEngine
) -> tuple[list[Condition], list[Condition]]:
    """The conditions that another engine than a model in this process can run, and the others.

    It scores choices at temperature 1 only; see `WithGatePlacebos` for the others.
    """
    choice = any(task.kind == "choice" for task in tasks)
    left_out = () if isinstance(engine, WithGatePlacebos) else GATE_PLACEBOS
    servable = [c for c in compared if c.placebo not in left_out and (c.weighing == 1 or not choice)]
    return servable, [condition for condition in compared if condition not in servable]
