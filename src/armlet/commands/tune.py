"""`armlet tune`: a search for settings on one part of the items; `confirm` measures what it chose on the other part."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    check_folder,
)
from armlet.commands.evaluating import (
    AllowCode,
    Batch,
    Data,
    Difficulty,
    Items,
    MaxNewTokens,
    Model,
    System,
    Tasks,
    local_engine,
    refuse_sampling,
    say_planned,
)
from armlet.evaluation.search.study import CONFIRMED, STUDY, study_map, study_plan
from armlet.presentation.files import csv_text, json_text, write_json, write_text
from armlet.presentation.terminal import INTERRUPTED, progress, say_interrupted
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise
from armlet.redistribution.spelling import parse_policy
from armlet.runs.journal import run_folder

if TYPE_CHECKING:
    from armlet.evaluation.engines.engine import Engine
    from armlet.evaluation.plan import Plan
    from armlet.evaluation.search.search import Space, Trial

TOP = 5
"""Trials that the terminal shows."""


def tune(
    context: typer.Context,
    model: Model = None,
    task: Tasks = None,
    data: Data = None,
    items: Items = None,
    difficulty: Difficulty = None,
    policy: Annotated[str, typer.Option(help=f"What is searched, and what stays: {POLICY}.")] = "outward",
    search: Annotated[
        str | None,
        typer.Option(help="One or two of band, proportion, ceiling, knee, spread, strength; by policy by default."),
    ] = None,
    layers: Annotated[
        list[str] | None, typer.Option(help="A candidate: an index, several, a range, or all. May be repeated. [0]")
    ] = None,
    scope: ScopeOption = ScopeName.token,
    site: SiteOption = SiteName.gate,
    trials: Annotated[int, typer.Option(min=0, help="Beyond those of the sensitivity map.")] = 20,
    max_new_tokens: MaxNewTokens = None,
    system: System = None,
    allow_code: AllowCode = False,
    batch: Batch = None,
    run: Annotated[Path | None, typer.Option(help="The study's folder; the same command goes on there.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where map, table and best setting go; the folder by default.")
    ] = None,
    seed: SeedOption = 0,
    dtype: DtypeOption = "auto",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search settings on one half of the items; `armlet confirm` then measures the best one on the other half, once."""
    arguments = {
        "model": model,
        "task": task,
        "data": [str(file) for file in data or ()],
        "items": items,
        "difficulty": difficulty,
        "max_new_tokens": max_new_tokens,
        "system": system,
        "allow_code": allow_code,
        "batch": batch,
        "seed": seed,
        "dtype": dtype,
        "device": device,
    }
    space = _space(policy, search, layers or ["0"], scope, site, trials, seed)
    for option, place in (("--run", run), ("--out", out)):
        if place:
            check_folder(place, option)
    engine = local_engine(model, dtype, device, seed)
    plan = study_plan(arguments, "tuning", [])
    refuse_sampling(context, plan.tasks)
    if not as_json:
        say_planned(plan)
    manifest = plan.manifest(engine) | {"study": space.plain()}
    folder = run or run_folder(manifest)
    if (folder / CONFIRMED).exists():
        raise ArgumentError(f"{folder}: the test items of this study have been used; give another --run or --seed")
    found, interrupted = _search(space, plan, engine, folder, manifest)
    if not found:
        raise typer.Exit(INTERRUPTED)
    result = _result(found, space, plan, manifest["engine"], arguments, interrupted)
    write_json(folder / STUDY, result)
    paths = _write(result, out or folder)
    if as_json:
        print(json_text(result), end="")
    else:
        _show(result, folder, paths)
    if interrupted:
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


def _search(
    space: "Space", plan: "Plan", engine: "Engine", folder: Path, manifest: dict[str, Any]
) -> "tuple[list[Trial], bool]":
    """The trials, and whether Ctrl-C cut them short."""
    from armlet.evaluation.run import count
    from armlet.evaluation.search.search import search
    from armlet.runs.journal import open_journal
    from armlet.runs.machine import machine

    trials: list[Trial] = []
    total = (1 + len(space.grid()) + space.trials) * count(plan)
    with open_journal(folder, manifest, machine()) as journal, progress("searching", total) as tick:
        try:
            trials.extend(search(space, plan, engine, journal, tick))
        except KeyboardInterrupt:
            say_interrupted(trials)
            return trials, True
    return trials, False


def _result(
    trials: "list[Trial]",
    space: "Space",
    plan: "Plan",
    engine: dict[str, Any],
    arguments: dict[str, Any],
    interrupted: bool,
) -> dict[str, Any]:
    from armlet.evaluation.search.search import best, on_map

    chosen = best(trials)
    items = sum(len(task.problems) for task in plan.tasks)
    return {
        "arguments": arguments,
        "engine": engine,
        "tasks": [{"name": task.name, "items": len(task.problems), "source": dict(task.source)} for task in plan.tasks],
        "study": space.plain(),
        "budget": {"trials": len(trials), "items": items, "answers": (1 + len(trials)) * items},
        "interrupted": interrupted,
        "best": chosen.plain(space) | {"armlet": chosen.treatment.plain()},
        "trials": [trial.plain(space) for trial in trials],
        "map": {"names": space.names, "trials": [trial.number for trial in on_map(trials, space)]},
    }


def _write(result: dict[str, Any], folder: Path) -> list[str]:
    """The table, the best setting as `armlet.json`, and the map; returns the paths."""
    from armlet.evaluation.report.figures import draw_map
    from armlet.presentation.style import save

    paths = [
        write_text(folder / "trials.csv", csv_text(result["trials"])),
        write_json(folder / "armlet.json", result["best"]["armlet"]),
    ]
    drawn = study_map(result)
    if drawn:
        figure = draw_map(drawn.rows, drawn.x, drawn.y, title=drawn.title)
        paths += save(figure, folder, "sensitivity")
    return list(map(str, paths))


def _show(result: dict[str, Any], folder: Path, paths: list[str]) -> None:
    names = [*result["map"]["names"], "layers"]
    budget = result["budget"]
    table = Table(
        box=SIMPLE_HEAD, show_edge=False, title=f"the best {TOP} of {budget['trials']} trials on tuning items"
    )
    for name in (*names, "accuracy", "difference", "95 % interval"):
        table.add_column(name, justify="right")
    for row in sorted(result["trials"], key=lambda row: -row["difference"])[:TOP]:
        numbers = (f"{row[name]:.4g}" if isinstance(row[name], float) else str(row[name]) for name in names)
        bounds = " to ".join("∞" if bound is None else f"{100 * bound:+.1f}" for bound in (row["low"], row["high"]))
        table.add_row(*numbers, f"{100 * row['accuracy']:.1f} %", f"{100 * row['difference']:+.1f}", bounds)
    Console().print(table)
    print("the best one is flattered by having been chosen on these items; on the others:", f"armlet confirm {folder}")
    print(*(f"written: {path}" for path in paths), sep="\n")
