"""`armlet tune`: searches settings on one part of the items; `confirm` measures its choice on the other part."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Option

from armlet import evaluation
from armlet.commands.engines import LoadedEngineOptions
from armlet.commands.options import (
    POLICY,
    ComputeOptions,
    ExpertsOption,
    JsonOption,
    ScopeOption,
    SiteOption,
    TaskOptions,
    folder_option,
    saying_where_to_resume,
    show,
)
from armlet.commands.policy_help import policy_option
from armlet.evaluation.engines.engine import WithGatePlacebos
from armlet.evaluation.options import AnswerOptions


@dataclass(frozen=True)
class SearchOptions:
    """The search space."""

    policy: Annotated[str, policy_option(f"Policy to search, with the settings that stay fixed: {POLICY}.")] = "outward"
    search: Annotated[
        str | None,
        Option(help="One or two of band, proportion, ceiling, knee, spread, strength; depends on --policy by default."),
    ] = None
    layers: Annotated[
        list[str] | None, Option(help="Candidate layers: an index, several, a range, or all. May be repeated. [0]")
    ] = None
    scope: ScopeOption = "token"
    site: SiteOption = "gate"
    experts: ExpertsOption = "all"
    trials: Annotated[int, Option(min=0, help="Number of trials in addition to those of the sensitivity map.")] = 20


def tune(
    *,
    selection: TaskOptions,
    search: SearchOptions,
    answers: AnswerOptions,
    engine: LoadedEngineOptions,
    run: Annotated[Path | None, folder_option("The search's folder, in which the same command resumes.")] = None,
    out: Annotated[Path | None, folder_option("Folder for map, table and best setting; as --run by default.")] = None,
    compute: ComputeOptions,
    as_json: JsonOption = False,
) -> None:
    """Search settings on one half of the items; `armlet confirm` then measures the best one on the other half, once."""
    engine.check_loaded(compute)
    space = vars(search) | {"layers": search.layers or 0}
    answering, runner = vars(replace(answers, batch=answers.batch or engine.batch)), vars(compute)
    if engine.engine == "vllm":
        opened = partial(engine.open_vllm, selection.model, compute, adaptable=True)
        runner = {"seed": compute.seed, "engine": WithGatePlacebos(opened)}
    arguments = selection.arguments() | engine.named(selection.model)
    with saying_where_to_resume():
        tuned = evaluation.tune(run=run, **arguments, **space, **answering, **runner)
    show(tuned, out or tuned.folder, as_json)
