"""What the commands that evaluate share: options, the plan made of them, the run in its folder, and its report."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from armlet.commands.arguments import refuse_idle, refuse_meta, unslashed
from armlet.commands.terminal import notes, progress, say_interrupted
from armlet.layer.config import json_text
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from armlet.evaluation.conditions import Condition
    from armlet.evaluation.engine import Engine
    from armlet.evaluation.problems import Kind, Task
    from armlet.evaluation.report import Map
    from armlet.evaluation.run import Plan

ITEMS = 2000
"""Problems of the built-in task, which has no end."""

BUILT_IN_BATCH, BATCH = 250, 16
"""Items at once: of the embedded model, and of any other."""

LONGEST: "dict[Kind, int]" = {"integer": 256, "maths": 1024, "code": 512}
"""Most tokens of an answer."""

RUNS = Path("armlet-runs")

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
    int | None, typer.Option(min=1, help=f"Items of each task: all by default, {ITEMS} of the built-in one.")
]
Difficulty = Annotated[int | None, typer.Option(help="Of the built-in task; what abacus is tuned to by default.")]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer; by kind of task by default.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Items at once; an answer's last bits depend on it.")]
System = Annotated[str | None, typer.Option(help="The system prompt; by kind of task by default.")]
AllowCode = Annotated[
    bool, typer.Option("--allow-code-execution", help="Run model-written programs, in a sandbox (humaneval).")
]


def collect_tasks(
    names: Sequence[str] | None, files: Sequence[Path] | None, items: int | None, difficulty: int | None, seed: int
) -> "list[Task]":
    """The tasks that the command line names; the built-in one where it names none.

    Raises:
        ArgumentError: a task that cannot be had, or two of one name.
    """
    from armlet.evaluation.problems import ARITHMETIC, arithmetic, hub_task, read_task

    names = names or ([] if files else [ARITHMETIC])
    if difficulty is not None and ARITHMETIC not in names:
        raise ArgumentError(f"--difficulty: is that of the task {ARITHMETIC}, which is not among the tasks")
    tasks = [
        arithmetic(items or ITEMS, seed=seed, difficulty=difficulty) if name == ARITHMETIC else hub_task(name, items)
        for name in names
    ] + [read_task(file, items) for file in files or ()]
    called = [task.name for task in tasks]
    twice = next((name for name in called if called.count(name) > 1), None)
    if twice:
        raise ArgumentError(f"--task: {twice!r} is there twice; give a file another name")
    return tasks


def refuse_sampling(context: typer.Context, tasks: "Sequence[Task]", *names: str) -> None:
    """Refuses options of generated answers where every task weighs choices, with which nothing is generated.

    Raises:
        ArgumentError: names the first of them.
    """
    if all(task.kind == "choice" for task in tasks):
        refuse_idle(context, (*names, "system", "max_new_tokens"), "has no effect on multiple choice")


def make_plan(
    tasks: "Sequence[Task]",
    conditions: "Sequence[Condition]",
    *,
    built_in: bool,
    seed: int,
    max_new_tokens: int | None = None,
    system: str | None = None,
    top_p: float = 1.0,
    grader: str = "math-verify",
    allow_code: bool = False,
    batch: int | None = None,
) -> "Plan":
    """A plan with the defaults of each kind of task.

    Args:
        tasks: what is asked.
        conditions: under which conditions.
        built_in: the embedded model answers, which knows the bare expression and no system prompt.
        seed: of sampling.
        max_new_tokens: None for `LONGEST`.
        system: None for the prompt of each kind.
        top_p: of sampling.
        grader: one of `GRADERS`.
        allow_code: programs may be run.
        batch: None for `BUILT_IN_BATCH` or `BATCH`.

    Raises:
        ArgumentError: no such grader, or programs that may not be run.
    """
    from armlet.evaluation.engine import Sampling
    from armlet.evaluation.graders import graders
    from armlet.evaluation.problems import SYSTEMS
    from armlet.evaluation.run import Plan

    if system is None and built_in:
        system = ""
    return Plan(
        tasks=tasks,
        conditions=conditions,
        sampling={kind: Sampling(max_new_tokens or most, top_p, seed) for kind, most in LONGEST.items()},
        batch=batch or (BUILT_IN_BATCH if built_in else BATCH),
        systems={kind: text if system is None else system for kind, text in SYSTEMS.items()},
        graders=graders(grader, {task.kind for task in tasks}, allow_code=allow_code),
        grader=grader,
    )


def local_engine(model: str | None, dtype: str, device: str | None, seed: int) -> "Engine":
    """The model in this process.

    Raises:
        CheckpointError, ArgumentError: it cannot be loaded.
    """
    from armlet.evaluation.local import Local
    from armlet.evaluation.weights import ABACUS

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
    from armlet.evaluation.weights import ABACUS
    from armlet.integrations.vllm.engine import Offline, check

    treatment = check(compared, tasks)
    with notes.status(escape(f"loading {model or ABACUS} in vLLM ...")):
        return Offline(model or ABACUS, treatment, dtype=dtype, options=options, seed=seed)


def perform(plan: "Plan", engine: "Engine", folder: Path | None) -> tuple[dict[str, Any], Path, bool]:
    """Runs a plan in its folder as far as it is not there yet.

    Args:
        plan: what.
        engine: which answers.
        folder: None for `run_folder`.

    Returns:
        The findings, the folder, and whether Ctrl-C cut it short.
    """
    from armlet.evaluation.graders import EQUAL
    from armlet.evaluation.journal import open_journal
    from armlet.evaluation.results import findings
    from armlet.evaluation.run import count, machine, run

    manifest = plan.manifest(engine)
    folder = folder or run_folder(manifest)
    interrupted = False
    with open_journal(folder, manifest, machine()) as journal:
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
    from armlet.evaluation.results import count_judged, planned
    from armlet.evaluation.sentences import strictness

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
    from armlet.evaluation import report
    from armlet.evaluation.sentences import arm_checks, placebo_checks
    from armlet.evaluation.tables import summary_tables

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


def run_folder(manifest: dict[str, Any]) -> Path:
    """A folder under `RUNS` named after what is run: the same command finds it again, and another run has another."""
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=False)
    parts = [Path(manifest["engine"]["model"]).name, *(task["name"] for task in manifest["tasks"])]
    plain = "-".join("".join(c if c.isalnum() or c in "._" else "-" for c in part) for part in parts)
    return RUNS / f"{plain[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
