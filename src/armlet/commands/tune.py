"""`armlet tune`: searches settings on one part of the items; `confirm` measures its choice on the other part."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.table import Table
from typer import Context, Option

from armlet.attachment.config import parse_layers
from armlet.commands.engines import local_engine
from armlet.commands.findings import announce_power
from armlet.commands.options import (
    POLICY,
    AnswerOptions,
    ComputeOptions,
    JsonOption,
    ScopeOption,
    SiteOption,
    TaskOptions,
    finish,
    folder_option,
    refuse_sampling,
)
from armlet.evaluation.conditions.conditions import Treatment
from armlet.evaluation.search.results import StudyArguments, StudyResult, TrialResult
from armlet.evaluation.search.search import SEARCHED, Space
from armlet.evaluation.search.study import plan_tuning, run_study, write_study
from armlet.presentation.interruption import report_interruption
from armlet.presentation.numbers import bounds, percent, points, with_count
from armlet.presentation.terminal import titled_table
from armlet.redistribution.noise import Noise
from armlet.redistribution.policies import parse_policy

SHOWN_TRIALS = 5  # number of trials that the terminal shows


@dataclass(frozen=True)
class SearchOptions:
    """The search space."""

    policy: Annotated[str, Option(help=f"Policy to search, with the settings that stay fixed: {POLICY}.")] = "outward"
    search: Annotated[
        str | None,
        Option(help="One or two of band, proportion, ceiling, knee, spread, strength; depends on --policy by default."),
    ] = None
    layers: Annotated[
        list[str] | None, Option(help="Candidate layers: an index, several, a range, or all. May be repeated. [0]")
    ] = None
    scope: ScopeOption = "token"
    site: SiteOption = "gate"
    trials: Annotated[int, Option(min=0, help="Number of trials in addition to those of the sensitivity map.")] = 20

    def space(self, seed: int) -> Space:
        """The settings from which the search chooses."""
        treatment = Treatment(parse_policy(self.policy), 0, self.scope, Noise(seed), self.site)
        names = tuple(self.search.split(",")) if self.search else SEARCHED[treatment.policy.name]
        candidates = tuple(parse_layers(text) for text in dict.fromkeys(self.layers or ["0"]))
        return Space(treatment, names, candidates, self.trials, seed)


def tune(
    context: Context,
    *,
    selection: TaskOptions,
    search: SearchOptions,
    answers: AnswerOptions,
    run: Annotated[Path | None, folder_option("The study's folder, in which the same command resumes.")] = None,
    out: Annotated[Path | None, folder_option("Folder for map, table and best setting; as --run by default.")] = None,
    compute: ComputeOptions,
    as_json: JsonOption = False,
) -> None:
    """Search settings on one half of the items; `armlet confirm` then measures the best one on the other half, once."""
    files: dict[str, Any] = {"data": [str(file) for file in selection.data or ()]}
    arguments = StudyArguments(**vars(selection) | vars(answers) | vars(compute) | files)
    space, engine = search.space(compute.seed), local_engine(selection.model, compute)
    plan = plan_tuning(arguments)
    refuse_sampling(context, plan.tasks)
    if not as_json:
        announce_power(plan)
    study, folder = run_study(space, plan, engine, arguments, run)
    report_interruption(study is None or study.interrupted, study)
    if study:
        _show_study(study, folder, out or folder, as_json)


def _show_study(study: StudyResult, folder: Path, out: Path, as_json: bool) -> None:
    """Writes the files and prints the result."""
    written = [f"written: {path}" for path in write_study(study, out)]
    advice = "the best setting looks better than it is on the items that chose it; on the others: armlet confirm"
    lines = [_trials_table(study), f"{advice} {folder}", *written]
    finish(study.to_dict(), as_json, lines, interrupted=study.interrupted)


def _trials_table(study: StudyResult) -> Table:
    title = (
        f"the best {min(SHOWN_TRIALS, len(study.trials))} of {with_count(len(study.trials), 'trial')} on tuning items"
    )
    table = titled_table(title, (*study.searched, "layers", "accuracy", "difference", "95 % interval"))
    table.columns[0].justify = "right"
    for trial in sorted(study.trials, key=lambda trial: -trial.difference)[:SHOWN_TRIALS]:
        table.add_row(*_trial_cells(trial))
    return table


def _trial_cells(trial: TrialResult) -> list[str]:
    values, interval = (f"{v:.4g}" for v in trial.values.values()), " to ".join(bounds(trial.low, trial.high))
    return [*values, trial.layers, percent(trial.accuracy), points(trial.difference), interval]
