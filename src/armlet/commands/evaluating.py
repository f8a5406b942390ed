"""What the commands that evaluate share: their options, and how a run is announced and shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from armlet.commands.options import finish, refuse_idle, unslashed
from armlet.evaluation.plan import Plan
from armlet.evaluation.report.analysis import count_judged, planned_power
from armlet.evaluation.report.findings import Findings
from armlet.evaluation.report.sentences import failed_checks, power_announcement
from armlet.evaluation.report.tables import summary_table
from armlet.evaluation.search.results import SearchMap
from armlet.evaluation.settings import ConditionSettings
from armlet.evaluation.tasks.problems import Task
from armlet.evaluation.tasks.sources import ARITHMETIC_ITEMS
from armlet.presentation.interruption import report_interruption
from armlet.presentation.terminal import notes


@dataclass(frozen=True)
class TaskOptions:
    """Which model is asked what."""

    model: Annotated[
        str | None, Argument(callback=unslashed, help="A folder or hub id; the embedded abacus by default.")
    ] = None
    task: Annotated[
        list[str] | None,
        Option(
            help="arithmetic (the default), math500, aime24, aime25, gsm8k, humaneval, or a hub's dataset as "
            "owner/name:config:split. May be repeated."
        ),
    ] = None
    data: Annotated[list[Path] | None, Option(help="A task from local JSON Lines. May be repeated.")] = None
    items: Annotated[
        int | None, Option(min=1, help=f"Items of each task: all by default, {ARITHMETIC_ITEMS} of the built-in one.")
    ] = None
    difficulty: Annotated[int | None, Option(help="Of the built-in task; what abacus is tuned to by default.")] = None


@dataclass(frozen=True)
class AnswerOptions:
    """How a model answers."""

    max_new_tokens: Annotated[
        int | None, Option(min=1, help="Most tokens of an answer; by kind of task by default.")
    ] = None
    system: Annotated[str | None, Option(help="The system prompt; by kind of task by default.")] = None
    allow_code: Annotated[
        bool, Option("--allow-code-execution", help="Run model-written programs, in a sandbox (humaneval).")
    ] = False
    batch: Annotated[int | None, Option(min=1, help="Items at once; an answer's last bits depend on it.")] = None


def refuse_sampling(context: Context, tasks: Sequence[Task], *names: str) -> None:
    """Refuses options of generated answers where every task is multiple choice, for which nothing is generated."""
    if all(task.kind == "choice" for task in tasks):
        refuse_idle(context, (*names, "system", "max_new_tokens"), "has no effect on multiple choice")


def announce_power(plan: Plan) -> None:
    """Says on stderr what the items can show, before they are run."""
    judged = count_judged([ConditionSettings(**condition.plain()) for condition in plan.conditions], plan.tasks)
    for task in plan.tasks:
        announcement = power_announcement(task.name, planned_power(len(task.problems), judged))
        notes.print(announcement, markup=False, highlight=False, soft_wrap=True)


def show_findings(
    findings: Findings, folder: Path, *, as_json: bool, map: SearchMap | None = None, interrupted: bool = False
) -> None:
    """Writes the report, if there is one, into a folder and prints it; exits with 130 after Ctrl-C."""
    from armlet.evaluation.report.report import write

    report_interruption(interrupted, findings.tasks)
    reports = [f"report: {path}" for path in write(findings, folder, map=map)]
    for warning in failed_checks(findings):
        notes.print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
    verdicts = [verdict.sentence for verdict in findings.verdicts]
    lines = [*(summary_table(task) for task in findings.tasks), *verdicts, *reports]
    finish(findings.to_dict(), as_json, lines, interrupted=interrupted)
