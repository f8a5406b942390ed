"""`armlet evaluate`: does it help? The same items without ARM, with it, and with placebos, in a run that survives."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    refuse_idle,
)
from armlet.commands.engines import (
    ConcurrencyOption,
    EndpointOption,
    EngineArgsOption,
    EngineChoice,
    EngineName,
    EngineOption,
    TreatedEndpointOption,
)
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
    show_findings,
)
from armlet.evaluation.plan import LEAST_TEMPERATURE, collect_tasks, make_plan, servable_conditions
from armlet.presentation.terminal import INTERRUPTED, notes, say_interrupted
from armlet.redistribution.noise import Noise
from armlet.redistribution.spelling import parse_policy

if TYPE_CHECKING:
    from armlet.evaluation.conditions.conditions import Condition, Filling, Treatment

PoliciesOption = Annotated[
    list[str] | None,
    typer.Option(help=f"Treated: {POLICY}; published:MODEL/TASK for the paper's. May be repeated. [outward]"),
]
LayersOption = Annotated[str, typer.Option(help="An index, several (0,3), a range (0-5), or all.")]
ConfigOption = Annotated[Path | None, typer.Option(help="Treated by an armlet.json, besides any --policy.")]
FillersOption = Annotated[list[str] | None, typer.Option(help="A filler condition of this text. May be repeated.")]
FillerCountOption = Annotated[int, typer.Option(min=1, help="Tokens of each filler.")]
PositionOption = Annotated[
    PlaceName, typer.Option(help="Of fillers: around the system prompt, after the question, or in it at random.")
]
SamplesOption = Annotated[int, typer.Option(min=1, help="Answers to each item under every condition.")]
TemperatureOption = Annotated[float, typer.Option(min=0, help="Of sampling; 0 for greedy.")]
TopPOption = Annotated[float, typer.Option(min=LEAST_TEMPERATURE, max=1, help="Of sampling.")]
BestOfOption = Annotated[int, typer.Option(min=0, help="Also a vote over so many sampled answers.")]
CombineOption = Annotated[
    bool, typer.Option("--combine", help="Also each policy with each filler, and all of them with --best-of.")
]
PlacebosOption = Annotated[bool, typer.Option(help="Identity, draw-only, matched, and a change of temperature.")]
GraderOption = Annotated[str, typer.Option(help="math-verify, or released: the paper's, to show the difference.")]
RunOption = Annotated[
    Path | None,
    typer.Option(help="The run folder; the same command goes on there. Named after the run by default."),
]
ReportOption = Annotated[Path | None, typer.Option(help="Where the report goes; into the run folder by default.")]


def evaluate(
    context: typer.Context,
    model: EvaluatedModel = None,
    task: TaskOption = None,
    data: DataOption = None,
    items: ItemsOption = None,
    difficulty: DifficultyOption = None,
    policy: PoliciesOption = None,
    layers: LayersOption = "0",
    scope: ScopeOption = ScopeName.token,
    site: SiteOption = SiteName.gate,
    config: ConfigOption = None,
    filler: FillersOption = None,
    count: FillerCountOption = 55,
    position: PositionOption = PlaceName.between,
    samples: SamplesOption = 1,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    best_of: BestOfOption = 0,
    combine: CombineOption = False,
    placebos: PlacebosOption = True,
    max_new_tokens: MaxNewTokensOption = None,
    system: SystemOption = None,
    grader: GraderOption = "math-verify",
    allow_code: AllowCodeOption = False,
    engine: EngineOption = EngineName.local,
    engine_args: EngineArgsOption = None,
    endpoint: EndpointOption = None,
    treated_endpoint: TreatedEndpointOption = None,
    concurrency: ConcurrencyOption = 16,
    batch: BatchOption = None,
    run: RunOption = None,
    out: ReportOption = None,
    seed: SeedOption = 0,
    dtype: DtypeOption = "auto",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure whether it helps: the same items without ARM, with it, and with placebos, as paired differences."""
    from armlet.evaluation.conditions.conditions import conditions
    from armlet.evaluation.perform import perform

    choice = EngineChoice(model, engine, engine_args, endpoint, treated_endpoint, concurrency, dtype, device, seed)
    choice.check(context, stated=bool(policy or config))
    if not filler:
        refuse_idle(context, ("count", "position"), "says how a --filler stands in the prompt, and there is none")
    if config and not policy:
        refuse_idle(context, ("layers", "scope", "site"), "is that of a --policy; --config has its own")
    policies = policy or ([] if config or endpoint else ["outward"])  # what a server has attached must be stated
    treatments = _treatments(policies, layers, scope, site, config, seed)
    fillings = _fillings(filler or [], count, position)
    check_folders(run, out)
    tasks = collect_tasks(task, data, items, difficulty, seed)
    refuse_sampling(context, tasks, "samples", "temperature", "top_p", "best_of", "grader")
    compared = conditions(
        treatments,
        fillings,
        temperature=temperature if temperature >= LEAST_TEMPERATURE else 0.0,
        samples=samples,
        best_of=best_of,
        combine=combine,
        placebos=placebos,
    )
    left_out: list[Condition] = []
    if not choice.is_local:
        compared, left_out = servable_conditions(compared, tasks)
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
        batch=batch or choice.batch,
    )
    opened = choice.open(compared, tasks)
    if left_out:
        names = ", ".join(condition.name for condition in left_out)
        notes.print(f"left out, they need --engine local: {names}", highlight=False, soft_wrap=True)
    if not as_json:
        announce_power(plan)
    with closing(opened):
        finished = perform(plan, opened, run)
    if finished.interrupted:
        say_interrupted(finished.findings.tasks)
    show_findings(finished.findings, out or finished.folder, as_json=as_json)
    if finished.interrupted:
        raise typer.Exit(INTERRUPTED)


def _treatments(
    policies: list[str], layers: str, scope: ScopeName, site: SiteName, config: Path | None, seed: int
) -> "list[Treatment]":
    from armlet.evaluation.conditions.conditions import Treatment

    place = {"layers": parse_layers(layers), "scope": scope.value, "noise": Noise(seed), "site": site.value}
    treatments = [Treatment(policy, **place) for policy in dict.fromkeys(map(parse_policy, policies))]
    return [*treatments, *([Treatment(**load_config(config))] if config else [])]


def _fillings(fillers: list[str], count: int, position: PlaceName) -> "list[Filling]":
    from armlet.evaluation.conditions.conditions import Filling
    from armlet.prompts.fillers import Filler

    return [Filling(Filler(text, count), position.value) for text in dict.fromkeys(fillers)]
