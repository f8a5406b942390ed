"""A plan is run in its folder, and what was found there is analysed."""

from dataclasses import dataclass
from pathlib import Path

from armlet.evaluation.engines.engine import Engine
from armlet.evaluation.grading.graders import EQUAL
from armlet.evaluation.plan import Plan
from armlet.evaluation.report.analysis import analyse_run
from armlet.evaluation.report.findings import Findings
from armlet.evaluation.run import count_answers, run
from armlet.presentation.terminal import notes, progress
from armlet.runs.folder import default_run_folder, open_run_folder
from armlet.runs.machine import machine


@dataclass(frozen=True)
class FinishedRun:
    """The findings of a run, its folder, and whether Ctrl-C cut it short."""

    findings: Findings
    folder: Path
    interrupted: bool


def perform(plan: Plan, engine: Engine, folder: Path | None = None) -> FinishedRun:
    """Runs a plan as far as it is not in its folder yet, and analyses what is there.

    Args:
        plan: what is run.
        engine: which answers.
        folder: None for one named after the run.

    Raises:
        RunError: the folder contains another run, or cannot be used.
    """
    manifest = plan.manifest(engine)
    folder = folder or default_run_folder(manifest)
    interrupted = False
    with open_run_folder(folder, manifest, machine()) as journal:
        with progress("answering", count_answers(plan)) as tick:
            try:
                run(plan, engine, journal, tick)
            except KeyboardInterrupt:
                interrupted = True
        with notes.status("summing up ..."):
            return FinishedRun(analyse_run(journal, plan.tasks, EQUAL), folder, interrupted)
