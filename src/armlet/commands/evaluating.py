"""What the commands that evaluate share: their options, and how a run is announced and shown."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from armlet.commands.arguments import check_folder, refuse_idle, unslashed
from armlet.evaluation.tasks.sources import ARITHMETIC_ITEMS
from armlet.presentation.files import json_text
from armlet.presentation.terminal import notes

if TYPE_CHECKING:
    from armlet.evaluation.plan import Plan
    from armlet.evaluation.report.findings import Findings
    from armlet.evaluation.search.results import SearchMap
    from armlet.evaluation.tasks.problems import Task


EvaluatedModel = Annotated[
    str | None, typer.Argument(callback=unslashed, help="A folder or hub id; the embedded abacus by default.")
]
TaskOption = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        help="arithmetic (the default), math500, aime24, aime25, gsm8k, humaneval, or a hub's dataset as "
        "owner/name:config:split. May be repeated.",
    ),
]
DataOption = Annotated[list[Path] | None, typer.Option(help="A task from local JSON Lines. May be repeated.")]
ItemsOption = Annotated[
    int | None, typer.Option(min=1, help=f"Items of each task: all by default, {ARITHMETIC_ITEMS} of the built-in one.")
]
DifficultyOption = Annotated[int | None, typer.Option(help="Of the built-in task; what abacus is tuned to by default.")]
MaxNewTokensOption = Annotated[
    int | None, typer.Option(min=1, help="Most tokens of an answer; by kind of task by default.")
]
BatchOption = Annotated[int | None, typer.Option(min=1, help="Items at once; an answer's last bits depend on it.")]
SystemOption = Annotated[str | None, typer.Option(help="The system prompt; by kind of task by default.")]
AllowCodeOption = Annotated[
    bool, typer.Option("--allow-code-execution", help="Run model-written programs, in a sandbox (humaneval).")
]


def check_folders(run: Path | None, out: Path | None) -> None:
    """Refuses folders that cannot be made or written to."""
    for option, folder in (("--run", run), ("--out", out)):
        if folder:
            check_folder(folder, option)


def refuse_sampling(context: typer.Context, tasks: "Sequence[Task]", *names: str) -> None:
    """Refuses options of generated answers where every task is multiple choice, for which nothing is generated.

    Raises:
        ArgumentError: names the first of them.
    """
    if all(task.kind == "choice" for task in tasks):
        refuse_idle(context, (*names, "system", "max_new_tokens"), "has no effect on multiple choice")


def announce_power(plan: "Plan") -> None:
    """Says on stderr what the items can show, before they are run."""
    from armlet.evaluation.report.analysis import count_judged, planned_power
    from armlet.evaluation.report.sentences import power_announcement
    from armlet.evaluation.settings import ConditionSettings

    judged = count_judged([ConditionSettings.of(condition) for condition in plan.conditions], plan.tasks)
    for task in plan.tasks:
        announcement = power_announcement(task.name, planned_power(len(task.problems), judged))
        notes.print(announcement, markup=False, highlight=False, soft_wrap=True)


def show_findings(findings: "Findings", folder: Path, *, as_json: bool, map: "SearchMap | None" = None) -> None:
    """Writes the report into a folder, and prints it: as JSON, or a table, the verdicts, and where the report is."""
    from armlet.evaluation.report.report import write
    from armlet.evaluation.report.sentences import failed_checks
    from armlet.evaluation.report.tables import summary_table

    if not findings.tasks:
        return
    paths = write(findings, folder, map=map)
    for warning in failed_checks(findings):
        notes.print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print(json_text(findings.to_dict()), end="")
        return
    for task in findings.tasks:
        Console().print(summary_table(task))
    print(*(verdict.sentence for verdict in findings.verdicts), *(f"report: {path}" for path in paths), sep="\n")
