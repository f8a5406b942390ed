"""`armlet evaluate`: does it help? The same items without ARM, with it, and with placebos, in a run that survives."""

import json
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from armlet.attachment.config import load_config, parse_layers
from armlet.commands.arguments import (
    POLICY,
    DeviceOption,
    DtypeOption,
    JsonOption,
    PlaceName,
    ScopeName,
    ScopeOption,
    SeedOption,
    SiteName,
    SiteOption,
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
    local_engine,
    offline_engine,
    perform,
    refuse_sampling,
    say_planned,
    show,
)
from armlet.evaluation.plan import collect_tasks, make_plan
from armlet.presentation.terminal import INTERRUPTED, notes
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise
from armlet.redistribution.spelling import parse_policy

if TYPE_CHECKING:
    from armlet.evaluation.conditions.conditions import Condition, Filling, Treatment
    from armlet.evaluation.engines.endpoint import Endpoint
    from armlet.evaluation.engines.engine import Engine
    from armlet.evaluation.tasks.problems import Task

COLDEST = 1e-6
"""Least temperature that is sampled at, and least share of the mass."""

SERVED_BATCH = 256
"""Items at once in vLLM, which puts its own batches together."""


class EngineName(StrEnum):
    """What runs the model."""

    local = "local"
    vllm = "vllm"


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
    scope: ScopeOption = ScopeName.token,
    site: SiteOption = SiteName.gate,
    config: Annotated[Path | None, typer.Option(help="Treated by an armlet.json, besides any --policy.")] = None,
    filler: Annotated[list[str] | None, typer.Option(help="A filler condition of this text. May be repeated.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Tokens of each filler.")] = 55,
    position: Annotated[
        PlaceName, typer.Option(help="Of fillers: around the system prompt, behind the question, or in it at random.")
    ] = PlaceName.between,
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
    engine: Annotated[
        EngineName, typer.Option(help="What runs the model: transformers in this process, or vLLM.")
    ] = EngineName.local,
    engine_args: Annotated[
        str | None, typer.Option(help="vLLM's arguments as JSON: '{\"tensor_parallel_size\": 2}'.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="An OpenAI-compatible server that answers as MODEL.")] = None,
    treated_endpoint: Annotated[
        str | None,
        typer.Option(
            help="The same server with ARM attached; --policy or --config say how. Of vLLM it may be the same address: "
            "ARM is turned off by request then."
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time to an endpoint.")] = 16,
    batch: Batch = None,
    run: Annotated[
        Path | None,
        typer.Option(help="The run folder; the same command goes on there. Named after the run by default."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the report goes; into the run folder by default.")] = None,
    seed: SeedOption = 0,
    dtype: DtypeOption = "auto",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure whether it helps: the same items without ARM, with it, and with placebos, as paired differences."""
    from armlet.evaluation.conditions.conditions import conditions

    _check_servers(endpoint, treated_endpoint, stated=bool(policy or config), local=dtype != "auto" or bool(device))
    if endpoint:
        refuse_idle(context, ("engine",), "an --endpoint runs the model")
    options = _engine_options(engine, engine_args, device)
    if not filler:
        refuse_idle(context, ("count", "position"), "says how a --filler stands in the prompt, and there is none")
    if config and not policy:
        refuse_idle(context, ("layers", "scope", "site"), "is that of a --policy; --config has its own")
    if not endpoint:
        refuse_idle(context, ("concurrency",), "is that of an --endpoint, and there is none")
    texts = policy or ([] if config or endpoint else ["outward"])  # what a server has attached must be stated
    treatments = _treatments(texts, layers, scope, site, config, seed)
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
    left: list[str] = []
    if endpoint or engine is EngineName.vllm:
        compared, left = _without_inner_placebos(compared, tasks)
    if engine is EngineName.vllm:
        batch = batch or SERVED_BATCH
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
    opened: Engine
    if endpoint:
        opened = _server(endpoint, treated_endpoint, model, concurrency, seed)
        opened.check(compared, tasks)
        if opened.switched:
            opened.check_switch()
    elif engine is EngineName.vllm:
        opened = offline_engine(model, compared, tasks, dtype, options, seed)
    else:
        opened = local_engine(model, dtype, device, seed)
    if left:
        notes.print(f"left out, they need --engine local: {', '.join(left)}", highlight=False, soft_wrap=True)
    if not as_json:
        say_planned(plan)
    with closing(opened):
        found, folder, interrupted = perform(plan, opened, run)
    show(found, out or folder, as_json=as_json)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _treatments(
    policies: list[str], layers: str, scope: ScopeName, site: SiteName, config: Path | None, seed: int
) -> "list[Treatment]":
    from armlet.evaluation.conditions.conditions import Treatment

    wanted = parse_layers(layers)
    place = {"layers": wanted, "scope": scope.value, "noise": Noise(seed), "site": site.value}
    found = [Treatment(each, **place) for each in dict.fromkeys(map(parse_policy, policies))]
    return [*found, *([Treatment(**load_config(config))] if config else [])]


def _fillings(fillers: list[str] | None, count: int, position: PlaceName) -> "list[Filling]":
    from armlet.evaluation.conditions.conditions import Filling
    from armlet.prompts.fillers import Filler

    return [Filling(Filler(text, count), position.value) for text in dict.fromkeys(fillers or ())]


def _engine_options(engine: EngineName, given: str | None, device: str | None) -> dict[str, Any]:
    """vLLM's arguments.

    Raises:
        ArgumentError: they are no JSON object, or say nothing to the engine that was chosen.
    """
    if engine is EngineName.local:
        if given is not None:
            raise ArgumentError("--engine-args: are vLLM's; add --engine vllm, or leave them out")
        return {}
    if device:
        raise ArgumentError("--device: vLLM chooses its own; leave it out")
    try:
        found = json.loads(given or "{}")
    except ValueError as error:
        raise ArgumentError(f"--engine-args: expected a JSON object, found {given!r} ({error})") from error
    if not isinstance(found, dict):
        raise ArgumentError(f"--engine-args: expected a JSON object, found {given!r}")
    return found


def _without_inner_placebos(compared: "list[Condition]", tasks: "list[Task]") -> "tuple[list[Condition], list[str]]":
    """What a server or vLLM can run: ARM as it is configured, and choices weighed at temperature 1; and what not."""
    weighed = any(task.kind == "choice" for task in tasks)
    kept = [each for each in compared if not each.placebo and (each.weighing == 1 or not weighed)]
    return kept, [each.name for each in compared if each not in kept]


def _check_servers(endpoint: str | None, treated: str | None, *, stated: bool, local: bool) -> None:
    """Refuses options that would say nothing, or something that is not so."""
    if treated and not endpoint:
        raise ArgumentError("--treated-endpoint: needs --endpoint, the same server without ARM")
    if treated and not stated:
        raise ArgumentError("--treated-endpoint: say with --policy or --config what that server has attached")
    if endpoint and local:
        raise ArgumentError("--endpoint: --dtype and --device are the server's own; leave them out")


def _server(url: str, treated: str | None, model: str | None, concurrency: int, seed: int) -> "Endpoint":
    from armlet.evaluation.engines.endpoint import Endpoint

    if model is None:
        raise ArgumentError("--endpoint: name the model as the server knows it: armlet evaluate MODEL --endpoint URL")
    return Endpoint(url, model=model, treated_url=treated, concurrency=concurrency, seed=seed)
