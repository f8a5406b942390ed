"""Measures what ARM costs on this machine: times its function, and a model with and without it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from armlet.attachment.attached import refuse_attached
from armlet.checkpoints.given import Model, load_or_use, model_name
from armlet.checkpoints.pretrained import default_model
from armlet.cost.findings import FunctionRow, ModelTimes, WorkRow
from armlet.cost.measure import time_function, time_model
from armlet.cost.plan import MODEL_DTYPE, CostPlan, parse_shapes
from armlet.cost.result import Cost
from armlet.cost.timing import keep_freed_memory
from armlet.presentation.arguments import refuse_changed
from armlet.presentation.interruption import keep_partial, until_interrupted
from armlet.presentation.progress import progress
from armlet.redistribution.backends.choice import backend_name
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policies import parse_one_policy
from armlet.redistribution.rows import Policy
from armlet.runs.machine import machine

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FUNCTION, MODEL = HALVES = ("function", "model")
WIDTHS, TOKEN_COUNTS, DTYPES = (1536, 8960, 14336, 18944), (1, 32, 1024), ("float32", "bfloat16")
TURNS, MODEL_TURNS = 20, 9
"""What `bench` measures by default."""


def bench(
    model: Model | None = None,
    *,
    policy: Policy | str = "outward",
    widths: str | int | Iterable[int] = WIDTHS,
    tokens: str | int | Iterable[int] = TOKEN_COUNTS,
    dtypes: str | Iterable[str] = DTYPES,
    turns: int = TURNS,
    model_turns: int = MODEL_TURNS,
    threads: int | None = None,
    only: str | None = None,
    seed: int = 0,
    dtype: str = MODEL_DTYPE,
    device: str | None = None,
) -> Cost:
    """Times ARM's function against other operations for each shape, then a model with and without ARM.

    From the time of a model on, the C library keeps freed memory until the process ends (`keep_freed_memory`).

    Args:
        model: a folder, a hub id or a loaded causal language model; SmolLM2-135M-Instruct by default.
        policy: how values move, as an object or as text such as "outward:band=0.2".
        widths: MLP widths at which the function is timed, as numbers or as text such as "1536,8960".
        tokens: numbers of tokens in one call of the function, in the same form.
        dtypes: names of the dtypes in which the function is timed.
        turns: number of timings of the function and of what it is compared with, at least 2.
        model_turns: number of timings of the model, with and without ARM, at least 2.
        threads: torch's threads during the measurement; as they are by default.
        only: "function" or "model", to run only this half; with "function" no model is loaded.
        seed: seed of values, prompts and noise, at least 0.
        dtype: dtype of the weights: "float32", "bfloat16", "float16", "float64" or "auto" (the checkpoint's); a loaded
            model keeps its own.
        device: device of all tensors, such as "cuda"; where a loaded model is, or the CPU.

    Returns:
        Medians and quartiles, in seconds and as ratios. After Ctrl-C, the rows that are complete.

    Raises:
        ArgumentError: an argument is unknown or out of range, or cannot be used with the others.
        AlreadyAttachedError: ARM is attached to the model, so that it would not be timed without ARM.
        CheckpointError, UnsupportedModelError: the model cannot be loaded, or ARM cannot be attached to it.
        KeyboardInterrupt: Ctrl-C, before the first row was complete.
    """
    only_policy, shapes = parse_one_policy(policy), parse_shapes(widths, tokens, dtypes)
    if only not in (None, *HALVES):
        raise ArgumentError(f"only: expected {FUNCTION} or {MODEL}, found {only!r}")
    without_effect = f"has no effect with only={only!r}"
    if only == FUNCTION:
        model_options = {"dtype": (dtype, MODEL_DTYPE), "model_turns": (model_turns, MODEL_TURNS)}
        refuse_changed(without_effect, model=(model, None), **model_options)
    if only == MODEL:
        default = vars(parse_shapes(WIDTHS, TOKEN_COUNTS, DTYPES))
        changed = {name: (value, default[name]) for name, value in vars(shapes).items()}
        refuse_changed(without_effect, **changed, turns=(turns, TURNS))
    timed_model = default_model() if model is None else model
    halves = None if only == MODEL else shapes, None if only == FUNCTION else timed_model
    plan = CostPlan(only_policy, *halves, turns, model_turns, threads, dtype, device, seed)
    if isinstance(model, nn.Module):
        refuse_attached(model, "bench")
    with _torch_threads(plan.threads):
        return measure_cost(plan)


def measure_cost(plan: CostPlan) -> Cost:
    """Times the function, then the model; see `bench` for the errors and for Ctrl-C."""
    function, models = list[FunctionRow](), list[ModelTimes]()
    with until_interrupted() as interruption:
        if shapes := plan.shapes:
            count = len(shapes.widths) * len(shapes.tokens) * len(shapes.dtypes)
            with progress("timing the function", count * plan.turns) as tick:
                options = {"turns": plan.turns, "device": str(plan.place), "seed": plan.seed, "tick": tick}
                function.extend(time_function(shapes, plan.policy, **options))  # rows before Ctrl-C are kept
        if plan.model is not None:
            _time_model(plan, *_opened(plan, plan.model), models)
    model = next((times for times in models if times.work), None)
    interrupted, turns = keep_partial(interruption, function or model), plan.turns if plan.shapes else None
    environment = (machine(), torch.__version__, str(plan.place), backend_name(plan.place), plan.seed)
    return Cost(*environment, plan.policy, function, model, interrupted, turns)


def _opened(plan: CostPlan, model: Model) -> "tuple[str, PreTrainedModel]":
    """The model's name, and the model, which is loaded unless it is loaded already."""
    if isinstance(model, nn.Module):
        return model_name(model), model
    opened = load_or_use(model, None, dtype=plan.dtype, device=plan.device)
    return opened.name, opened.model


def _time_model(plan: CostPlan, name: str, model: "PreTrainedModel", models: list[ModelTimes]) -> None:
    """Appends the model's times, and adds each row when it is complete."""
    rows, memory_kept = list[WorkRow](), keep_freed_memory()
    models.append(ModelTimes(name, str(model.dtype).removeprefix("torch."), plan.model_turns, memory_kept, rows))
    with progress("timing the model", 2 * plan.model_turns) as tick:
        timed = {"turns": plan.model_turns, "seed": plan.seed, "tick": tick}
        rows.extend(time_model(model, plan.policy, **timed))  # rows before Ctrl-C are kept


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
