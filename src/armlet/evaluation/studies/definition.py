"""A study as written down before the run: hypothesis, settings, claims of the source, and the cells to run."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass

from armlet.evaluation.conditions.conditions import Filling, Treatment, conditions, make_treatments
from armlet.evaluation.options import make_fillings
from armlet.prompts.fillers import Position
from armlet.redistribution.built_in import PUBLISHED
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.python_file import names_python_file
from armlet.redistribution.registry import GROUP

PAPERS = "published"  # as a treatment's policy: the setting of `presets.published` for the cell's model and task

CHECKS = ConfigDict(extra="forbid", strict=True)

Settings = Mapping[str, object]

Compared = Treatment | Filling | str
"""ARM with its place, a filler with its position, or "file.py:function"."""


@checked_dataclass(frozen=True, config=CHECKS)
class StudyModel:
    """A model of a study."""

    model: str  # a hub id, "abacus", or a folder as "./folder" or "../folder", relative to the study's file
    engine: Literal["local", "vllm"] = "local"
    engine_args: Settings = field(default_factory=dict)  # of vLLM
    cpus: int = 1  # threads of a cell
    gpus: int = 0  # GPUs of a cell
    tasks: Sequence[str] = ()  # all of the study's if empty
    settings: Settings = field(default_factory=dict)  # further arguments of `evaluate`


@checked_dataclass(frozen=True, config=CHECKS)
class StudyTask:
    """A task of a study."""

    task: str  # a name, a hub dataset, or a JSON Lines file relative to the study's file
    settings: Settings = field(default_factory=dict)  # further arguments of `evaluate`


@checked_dataclass(frozen=True, config=CHECKS)
class StudyTreatment:
    """A policy or a filler with its settings, for all models and tasks unless some are named."""

    name: str
    policy: str | None = None  # as in `armlet evaluate --policy`, or "published"
    function: str | None = None  # as in `armlet evaluate --treatment`: "file.py:function"
    filler: str | None = None  # the text of a filler
    count: int = 55  # of a filler
    position: Position = "between"  # of a filler
    models: Sequence[str] = ()
    tasks: Sequence[str] = ()
    settings: Settings = field(default_factory=dict)  # of a policy: layers, scope, site, experts

    def compared(self, model: str, task: str, seed: int) -> Compared:
        """What `evaluate` compares; raises ArgumentError for wrong settings, and if none is published."""
        for filling in make_fillings(self.filler, self.count, self.position):
            return filling
        if self.function is not None:
            return self.function
        if names_python_file(str(self.policy)):
            raise ArgumentError(
                f"a study's policy is built in or of an installed package, because its cells may run elsewhere; found "
                f"{self.policy}: register its class as an entry point of {GROUP}"
            )
        policy = f"{PUBLISHED}:{model}/{task}" if self.policy == PAPERS else str(self.policy)
        (treatment,) = make_treatments(policy, seed=seed, **self.settings)  # type: ignore[arg-type] - checked there
        assert isinstance(treatment, Treatment)
        return treatment


@checked_dataclass(frozen=True, config=CHECKS)
class Claim:
    """A difference that the source claims, and the baseline's accuracy, in points."""

    model: str
    task: str
    treatment: str
    difference: float
    baseline: float | None = None


@checked_dataclass(frozen=True, config=CHECKS)
class Omission:
    """A part of the source that the study does not run, and why."""

    part: str
    reason: str


@dataclass(frozen=True)
class Cell:
    """A model, a task and a seed: one run of `evaluate`, in which all treatments share the baseline."""

    model: StudyModel
    task: StudyTask
    seed: int
    treatments: Mapping[str, Compared]  # by the names in the study

    @property
    def model_name(self) -> str:
        """The model, a folder without its path."""
        return _without_path(self.model.model)

    @property
    def task_name(self) -> str:
        """The task, a file without its path and ending."""
        return _without_path(self.task.task)

    @property
    def name(self) -> str:
        """The cell's name in messages."""
        return f"{self.model_name}, {self.task_name}, seed {self.seed}"

    @property
    def folder(self) -> str:
        """The name of the cell's run folder."""
        parts = (Path(self.model_name).name, Path(self.task_name).name, str(self.seed))
        plain = "-".join("".join(c if c.isalnum() or c in "._" else "-" for c in part) for part in parts)
        return f"{plain[:80]}-{hashlib.sha256(f'{self.model.model} {self.task.task}'.encode()).hexdigest()[:8]}"

    def condition_names(self) -> dict[str, str]:
        """The names of the treatments in the study, by the names of their conditions in the cell's report.

        Raises ArgumentError if two treatments are the same, because `evaluate` compares them once.
        """
        names = {}
        for name, compared in self.treatments.items():
            condition = Path(compared).name if isinstance(compared, str) else _condition_name(compared)
            if condition in names:
                raise ArgumentError(f"treatments: {names[condition]} and {name} are the same in the cell {self.name}")
            names[condition] = name
        return names


@checked_dataclass(frozen=True, config=CHECKS)
class Study:
    """The content of a study's file."""

    title: str
    source: str  # where the claims are from
    hypothesis: str
    models: Sequence[StudyModel]
    tasks: Sequence[StudyTask]
    treatments: Sequence[StudyTreatment]
    claims: Sequence[Claim] = ()
    omitted: Sequence[Omission] = ()  # as the file says
    seeds: Sequence[int] = (0,)
    margin: float | None = None  # the largest difference, in points, that would not matter; None for no such verdict
    settings: Settings = field(default_factory=dict)  # arguments of `evaluate` for every cell

    def cells(self) -> list[Cell]:
        """All cells, model by model, without those to which no treatment applies."""
        cells = [
            Cell(model, task, seed, self._compared(model, task, seed)[0])
            for model in self.models
            for task in self.tasks
            for seed in self.seeds
        ]
        return [cell for cell in cells if cell.treatments]

    def settings_of(self, cell: Cell) -> dict[str, object]:
        """The arguments of `evaluate` for a cell; a task's are stronger than a model's, and these than the study's."""
        return {**self.settings, **cell.model.settings, **cell.task.settings}

    def not_run(self) -> list[Omission]:
        """The parts that the study does not run: those in its file, and those without a published setting."""
        unpublished = [
            Omission(f"{name} of {model.model} on {task.task}", reason)
            for model in self.models
            for task in self.tasks
            for name, reason in self._compared(model, task, self.seeds[0])[1].items()
        ]
        return [*self.omitted, *unpublished]

    def places(self) -> set[str]:
        """The model, task and treatment of everything that is run, or for which `not_run` has a reason."""
        return {
            f"{model.model}, {task.task}, {name}"
            for model in self.models
            for task in self.tasks
            for names in self._compared(model, task, self.seeds[0])
            for name in names
        }

    def claim(self, cell: Cell, treatment: str) -> Claim | None:
        """The claim of the source about a treatment in a cell; None if there is none."""
        place = (cell.model.model, cell.task.task, treatment)
        return next((claim for claim in self.claims if (claim.model, claim.task, claim.treatment) == place), None)

    def _compared(self, model: StudyModel, task: StudyTask, seed: int) -> tuple[dict[str, Compared], dict[str, str]]:
        """The treatments that apply to a model and a task, and the reasons why others cannot be run."""
        compared, reasons = dict[str, Compared](), dict[str, str]()
        if task.task not in (model.tasks or (task.task,)):
            return compared, reasons
        for treatment in self.treatments:
            if model.model in (treatment.models or (model.model,)) and task.task in (treatment.tasks or (task.task,)):
                try:
                    compared[treatment.name] = treatment.compared(model.model, task.task, seed)
                except ArgumentError as error:
                    if treatment.policy != PAPERS:
                        reason = str(error).removeprefix("treatments: ")
                        raise ArgumentError(f"treatments: {treatment.name}: {reason}") from error
                    reasons[treatment.name] = str(error)
        return compared, reasons


def _condition_name(compared: Treatment | Filling) -> str:
    sides = ([compared], []) if isinstance(compared, Treatment) else ([], [compared])
    return conditions(*sides, placebos=False)[1].name


def is_path(name: str) -> bool:
    """Whether the name of a model or a task is a path, which begins with a dot or slash or ends in ".jsonl"."""
    return name.startswith((".", "/")) or name.endswith(".jsonl")


def _without_path(name: str) -> str:
    return Path(name).name.removesuffix(".jsonl") if is_path(name) else name
