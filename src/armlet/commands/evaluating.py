"""What the commands that evaluate share: options, the plan made of them, the run in its folder, and its report."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from armlet.commands.arguments import refuse_idle, refuse_meta, unslashed
from armlet.evaluation.tasks.sources import ARITHMETIC_ITEMS
from armlet.presentation.files import json_text
from armlet.presentation.terminal import notes, progress, say_interrupted

if TYPE_CHECKING:
    from armlet.evaluation.conditions.conditions import Condition
    from armlet.evaluation.engines.engine import Engine
    from armlet.evaluation.plan import Plan
    from armlet.evaluation.report.report import Map
    from armlet.evaluation.tasks.problems import Task


Model = Annotated[
    str | None, typer.Argument(callback=unslashed, help="A folder or hub id; the embedded abacus by default.")
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        help="arithmetic (the default), math500, aime24, aime25, gsm8k, humaneval, or a hub's dataset as "
        "owner/name:config:split. May be repeated.",
    ),
]
Data = Annotated[list[Path] | None, typer.Option(help="A task from local JSON Lines. May be repeated.")]
Items = Annotated[
    int | None, typer.Option(min=1, help=f"Items of each task: all by default, {ARITHMETIC_ITEMS} of the built-in one.")
]
Difficulty = Annotated[int | None, typer.Option(help="Of the built-in task; what abacus is tuned to by default.")]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer; by kind of task by default.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Items at once; an answer's last bits depend on it.")]
System = Annotated[str | None, typer.Option(help="The system prompt; by kind of task by default.")]
AllowCode = Annotated[
    bool, typer.Option("--allow-code-execution", help="Run model-written programs, in a sandbox (humaneval).")
]


def refuse_sampling(context: typer.Context, tasks: "Sequence[Task]", *names: str) -> None:
    """Refuses options of generated answers where every task weighs choices, with which nothing is generated.

    Raises:
        ArgumentError: names the first of them.
    """
    if all(task.kind == "choice" for task in tasks):
        refuse_idle(context, (*names, "system", "max_new_tokens"), "has no effect on multiple choice")


def local_engine(model: str | None, dtype: str, device: str | None, seed: int) -> "Engine":
    """The model in this process.

    Raises:
        CheckpointError, ArgumentError: it cannot be loaded.
    """
    from armlet.checkpoints.identity import ABACUS
    from armlet.evaluation.engines.local import Local

    refuse_meta(device)
    with notes.status(escape(f"loading {model or ABACUS} ...")):
        engine = Local(model or ABACUS, dtype=dtype, device=device, seed=seed)
    from transformers.utils import logging

    logging.set_verbosity_error()  # this process is the command's own, and stderr is for what the user must know
    return engine


def offline_engine(
    model: str | None,
    compared: "Sequence[Condition]",
    tasks: "Sequence[Task]",
    dtype: str,
    options: dict[str, Any],
    seed: int,
) -> "Engine":
    """The model in vLLM, with the one treatment of these conditions.

    Raises:
        ArmletError: there is no vLLM, or it cannot run the model or these conditions.
    """
    from armlet.checkpoints.identity import ABACUS
    from armlet.integrations.vllm.engine import Offline, single_treatment

    treatment = single_treatment(compared, tasks)
    with notes.status(escape(f"loading {model or ABACUS} in vLLM ...")):
        return Offline(model or ABACUS, treatment, dtype=dtype, options=options, seed=seed)


def perform(plan: "Plan", engine: "Engine", folder: Path | None) -> tuple[dict[str, Any], Path, bool]:
    """Runs a plan in its folder as far as it is not there yet.

    Args:
        plan: what.
        engine: which answers.
        folder: None for `default_run_folder`.

    Returns:
        The findings, the folder, and whether Ctrl-C cut it short.
    """
    from armlet.evaluation.grading.graders import EQUAL
    from armlet.evaluation.report.findings import findings
    from armlet.evaluation.run import count, run
    from armlet.runs.folder import default_run_folder, open_run_folder
    from armlet.runs.machine import machine

    manifest = plan.manifest(engine)
    folder = folder or default_run_folder(manifest)
    interrupted = False
    with open_run_folder(folder, manifest, machine()) as journal:
        with progress("answering", count(plan)) as tick:
            try:
                run(plan, engine, journal, tick)
            except KeyboardInterrupt:
                interrupted = True
        with notes.status("summing up ..."):
            found = findings(journal, plan.tasks, EQUAL)
    if interrupted:
        say_interrupted(found["tasks"])
    return found, folder, interrupted


def say_planned(plan: "Plan") -> None:
    """What the items can show, before they are run."""
    from armlet.evaluation.report.findings import count_judged, planned
    from armlet.evaluation.report.sentences import strictness

    judged = count_judged([condition.plain() for condition in plan.conditions], plan.tasks)
    for task in plan.tasks:
        found = planned(len(task.problems), judged)
        least = found["smallest_detectable"]
        can = "can show no difference" if least is None else f"can show differences from {100 * least:.1f} points on"
        share = f"{100 * found['discordant']:.0f} %"
        notes.print(
            f"{task.name}: {found['items']:,} items {can} (80 % power, {share} answered unlike{strictness(judged)})",
            highlight=False,
            soft_wrap=True,
        )


def show(found: dict[str, Any], folder: Path, *, as_json: bool, map: "Map | None" = None) -> None:
    """Writes the report into a folder, and prints it: as JSON, or a table, the verdicts, and where the report is."""
    from armlet.evaluation.report import report
    from armlet.evaluation.report.sentences import arm_checks, placebo_checks
    from armlet.evaluation.report.tables import summary_tables

    if not found["tasks"]:
        return
    paths = report.write(found, folder, map=map)
    for task in found["tasks"]:
        for holds, sentence in (*placebo_checks(task), *arm_checks(task)):
            if not holds:
                notes.print(
                    f"{task['name']}: {sentence}", style="yellow", markup=False, highlight=False, soft_wrap=True
                )
    if as_json:
        print(json_text(found), end="")
        return
    for table in summary_tables(found):
        Console().print(table)
    print(*found["verdicts"], *(f"report: {path}" for path in paths), sep="\n")
