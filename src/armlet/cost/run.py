"""Runs the measurements of a plan, with progress bars."""

from dataclasses import dataclass

import torch
from rich.markup import escape

from armlet.checkpoints.pretrained import load
from armlet.cost.findings import Cost, FunctionRow, ModelTimes, WorkRow
from armlet.cost.measure import Shapes, time_function, time_model
from armlet.cost.timing import keep_freed_memory
from armlet.presentation.interruption import until_interrupted
from armlet.presentation.terminal import notes, progress
from armlet.redistribution.backends.choice import backend_name
from armlet.redistribution.rows import Policy
from armlet.runs.machine import machine


@dataclass(frozen=True)
class CostPlan:
    """The options of a run."""

    policy: Policy
    shapes: Shapes | None  # shapes of the function's tensors; None to leave the function out
    model: str | None  # a folder or hub id; None to leave the model out
    turns: int = 20  # turns of the function, for each shape
    model_turns: int = 9  # turns of generation and of prefill
    dtype: str = "float32"  # dtype of the model's weights
    device: str | None = None  # None for the CPU
    seed: int = 0  # seed of values, prompts and noise


def measure_cost(plan: CostPlan) -> Cost:
    """Times the function, then the model; after Ctrl-C, returns the rows that are complete.

    Raises:
        CheckpointError: the model cannot be loaded.
        ArgumentError: the dtype or device cannot be used.
    """
    device = torch.device(plan.device or "cpu")
    function, models = list[FunctionRow](), list[ModelTimes]()
    with until_interrupted() as interruption:
        if shapes := plan.shapes:
            count = len(shapes.widths) * len(shapes.tokens) * len(shapes.dtypes)
            with progress("timing the function", count * plan.turns) as tick:
                options = {"turns": plan.turns, "device": plan.device, "seed": plan.seed, "tick": tick}
                function.extend(time_function(shapes, plan.policy, **options))  # rows before Ctrl-C are kept
        if plan.model:
            _time_checkpoint(plan, plan.model, models)
    environment = (machine(), torch.__version__, str(device), backend_name(device), plan.seed)
    model = next((times for times in models if times.work), None)
    return Cost(*environment, plan.policy, function, model, interruption.happened, plan.turns if plan.shapes else None)


def _time_checkpoint(plan: CostPlan, name: str, models: list[ModelTimes]) -> None:
    """Appends the model's times after loading it, and adds each row when it is complete."""
    memory_kept = keep_freed_memory()
    with notes.status(escape(f"loading {name} ...")):
        model, _ = load(name, dtype=plan.dtype, device=plan.device)
    rows = list[WorkRow]()
    models.append(ModelTimes(name, str(model.dtype).removeprefix("torch."), plan.model_turns, memory_kept, rows))
    with progress("timing the model", 2 * plan.model_turns) as tick:
        timed = {"turns": plan.model_turns, "seed": plan.seed, "tick": tick}
        rows.extend(time_model(model, plan.policy, **timed))  # rows before Ctrl-C are kept
