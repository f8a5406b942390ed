"""`armlet tune`: a search for settings on one part of the items; `confirm` measures what it chose on the other part."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from armlet.attachment.config import parse_layers
from armlet.commands.arguments import (
    POLICY,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ScopeName,
    ScopeOption,
    SeedOption,
    SiteName,
    SiteOption,
)
from armlet.commands.engines import local_engine
from armlet.commands.evaluating import (
    AllowCodeOption,
    BatchOption,
    DataOption,
    DifficultyOption,
    EvaluatedModel,
    ItemsOption,
    MaxNewTokensOption,
    SystemOption,
    TaskOption,
    announce_power,
    check_folders,
    refuse_sampling,
)
from armlet.presentation.files import json_text
from armlet.presentation.terminal import INTERRUPTED, say_interrupted
from armlet.redistribution.noise import Noise
from armlet.redistribution.spelling import parse_policy

if TYPE_CHECKING:
    from armlet.evaluation.search.results import StudyResult, TrialResult
    from armlet.evaluation.search.search import Space

SHOWN_TRIALS = 5
"""Trials that the terminal shows."""

SearchedPolicyOption = Annotated[str, typer.Option(help=f"What is searched, and what stays: {POLICY}.")]
SearchOption = Annotated[
    str | None,
    typer.Option(help="One or two of band, proportion, ceiling, knee, spread, strength; by policy by default."),
]
CandidateLayersOption = Annotated[
    list[str] | None, typer.Option(help="A candidate: an index, several, a range, or all. May be repeated. [0]")
]
TrialsOption = Annotated[int, typer.Option(min=0, help="Beyond those of the sensitivity map.")]
StudyFolderOption = Annotated[Path | None, typer.Option(help="The study's folder; the same command goes on there.")]
StudyOutOption = Annotated[
    Path | None, typer.Option(help="Where map, table and best setting go; the folder by default.")
]


def tune(
    context: typer.Context,
    model: EvaluatedModel = None,
    task: TaskOption = None,
    data: DataOption = None,
    items: ItemsOption = None,
    difficulty: DifficultyOption = None,
    policy: SearchedPolicyOption = "outward",
    search: SearchOption = None,
    layers: CandidateLayersOption = None,
    scope: ScopeOption = ScopeName.token,
    site: SiteOption = SiteName.gate,
    trials: TrialsOption = 20,
    max_new_tokens: MaxNewTokensOption = None,
    system: SystemOption = None,
    allow_code: AllowCodeOption = False,
    batch: BatchOption = None,
    run: StudyFolderOption = None,
    out: StudyOutOption = None,
    seed: SeedOption = 0,
    dtype: DtypeOption = "auto",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search settings on one half of the items; `armlet confirm` then measures the best one on the other half, once."""
    from armlet.evaluation.search.results import StudyArguments
    from armlet.evaluation.search.study import plan_tuning, run_study, write_study

    arguments = StudyArguments(
        model=model,
        task=task,
        data=[str(file) for file in data or ()],
        items=items,
        difficulty=difficulty,
        max_new_tokens=max_new_tokens,
        system=system,
        allow_code=allow_code,
        batch=batch,
        seed=seed,
        dtype=dtype,
        device=device,
    )
    space = _space(policy, search, layers or ["0"], scope, site, trials, seed)
    check_folders(run, out)
    engine = local_engine(model, dtype, device, seed)
    plan = plan_tuning(arguments)
    refuse_sampling(context, plan.tasks)
    if not as_json:
        announce_power(plan)
    study, folder = run_study(space, plan, engine, arguments, run)
    if study is None or study.interrupted:
        say_interrupted(study)
    if study:
        _show_study(study, folder, write_study(study, out or folder), as_json=as_json)
    if study is None or study.interrupted:
        raise typer.Exit(INTERRUPTED)


def _space(
    policy: str, search: str | None, layers: Sequence[str], scope: ScopeName, site: SiteName, trials: int, seed: int
) -> "Space":
    from armlet.evaluation.conditions.conditions import Treatment
    from armlet.evaluation.search.search import SEARCHED, Space

    treatment = Treatment(parse_policy(policy), 0, scope.value, Noise(seed), site.value)
    names = tuple(search.split(",")) if search else SEARCHED[treatment.policy.name]
    candidates = tuple(parse_layers(text) for text in dict.fromkeys(layers))
    return Space(treatment, names, candidates, trials, seed)


def _show_study(study: "StudyResult", folder: Path, paths: Sequence[Path], *, as_json: bool) -> None:
    if as_json:
        print(json_text(study.to_dict()), end="")
        return
    title = f"the best {SHOWN_TRIALS} of {len(study.trials)} trials on tuning items"
    table = Table(box=SIMPLE_HEAD, show_edge=False, title=title)
    for name in (*study.searched, "layers", "accuracy", "difference", "95 % interval"):
        table.add_column(name, justify="right")
    for trial in sorted(study.trials, key=lambda trial: -trial.difference)[:SHOWN_TRIALS]:
        table.add_row(*_trial_cells(trial))
    Console().print(table)
    print("the best one is flattered by having been chosen on these items; on the others:", f"armlet confirm {folder}")
    print(*(f"written: {path}" for path in paths), sep="\n")


def _trial_cells(trial: "TrialResult") -> list[str]:
    from armlet.evaluation.report.numbers import bounds, percent, points

    values = [f"{value:.4g}" for value in trial.values.values()]
    ends = " to ".join(bounds(trial.low, trial.high))
    return [*values, trial.layers, percent(trial.accuracy), points(trial.difference), ends]
