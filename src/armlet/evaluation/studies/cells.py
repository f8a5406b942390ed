"""Runs the cells of a study, in turn in this process; a cell is a resumable run of `evaluate`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from armlet.evaluation.conditions.conditions import Condition, Filling, Treatment
from armlet.evaluation.engines.engine import Engine, OpenEngine, WithGatePlacebos
from armlet.evaluation.report.findings import TaskFindings
from armlet.evaluation.run import evaluate
from armlet.evaluation.studies.definition import Cell, Settings, is_path
from armlet.evaluation.tasks.problems import Task
from armlet.presentation.terminal import note
from armlet.redistribution.errors import ArmletError

OpenCellEngine = Callable[[Cell, str, Sequence[Condition], Sequence[Task]], Engine]
"""Opens an engine other than a model in this process for a cell, its model's name or path, its conditions and task."""


@dataclass(frozen=True)
class Job:
    """A cell and what its process needs to run it."""

    cell: Cell
    base: Path  # the folder of the study's file, to which paths in it are relative
    run: Path  # the run folder
    settings: Settings  # further arguments of `evaluate`
    margin: float | None  # in points
    engine: OpenCellEngine | None  # None for a model in the process


@dataclass(frozen=True)
class CellOutcome:
    """The findings of a cell, or why it failed."""

    cell: Cell
    findings: TaskFindings | None = None
    failure: str | None = None


def run_in_turn(jobs: Sequence[Job]) -> Iterator[CellOutcome]:
    """Runs cells one after another in this process. After Ctrl-C, KeyboardInterrupt ends the loop."""
    for number, job in enumerate(jobs, 1):
        note(f"cell {number} of {len(jobs)}: {job.cell.name}")
        yield run_cell(job)


def run_cell(job: Job) -> CellOutcome:
    """Runs a cell, or resumes it, with the number of threads of its model; an error becomes the outcome's failure.

    Raises KeyboardInterrupt after Ctrl-C; the cell's answers so far are in its run folder.
    """
    cell, compared = job.cell, job.cell.treatments.values()
    fillings = [filling for filling in compared if isinstance(filling, Filling)]
    treatments = [located(job.base, treatment) for treatment in compared if not isinstance(treatment, Filling)]
    model = relative(job.base, cell.model.model)
    try:
        with _threads(cell.model.cpus):
            findings = evaluate(
                model,
                treatments=treatments,
                filler=fillings,
                task=relative(job.base, cell.task.task),
                seed=cell.seed,
                margin=job.margin,
                run=job.run,
                engine=_engine_of(job, model),
                **job.settings,  # type: ignore[arg-type] - the names are checked by the study, the values by `evaluate`
            )
        findings.save(job.run)
    except (ArmletError, OSError, RuntimeError, MemoryError) as error:  # such as a GPU without memory
        return CellOutcome(cell, failure=str(error) or type(error).__name__)
    if findings.interrupted:
        raise KeyboardInterrupt
    return CellOutcome(cell, findings.tasks[0])


def _engine_of(job: Job, model: str) -> OpenEngine | None:
    if job.engine is None:
        return None
    opened = partial(job.engine, job.cell, model)
    return WithGatePlacebos(opened) if isinstance(job.engine, WithGatePlacebos) else opened


def relative(base: Path, name: str) -> str:
    """The path of a file or folder, which is relative to the study's file; any other name as it is."""
    return str(base / name) if is_path(name) else name


def relative_settings(base: Path, settings: Settings) -> Settings:
    """The settings with the path of their examples, which is relative to the study's file."""
    return settings if "examples" not in settings else {**settings, "examples": base / str(settings["examples"])}


def located(base: Path, treatment: Treatment | str) -> Treatment | str:
    """The treatment; a "file.py:function" with the path of its file, which is relative to the study's file."""
    if not isinstance(treatment, str):
        return treatment
    file, _, name = treatment.rpartition(":")
    return f"{base / file}:{name}"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Runs a block with this number of torch's threads: equal numbers of threads give equal answers."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
