"""Times what a plan asks for, with progress bars."""

from dataclasses import dataclass

import torch
from rich.markup import escape

from armlet.checkpoints.pretrained import load
from armlet.cost.allocator import keep_freed_memory
from armlet.cost.findings import Cost, FunctionRow, ModelTimes, WorkRow
from armlet.cost.measure import Shapes, time_function, time_model
from armlet.presentation.terminal import notes, progress
from armlet.redistribution.backends.choice import backend_name
from armlet.redistribution.rows import Policy
from armlet.runs.machine import machine


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
    device = torch.device(plan.device or "cpu")
    function, models, interrupted = list[FunctionRow](), list[ModelTimes](), False
    try:
        if plan.shapes:
            _time_shapes(plan, plan.shapes, function)
        if plan.model:
            _time_checkpoint(plan, plan.model, models)
    except KeyboardInterrupt:
        interrupted = True
    place = (machine(), torch.__version__, str(device), backend_name(device), plan.seed)
    model = next((times for times in models if times.work), None)
    return Cost(*place, plan.policy, function, model, interrupted, plan.turns if plan.shapes else None)


def _time_shapes(plan: CostPlan, shapes: Shapes, rows: list[FunctionRow]) -> None:
    """Appends each row as it is complete: rows before Ctrl-C are kept."""
    count = len(shapes.widths) * len(shapes.tokens) * len(shapes.dtypes)
    with progress("timing the function", count * plan.turns) as tick:
        timed = {"turns": plan.turns, "device": plan.device, "seed": plan.seed, "tick": tick}
        for row in time_function(shapes, plan.policy, **timed):
            rows.append(row)


def _time_checkpoint(plan: CostPlan, name: str, models: list[ModelTimes]) -> None:
    """Appends the model's times once it is loaded, and each of their rows as it is complete."""
    kept = keep_freed_memory()
    with notes.status(escape(f"loading {name} ...")):
        model, _ = load(name, dtype=plan.dtype, device=plan.device)
    rows = list[WorkRow]()
    models.append(ModelTimes(name, str(model.dtype).removeprefix("torch."), plan.model_turns, kept, rows))
    with progress("timing the model", 2 * plan.model_turns) as tick:
        for row in time_model(model, plan.policy, turns=plan.model_turns, seed=plan.seed, tick=tick):
            rows.append(row)
