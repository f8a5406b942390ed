"""`study`: runs or resumes all cells of a study's file, here or on a cluster, and analyses them together."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from armlet.evaluation.studies.cells import CellOutcome, Job, OpenCellEngine, relative_settings, run_in_turn
from armlet.evaluation.studies.definition import Study
from armlet.evaluation.studies.file import read_study
from armlet.evaluation.studies.result import StudyFindings, make_study_findings
from armlet.presentation.arguments import given_path, output_folder, required_path
from armlet.presentation.files import write_text
from armlet.presentation.interruption import keep_partial, until_interrupted
from armlet.redistribution.errors import ArgumentError
from armlet.runs.folder import RUNS, RunError

STUDY_FILE, CELLS_FOLDER = "study.toml", "cells"
"""In a study's folder: the copy of its file, written before the first cell, and the run folders of its cells."""


def study(
    file: str | Path,
    *,
    run: str | Path | None = None,
    ray: str | None = None,
    engines: Mapping[str, OpenCellEngine] | None = None,
) -> StudyFindings:
    """Runs a study: models × tasks × treatments × seeds, with the claims of a source next to the results.

    The same call resumes the study: every cell is a resumable run in the study's folder.

    Args:
        file: the study's file (docs/howto/study.md).
        run: the study's folder; by default one in armlet-runs/ named after the file and its hash. On a cluster, it must
            be on a disk that all machines share.
        ray: address of a Ray cluster, such as "auto"; "local" starts Ray on this machine; None runs the cells in turn.
        engines: opens engines other than a model in this process by their names in the file, such as "vllm".

    Returns:
        The differences of all cells with intervals, verdicts and claims. After Ctrl-C, those of the finished cells.

    Raises:
        ArgumentError: the file is wrong, an engine is missing, or all cells failed.
        ArmletError: there is no cluster at the address.
        RunError: the folder contains another study.
        KeyboardInterrupt: Ctrl-C, before a cell was finished.
    """
    path = required_path("study", file)
    definition, sha256 = read_study(path)
    folder = given_path("run", run) or RUNS / f"study-{path.stem}-{sha256[:8]}"
    jobs = _jobs(definition, path.parent, output_folder("run", folder), engines or {})
    _write_down(path, folder)
    outcomes: list[CellOutcome] = []
    with until_interrupted() as interruption:
        outcomes.extend(_run_cells(jobs, ray))
    interrupted = keep_partial(interruption, [o for o in outcomes if o.findings], folder)
    return make_study_findings(definition, sha256, outcomes, folder, interrupted=interrupted)


def _jobs(definition: Study, base: Path, folder: Path, engines: Mapping[str, OpenCellEngine]) -> list[Job]:
    jobs = []
    for cell in definition.cells():
        engine = cell.model.engine
        if engine != "local" and engine not in engines:
            raise ArgumentError(f"engines: {cell.name} needs {engine}, and engines has no function to open it")
        run = folder.absolute() / CELLS_FOLDER / cell.folder
        settings = relative_settings(base.absolute(), definition.settings_of(cell))
        jobs.append(Job(cell, base.absolute(), run, settings, definition.margin, engines.get(engine)))
    return jobs


def _run_cells(jobs: list[Job], ray: str | None) -> Iterator[CellOutcome]:
    if ray is None:
        return run_in_turn(jobs)
    from armlet.evaluation.studies.cluster import run_on_ray

    return run_on_ray(jobs, ray)


def _write_down(path: Path, folder: Path) -> None:
    """Copies the study's file into its folder before the first cell; raises RunError if another one is there."""
    copy, text = folder / STUDY_FILE, path.read_text(encoding="utf-8")
    if copy.exists() and copy.read_text(encoding="utf-8") != text:
        raise RunError(f"{folder}: contains another study; use another folder")
    (folder / CELLS_FOLDER).mkdir(parents=True, exist_ok=True)
    write_text(copy, text)
