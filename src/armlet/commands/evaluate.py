"""`armlet evaluate`: does it help? The same items without ARM, with it, and with placebos, in a run that survives."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from armlet.commands.arguments import (
    POLICY,
    Device,
    Dtype,
    Json,
    Place,
    Scope,
    ScopeOption,
    Seed,
    check_folder,
    refuse_idle,
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
    collect_tasks,
    local_engine,
    make_plan,
    perform,
    refuse_sampling,
    say_planned,
    show,
)
from armlet.commands.terminal import INTERRUPTED
from armlet.layer.config import load_config, parse_layers, parse_policy
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise

if TYPE_CHECKING:
    from armlet.evaluation.conditions import Filling, Treatment
    from armlet.evaluation.endpoint import Endpoint

COLDEST = 1e-6
"""Least temperature that is sampled at, and least share of the mass."""


def evaluate(
    context: typer.Context,
    model: Model = None,
    task: Tasks = None,
    data: Data = None,
    items: Items = None,
    difficulty: Difficulty = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help=f"Treated: {POLICY}; published:MODEL/TASK for the paper's. May be repeated. [outward]"),
    ] = None,
    layers: Annotated[str, typer.Option(help="An index, several (0,3), a range (0-5), or all.")] = "0",
    scope: ScopeOption = Scope.token,
    config: Annotated[Path | None, typer.Option(help="Treated by an armlet.json, besides any --policy.")] = None,
    filler: Annotated[list[str] | None, typer.Option(help="A filler condition of this text. May be repeated.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Tokens of each filler.")] = 55,
    position: Annotated[
        Place, typer.Option(help="Of fillers: around the system prompt, behind the question, or in it at random.")
    ] = Place.between,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each item under every condition.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="Of sampling; 0 for greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=COLDEST, max=1, help="Of sampling.")] = 1.0,
    best_of: Annotated[int, typer.Option(min=0, help="Also a vote over so many sampled answers.")] = 0,
    combine: Annotated[
        bool, typer.Option("--combine", help="Also each policy with each filler, and all of them with --best-of.")
    ] = False,
    placebos: Annotated[bool, typer.Option(help="Identity, draw-only, matched, and a change of temperature.")] = True,
    max_new_tokens: MaxNewTokens = None,
    system: System = None,
    grader: Annotated[
        str, typer.Option(help="math-verify, or released: the paper's, to show the difference.")
    ] = "math-verify",
    allow_code: AllowCode = False,
    endpoint: Annotated[str | None, typer.Option(help="An OpenAI-compatible server that answers as MODEL.")] = None,
    treated_endpoint: Annotated[
        str | None, typer.Option(help="The same server with ARM attached; --policy or --config say how.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time to an endpoint.")] = 16,
    batch: Batch = None,
    run: Annotated[
        Path | None,
        typer.Option(help="The run folder; the same command goes on there. Named after the run by default."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the report goes; into the run folder by default.")] = None,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Measure whether it helps: the same items without ARM, with it, and with placebos, as paired differences."""
    from armlet.evaluation.conditions import conditions

    _check_servers(endpoint, treated_endpoint, stated=bool(policy or config), local=dtype != "auto" or bool(device))
    if not filler:
        refuse_idle(context, ("count", "position"), "says how a --filler stands in the prompt, and there is none")
    if config and not policy:
        refuse_idle(context, ("layers", "scope"), "is that of a --policy; --config has its own")
    if not endpoint:
        refuse_idle(context, ("concurrency",), "is that of an --endpoint, and there is none")
    texts = policy or ([] if config or endpoint else ["outward"])  # what a server has attached must be stated
    treatments = _treatments(texts, layers, scope, config, seed)
    fillings = _fillings(filler, count, position)
    for option, folder in (("--run", run), ("--out", out)):
        if folder:
            check_folder(folder, option)
    tasks = collect_tasks(task, data, items, difficulty, seed)
    refuse_sampling(context, tasks, "samples", "temperature", "top_p", "best_of", "grader")
    compared = conditions(
        treatments,
        fillings,
        temperature=temperature if temperature >= COLDEST else 0.0,
        samples=samples,
        best_of=best_of,
        combine=combine,
        placebos=placebos,
    )
    if endpoint:  # placebos inside the gate need the model in this process
        compared = [condition for condition in compared if not condition.placebo]
    plan = make_plan(
        tasks,
        compared,
        built_in=model in (None, "abacus"),
        seed=seed,
        max_new_tokens=max_new_tokens,
        system=system,
        top_p=top_p,
        grader=grader,
        allow_code=allow_code,
        batch=batch,
    )
    if endpoint:
        engine = _server(endpoint, treated_endpoint, model, concurrency, seed)
        engine.check(compared, tasks)
    else:
        engine = local_engine(model, dtype, device, seed)
    if not as_json:
        say_planned(plan)
    found, folder, interrupted = perform(plan, engine, run)
    show(found, out or folder, as_json=as_json)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _treatments(policies: list[str], layers: str, scope: Scope, config: Path | None, seed: int) -> "list[Treatment]":
    from armlet.evaluation.conditions import Treatment

    wanted = parse_layers(layers)
    found = [Treatment(each, wanted, scope.value, Noise(seed)) for each in dict.fromkeys(map(parse_policy, policies))]
    return [*found, *([Treatment(**load_config(config))] if config else [])]


def _fillings(fillers: list[str] | None, count: int, position: Place) -> "list[Filling]":
    from armlet.evaluation.conditions import Filling
    from armlet.prompting.fillers import Filler

    return [Filling(Filler(text, count), position.value) for text in dict.fromkeys(fillers or ())]


def _check_servers(endpoint: str | None, treated: str | None, *, stated: bool, local: bool) -> None:
    """Refuses options that would say nothing, or something that is not so."""
    if treated and not endpoint:
        raise ArgumentError("--treated-endpoint: needs --endpoint, the same server without ARM")
    if treated and not stated:
        raise ArgumentError("--treated-endpoint: say with --policy or --config what that server has attached")
    if endpoint and local:
        raise ArgumentError("--endpoint: --dtype and --device are the server's own; leave them out")


def _server(url: str, treated: str | None, model: str | None, concurrency: int, seed: int) -> "Endpoint":
    from armlet.evaluation.endpoint import Endpoint

    if model is None:
        raise ArgumentError("--endpoint: name the model as the server knows it: armlet evaluate MODEL --endpoint URL")
    return Endpoint(url, model=model, treated_url=treated, concurrency=concurrency, seed=seed)
