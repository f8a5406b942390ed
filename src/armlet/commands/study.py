"""`armlet study`: models × tasks × treatments × seeds, written down before the run, here or on a cluster."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from armlet import evaluation
from armlet.commands.engines import EngineOptions
from armlet.commands.options import FAILED, ComputeOptions, JsonOption, folder_option, saying_where_to_resume, show
from armlet.evaluation.conditions.conditions import Condition
from armlet.evaluation.engines.engine import Engine, WithGatePlacebos
from armlet.evaluation.studies.definition import Cell
from armlet.evaluation.studies.file import read_study
from armlet.evaluation.studies.plan import plan_content, plan_sentences, plan_table
from armlet.evaluation.tasks.problems import Task
from armlet.presentation.terminal import print_json, print_tables


def study(
    file: Annotated[Path, Argument(help="The study's file, in TOML (docs/howto/study.md).")],
    ray: Annotated[
        str | None, Option(help="Runs the cells on the Ray cluster at this address (auto, or local to start one here).")
    ] = None,
    plan: Annotated[bool, Option("--plan", help="Show the cells and the claims, and run nothing.")] = False,
    run: Annotated[Path | None, folder_option("The study's folder, in which the same command resumes.")] = None,
    out: Annotated[Path | None, folder_option("Folder for the report; the study's folder by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a study file: models, tasks, treatments and seeds, with one report next to what the source claims."""
    if plan:
        show_plan(file, as_json)
        return
    with saying_where_to_resume():
        findings = evaluation.study(file, run=run, ray=ray, engines={"vllm": WithGatePlacebos(open_vllm)})
    show(findings, out or findings.folder, as_json)
    if findings.failures:
        sys.exit(FAILED)


def show_plan(file: Path, as_json: bool) -> None:
    """Prints what a study will run."""
    planned, sha256 = read_study(file)
    if as_json:
        print_json(plan_content(planned, sha256))
        return
    print_tables(plan_table(planned))
    print("\n".join(plan_sentences(planned, sha256)))


def open_vllm(cell: Cell, model: str, compared: Sequence[Condition], tasks: Sequence[Task]) -> Engine:
    """Opens a cell's model in vLLM, in the process that runs the cell."""
    options = EngineOptions(engine="vllm", engine_args=json.dumps(dict(cell.model.engine_args)))
    return options.open(model, ComputeOptions(seed=cell.seed), compared, tasks)
