"""Times what a plan asks for, with progress bars."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from rich.markup import escape

from armlet.checkpoints.pretrained import load
from armlet.cost.allocator import keep_freed_memory
from armlet.cost.findings import Cost, FunctionRow, ModelTimes, WorkRow
from armlet.cost.measure import Shapes, time_function, time_model
from armlet.cost.timing import Tick
from armlet.presentation.terminal import notes, progress
from armlet.redistribution.backends.choice import backend_name
from armlet.redistribution.rows import Policy
from armlet.runs.machine import machine

TimedRow = TypeVar("TimedRow")


@dataclass(frozen=True)
class CostPlan:
    """What is timed.

    Args:
        policy: of ARM.
        shapes: of the function's tensors; None to leave the function out.
        model: a folder or hub id; None to leave the model out.
        turns: of the function, for each shape.
        model_turns: of generation and of prefill.
        dtype: of the model's weights.
        device: None for the CPU.
        seed: of values, prompts and noise.
    """

    policy: Policy
    shapes: Shapes | None
    model: str | None
    turns: int = 20
    model_turns: int = 9
    dtype: str = "float32"
    device: str | None = None
    seed: int = 0


def measure_cost(plan: CostPlan) -> Cost:
    """Times the function, then the model; Ctrl-C ends it with the rows that are complete.

    Raises:
        CheckpointError: the model cannot be loaded.
        ArgumentError: a dtype or device that cannot be used.
    """
    function, model, interrupted = list[FunctionRow](), None, False
    device = torch.device(plan.device or "cpu")
    if plan.shapes:
        interrupted = _time_shapes(plan, plan.shapes, function)
    if plan.model and not interrupted:
        model, interrupted = _time_checkpoint(plan, plan.model)
    place = (machine(), torch.__version__, str(device), backend_name(device), plan.seed)
    return Cost(*place, plan.policy, function, plan.turns if plan.shapes else None, model, interrupted)


def _time_shapes(plan: CostPlan, shapes: Shapes, rows: list[FunctionRow]) -> bool:
    def measure(tick: Tick) -> Iterator[FunctionRow]:
        settings = {"turns": plan.turns, "device": plan.device, "seed": plan.seed}
        return time_function(shapes, plan.policy, **settings, tick=tick)

    count = len(shapes.widths) * len(shapes.tokens) * len(shapes.dtypes)
    return _collect("timing the function", count * plan.turns, measure, rows)


def _time_checkpoint(plan: CostPlan, name: str) -> tuple[ModelTimes | None, bool]:
    """The times, None where no work is complete, and whether Ctrl-C ended it."""
    kept = keep_freed_memory()
    try:
        with notes.status(escape(f"loading {name} ...")):
            model, _ = load(name, dtype=plan.dtype, device=plan.device)
    except KeyboardInterrupt:
        return None, True
    rows = list[WorkRow]()

    def measure(tick: Tick) -> Iterator[WorkRow]:
        return time_model(model, plan.policy, turns=plan.model_turns, seed=plan.seed, tick=tick)

    interrupted = _collect("timing the model", 2 * plan.model_turns, measure, rows)
    times = ModelTimes(name, str(model.dtype).removeprefix("torch."), plan.model_turns, kept, rows)
    return times if rows else None, interrupted


def _collect(what: str, steps: int, measure: Callable[[Tick], Iterator[TimedRow]], rows: list[TimedRow]) -> bool:
    """Appends each row as it is complete; whether Ctrl-C ended it."""
    with progress(what, steps) as tick:
        try:
            for row in measure(tick):
                rows.append(row)  # one by one: rows before Ctrl-C are kept
        except KeyboardInterrupt:
            return True
    return False
