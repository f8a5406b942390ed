"""A time budget: the first batch of each task is timed under all conditions, to find out how many items fit into it."""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic

from armlet.evaluation.batches import ClosedBatch, answer_batch, batch_runs, count_answers, keep_date
from armlet.evaluation.engines.engine import Engine
from armlet.evaluation.plan import Plan, TimeBudget
from armlet.evaluation.tasks.problems import Problem, Task
from armlet.presentation.interruption import interruption_says
from armlet.presentation.progress import duration, progress
from armlet.presentation.terminal import note
from armlet.redistribution.errors import ArgumentError
from armlet.runs.folder import RunFolder, default_run_folder, open_run_folder, recorded_manifest
from armlet.runs.machine import machine

SECONDS = {"s": 1, "m": 60, "h": 3600}
BUDGET_ITEMS = 20_000  # maximum number of items of a task that is generated without end
TIMING_FOLDER = "timing"  # the folder of the timed batches in the run folder


def budget_seconds(budget: object) -> float:
    """The seconds of a budget such as "90s", "30m" or "1.5h"; raises ArgumentError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget) if isinstance(budget, str) and budget.isascii() else None
    if not match or not float(match[1]):
        raise ArgumentError(f"budget: expected a time such as 90s, 30m or 2h, found {budget!r}")
    return float(match[1]) * SECONDS[match[2]]


def plan_within(
    plan: Plan, engine: Engine, seconds: float, folder: Path | None
) -> tuple[Plan, Path, list[ClosedBatch]]:
    """The plan with as many items as can be answered in that time, its folder, and the batches that were timed.

    Items are taken in an order that does not depend on their content, so that a larger budget includes the items of
    a smaller one. The times are kept in the folder, so a run that is resumed has the same items.
    """
    tasks = [replace(task, problems=tuple(sorted(task.problems, key=_order_key))) for task in plan.tasks]
    plan = replace(plan, tasks=tasks, budget=TimeBudget(seconds, plan.batch_size))
    folder = folder or default_run_folder(plan.manifest(engine))
    keep_date(engine, recorded_manifest(folder / TIMING_FOLDER).get("engine"))
    timed = replace(plan, tasks=[_first(task, plan.batch_size) for task in tasks])
    answers = count_answers(timed)
    with open_run_folder(folder / TIMING_FOLDER, timed.manifest(engine), machine(), answers=answers) as journal:
        resumes = f"interrupted: the same command or call resumes the run in {folder}"
        with progress("timing the first batch", answers, done=len(journal.rows)) as tick, interruption_says(resumes):
            for batch in batch_runs(timed, engine):
                if not journal.has(batch.key):
                    start = monotonic()
                    rows = answer_batch(batch, engine, timed)
                    journal.close(batch.key, rows, {"arm": engine.fired(), "seconds": monotonic() - start})
                    tick(len(rows))
        per_item = _seconds_per_item(journal, timed.tasks)
        answered = _closed_batches(journal)
    items = affordable_items({task.name: len(task.problems) for task in tasks}, per_item, seconds)
    chosen = [_first(task, max(items[task.name], plan.batch_size)) for task in tasks]
    _announce(chosen, per_item, seconds)
    return replace(plan, tasks=chosen), folder, answered


def _announce(tasks: Sequence[Task], per_item: Mapping[str, float], seconds: float) -> None:
    """Says on stderr how many items were chosen, and how long they take."""
    expected = sum(len(task.problems) * per_item[task.name] for task in tasks)
    names = ", ".join(f"{len(task.problems):,} of {task.name} ({per_item[task.name]:.2g} s each)" for task in tasks)
    more = f"; the first batch alone takes more than {duration(seconds)}" if expected > seconds else ""
    note(f"budget: {duration(expected)} for these items under all conditions: {names}{more}")


def affordable_items(sizes: Mapping[str, int], per_item: Mapping[str, float], seconds: float) -> dict[str, int]:
    """The number of items of each task, the same for each unless a task has fewer, that fit into a time.

    sizes: the number of items that each task has; per_item: seconds for an item.
    """

    def duration_of(items: int) -> float:
        return sum(min(items, size) * per_item[name] for name, size in sizes.items())

    most = bisect_right(range(1, max(sizes.values()) + 1), seconds, key=duration_of)
    return {name: min(most, size) for name, size in sizes.items()}


def _order_key(problem: Problem) -> bytes:
    return hashlib.sha256(problem.id.encode()).digest()


def _first(task: Task, items: int) -> Task:
    return replace(task, problems=task.problems[:items])


def _seconds_per_item(journal: RunFolder, tasks: Sequence[Task]) -> dict[str, float]:
    totals = dict.fromkeys((task.name for task in tasks), 0.0)
    for (name, *_), closing in journal.closed.items():
        totals[name] += closing["seconds"]
    return {task.name: totals[task.name] / len(task.problems) for task in tasks}


def _closed_batches(journal: RunFolder) -> list[ClosedBatch]:
    """All batches of a journal; their records follow each other in the order of the batches."""
    rows = iter(journal.rows)
    return [
        (key, [next(rows) for _ in range(closing["items"])], closing["arm"]) for key, closing in journal.closed.items()
    ]
