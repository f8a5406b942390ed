"""`armlet evaluate`: answers the same items without ARM, with it and with placebos, in a resumable run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from typer import Context, Option

from armlet import evaluation
from armlet.commands import options
from armlet.commands.engines import EngineOptions
from armlet.commands.options import POLICY, TaskOptions, is_class_of, saying_where_to_resume, show
from armlet.commands.policy_help import policy_option
from armlet.evaluation.conditions.conditions import TreatmentSource
from armlet.evaluation.conditions.interventions import read_intervention
from armlet.evaluation.options import ConditionOptions, FillerOptions, GradedAnswerOptions
from armlet.redistribution.policies import parse_policy
from armlet.redistribution.python_file import names_python_file


@dataclass(frozen=True)
class TreatmentOptions:
    """Which policies are attached, and where."""

    treatments: Annotated[
        list[str] | None,
        policy_option(
            f"A treatment: {POLICY}; published:MODEL/TASK for the paper's. May be repeated. [outward]", "--policy"
        ),
    ] = None
    layers: options.LayersOption = "0"
    scope: options.ScopeOption = "token"
    site: options.SiteOption = "gate"
    experts: options.ExpertsOption = "all"
    config: Annotated[
        Path | None,
        Option(
            help="An armlet.json as a treatment, in addition to any --policy but FILE.PY:CLASS, which names its class."
        ),
    ] = None
    functions: Annotated[
        list[str] | None,
        Option(
            "--treatment",
            metavar="FILE.PY:FUNCTION",
            help="A context manager of your own over the loaded model as a treatment; runs the file. May be repeated.",
        ),
    ] = None

    keep_tuning_items: Annotated[
        bool,
        Option("--keep-tuning-items", help="Keep items that tuned an armlet.json, which make no test of its setting."),
    ] = False

    def sources(self, *, served: bool) -> list[TreatmentSource]:
        """The policies, the file and the functions; `served`: no default, because a server's policy must be stated."""
        functions = map(read_intervention, self.functions or ())
        texts = [text for text in self.treatments or () if not (self.config and is_class_of(text, self.config))]
        policies = [parse_policy(text) if names_python_file(text) else text for text in texts]
        stated = [*policies, *([self.config] if self.config else ()), *functions]
        return stated or ([] if served else ["outward"])


def evaluate(
    context: Context,
    *,
    selection: TaskOptions,
    treatment: TreatmentOptions,
    filler: FillerOptions,
    comparison: ConditionOptions,
    answers: GradedAnswerOptions,
    engine: EngineOptions,
    budget: Annotated[
        str | None, Option(help="Time for answering, such as 90s, 30m or 2h, which chooses the number of items.")
    ] = None,
    run: Annotated[
        Path | None,
        options.folder_option("The run folder, in which the same command resumes. Named after the run by default."),
    ] = None,
    out: Annotated[Path | None, options.folder_option("Folder for the report; the run folder by default.")] = None,
    compute: options.ComputeOptions,
    as_json: options.JsonOption = False,
) -> None:
    """Measure whether ARM helps: paired differences between the same items without ARM, with it, and with placebos."""
    engine.check(context, compute, stated=bool(treatment.treatments or treatment.config))
    place = {name: getattr(treatment, name) for name in ("layers", "scope", "site", "experts", "keep_tuning_items")}
    groups = vars(filler) | vars(comparison) | vars(replace(answers, batch=answers.batch or engine.batch))
    runner = vars(compute)
    if not engine.is_local:
        runner = {"seed": compute.seed, "engine": engine.opener(selection.model, compute)}
    with saying_where_to_resume():
        findings = evaluation.evaluate(
            treatments=treatment.sources(served=bool(engine.endpoint)),
            budget=budget,
            run=run,
            **selection.arguments() | engine.named(selection.model),
            **place,
            **groups,
            **runner,
        )
    show(findings, out or findings.folder, as_json)
