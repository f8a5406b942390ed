"""`armlet confirm`: measures a search's best setting on its test items, once and on record."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from armlet import evaluation
from armlet.commands.engines import LoadedEngineOptions
from armlet.commands.options import ComputeOptions, JsonOption, saying_where_to_resume, show
from armlet.commands.policy_help import policy_option
from armlet.evaluation.engines.engine import OpenEngine, WithGatePlacebos
from armlet.evaluation.options import MarginOption
from armlet.evaluation.search.folder import read_search


def confirm(
    search: Annotated[Path, Argument(help="The search's folder, from `armlet tune`.")],
    policy: Annotated[
        str | None, policy_option("The file.py:Class of the search, if its policy is in a file, which is run again.")
    ] = None,
    margin: MarginOption = None,
    out: Annotated[Path | None, Option(help="Folder for the report; by default the run in that folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a search's best setting on its test items, with placebos; possible once, and recorded."""
    with saying_where_to_resume():
        findings = evaluation.confirm(search, policy=policy, margin=margin, engine=_engine_of(search), out=out)
    show(findings, out or findings.folder, as_json)


def _engine_of(folder: Path) -> OpenEngine | None:
    """Opens the search's engine if it was vLLM, with the arguments of that time; None for a model in this process."""
    if not folder.is_dir() or "vllm" not in (search := read_search(folder)).engine:
        return None
    options = LoadedEngineOptions("vllm", json.dumps(search.engine["options"]))
    compute = ComputeOptions(seed=search.arguments.seed, dtype=str(search.engine["dtype"]))
    return WithGatePlacebos(partial(options.open_vllm, search.arguments.model, compute))
