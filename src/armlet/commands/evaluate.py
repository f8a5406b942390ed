"""`armlet evaluate`: answers the same items without ARM, with it and with placebos, in a resumable run."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Context, Option

from armlet.attachment.config import load_config
from armlet.commands import options
from armlet.commands.engines import EngineOptions
from armlet.commands.findings import announce_power, show_findings
from armlet.commands.options import POLICY, AnswerOptions, TaskOptions, refuse_sampling
from armlet.commands.policy_help import policy_option
from armlet.evaluation.conditions.conditions import Condition, Filling, Treatment, conditions
from armlet.evaluation.plan import collect_tasks, make_plan, servable_conditions
from armlet.evaluation.run import run_and_analyse
from armlet.presentation.terminal import notes
from armlet.prompts.fillers import Filler, Position
from armlet.prompts.generation import COLDEST_SAMPLED
from armlet.redistribution.policies import parse_policy


@dataclass(frozen=True)
class TreatmentOptions:
    """Which policies are attached, and where."""

    policy: Annotated[
        list[str] | None,
        policy_option(f"A treatment: {POLICY}; published:MODEL/TASK for the paper's. May be repeated. [outward]"),
    ] = None
    layers: options.LayersOption = "0"
    scope: options.ScopeOption = "token"
    site: options.SiteOption = "gate"
    config: Annotated[Path | None, Option(help="An armlet.json as a treatment, in addition to any --policy.")] = None

    def treatments(self, context: Context, seed: int, *, served: bool) -> list[Treatment]:
        """One treatment for each distinct policy; `served`: no default, because a server's policy must be stated."""
        if self.config and not self.policy:
            options.refuse_unused(context, ("layers", "scope", "site"), "applies to --policy; --config has its own")
        policies = self.policy or ([] if self.config or served else ["outward"])
        place = options.PlaceOptions(self.layers, self.scope, self.site)
        treatments = [
            Treatment(**place.arguments(policy, seed)) for policy in dict.fromkeys(map(parse_policy, policies))
        ]
        return treatments + ([Treatment(**load_config(self.config))] if self.config else [])


@dataclass(frozen=True)
class FillerOptions:
    """Fillers to insert into the prompts of filler conditions."""

    filler: Annotated[list[str] | None, Option(help="Adds a filler condition with this text. May be repeated.")] = None
    count: Annotated[int, Option(min=1, help="Number of tokens of each filler.")] = 55
    position: Annotated[
        Position, Option(help="Fillers' position: around the system prompt, after the question, or in it at random.")
    ] = "between"

    def fillings(self, context: Context) -> list[Filling]:
        """One filling for each distinct filler."""
        if not self.filler:
            options.refuse_unused(context, ("count", "position"), "applies to a --filler, and there is none")
        return [Filling(Filler(text, self.count), self.position) for text in dict.fromkeys(self.filler or ())]


@dataclass(frozen=True)
class ConditionOptions:
    """The other compared conditions, and how answers are sampled."""

    samples: Annotated[int, Option(min=1, help="Number of answers to each item under every condition.")] = 1
    temperature: Annotated[float, Option(min=0, help="Sampling temperature; 0 for greedy.")] = 0.0
    top_p: Annotated[float, Option(min=COLDEST_SAMPLED, max=1, help="Probability mass that sampling keeps.")] = 1.0
    best_of: Annotated[int, Option(min=0, help="Adds a vote over this number of sampled answers.")] = 0
    combine: Annotated[
        bool, Option("--combine", help="Adds each policy with each filler, and all of them with --best-of.")
    ] = False
    placebos: Annotated[bool, Option(help="Adds identity, draw-only, matched, and a change of temperature.")] = True

    def conditions(self, treatments: list[Treatment], fillings: list[Filling]) -> list[Condition]:
        """All compared conditions."""
        temperature = 0.0 if self.temperature < COLDEST_SAMPLED else self.temperature
        chosen = {"best_of": self.best_of, "combine": self.combine, "placebos": self.placebos}
        return conditions(treatments, fillings, samples=self.samples, temperature=temperature, **chosen)


@dataclass(frozen=True)
class GradedAnswerOptions(AnswerOptions):
    """How a model answers, and how answers are graded."""

    grader: Annotated[str, Option(help="math-verify, or released: the paper's grader, for comparison.")] = "math-verify"


def evaluate(
    context: Context,
    *,
    selection: TaskOptions,
    treatment: TreatmentOptions,
    filler: FillerOptions,
    comparison: ConditionOptions,
    answers: GradedAnswerOptions,
    engine: EngineOptions,
    run: Annotated[
        Path | None,
        options.folder_option("The run folder, in which the same command resumes. Named after the run by default."),
    ] = None,
    out: Annotated[Path | None, options.folder_option("Folder for the report; the run folder by default.")] = None,
    compute: options.ComputeOptions,
    as_json: options.JsonOption = False,
) -> None:
    """Measure whether ARM helps: paired differences between the same items without ARM, with it, and with placebos."""
    engine.check(context, compute, stated=bool(treatment.policy or treatment.config))
    fillings = filler.fillings(context)
    treatments = treatment.treatments(context, compute.seed, served=bool(engine.endpoint))
    tasks = collect_tasks(selection.task, selection.data, selection.items, selection.difficulty, compute.seed)
    refuse_sampling(context, tasks, "samples", "temperature", "top_p", "best_of", "grader")
    compared, left_out = comparison.conditions(treatments, fillings), []
    if not engine.is_local:
        compared, left_out = servable_conditions(compared, tasks)
    settings = vars(answers) | {"batch": answers.batch or engine.batch, "top_p": comparison.top_p, "seed": compute.seed}
    plan = make_plan(tasks, compared, built_in=selection.model in (None, "abacus"), **settings)
    opened_engine = engine.open(selection.model, compute, compared, tasks)
    if left_out:
        names = ", ".join(condition.name for condition in left_out)
        notes.print(f"left out, because they need --engine local: {names}", highlight=False, soft_wrap=True)
    if not as_json:
        announce_power(plan)
    with closing(opened_engine):
        finished = run_and_analyse(plan, opened_engine, run)
    show_findings(finished.findings, out or finished.folder, as_json=as_json, interrupted=finished.interrupted)
