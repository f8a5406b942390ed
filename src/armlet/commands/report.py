"""`armlet report`: writes the report of a run folder again, or of several together."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from armlet import evaluation
from armlet.commands import options
from armlet.presentation.arguments import LARGEST_SEED
from armlet.redistribution.errors import ArgumentError


def report(
    runs: Annotated[list[Path], Argument(help="Run folders of `armlet evaluate`.")],
    out: Annotated[
        Path | None, options.folder_option("Folder for the report; a single run's own folder by default.")
    ] = None,
    seed: Annotated[int, Option(min=0, max=LARGEST_SEED, help="Seed of the bootstrap of the intervals.")] = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Merge runs of one model on other tasks, items or seeds into one report, with Holm's correction over all."""
    if out is None and len(runs) > 1:
        raise ArgumentError("--out: name a folder for the report of several runs")
    findings = evaluation.merge_runs(runs, seed=seed)
    options.show(findings, out or findings.folder, as_json)
