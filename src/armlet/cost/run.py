"""Measures what ARM costs on this machine: times its function, and a model with and without it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from armlet.attachment.attached import refuse_attached
from armlet.checkpoints.given import Model, load_or_use, model_name
from armlet.checkpoints.pretrained import Dtype, default_model
from armlet.cost.findings import FunctionRow, ModelTimes, WorkRow
from armlet.cost.measure import time_function, time_model
from armlet.cost.plan import MODEL_DTYPE, CostPlan, Half, ShapeOptions, TimingOptions, parse_shapes
from armlet.cost.result import Cost
from armlet.cost.timing import keep_freed_memory
from armlet.presentation.arguments import LARGEST_SEED, refuse_changed, whole_number
from armlet.presentation.interruption import keep_partial, until_interrupted
from armlet.presentation.progress import progress
from armlet.redistribution.backends.choice import backend_name
from armlet.redistribution.policies import parse_one_policy
from armlet.redistribution.rows import Policy
from armlet.runs.machine import machine

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def bench(
    model: Model | None = None,
    *,
    policy: Policy | str = "outward",
    widths: str | int | Iterable[int] = ShapeOptions.widths,
    tokens: str | int | Iterable[int] = ShapeOptions.tokens,
    dtypes: str | torch.dtype | Iterable[str | torch.dtype] = ShapeOptions.dtypes,
    turns: int = TimingOptions.turns,
    model_turns: int = TimingOptions.model_turns,
    threads: int | None = TimingOptions.threads,
    only: Half | None = TimingOptions.only,
    seed: int = 0,
    dtype: Dtype | None = None,
    device: str | None = None,
) -> Cost:
    """Times ARM's function against other operations for each shape, then a model with and without ARM.

    From the time of a model on, the C library keeps freed memory until the process ends (`keep_freed_memory`).

    Args:
        model: a folder, a hub id or a loaded causal language model; SmolLM2-135M-Instruct by default.
        policy: how values move, as an object or as text such as "outward:band=0.2".
        widths: MLP widths at which the function is timed, as numbers or as text such as "1536,8960".
        tokens: numbers of tokens in one call of the function, in the same form.
        dtypes: the dtypes in which the function is timed, by their names or as torch's.
        turns: number of timings of the function and of what it is compared with, at least 2.
        model_turns: number of timings of the model, with and without ARM, at least 2.
        threads: torch's threads during the measurement; as they are by default.
        only: "function" or "model", to run only this half; with "function" no model is loaded.
        seed: seed of values, prompts and noise, at least 0.
        dtype: dtype of the weights, "float32" by default, "bfloat16", "float16", "float64" or "auto" (the
            checkpoint's); a loaded model keeps its own. Of the function they are `dtypes`.
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
    timing, without_effect = TimingOptions(turns, model_turns, threads, only), f"has no effect with only={only!r}"
    if only == "function":
        refuse_changed(without_effect, model=(model, None), dtype=(dtype or MODEL_DTYPE, MODEL_DTYPE))
        timing.refuse_changed(without_effect, "model_turns")
    if only == "model":
        default = parse_shapes(**vars(ShapeOptions()))
        refuse_changed(without_effect, **{name: (value, vars(default)[name]) for name, value in vars(shapes).items()})
        timing.refuse_changed(without_effect, "turns")
    timed_model = default_model() if model is None else model
    halves = None if only == "model" else shapes, None if only == "function" else timed_model
    plan = CostPlan(only_policy, *halves, timing, whole_number("seed", seed, 0, LARGEST_SEED), dtype, device)
    if isinstance(model, nn.Module):
        refuse_attached(model, "bench")
    with _torch_threads(timing.threads):
        return measure_cost(plan)


def measure_cost(plan: CostPlan) -> Cost:
    """Times the function, then the model; see `bench` for the errors and for Ctrl-C."""
    function, models = list[FunctionRow](), list[ModelTimes]()
    with until_interrupted() as interruption:
        if shapes := plan.shapes:
            count = len(shapes.widths) * len(shapes.tokens) * len(shapes.dtypes)
            with progress("timing the function", count * plan.timing.turns) as tick:
                options = {"turns": plan.timing.turns, "device": str(plan.place), "seed": plan.seed, "tick": tick}
                function.extend(time_function(shapes, plan.policy, **options))  # rows before Ctrl-C are kept
        if plan.model is not None:
            _time_model(plan, *_opened(plan, plan.model), models)
    model = next((times for times in models if times.work), None)
    interrupted, turns = keep_partial(interruption, function or model), plan.timing.turns if plan.shapes else None
    environment = (machine(), torch.__version__, str(plan.place), backend_name(plan.place), plan.seed)
    return Cost(*environment, plan.policy, function, model, interrupted, turns)


def _opened(plan: CostPlan, model: Model) -> "tuple[str, PreTrainedModel]":
    """The model's name, and the model, which is loaded unless it is loaded already."""
    if isinstance(model, nn.Module):
        return model_name(model), model
    opened = load_or_use(model, None, dtype=plan.weights_dtype, device=plan.device)
    return opened.name, opened.model


def _time_model(plan: CostPlan, name: str, model: "PreTrainedModel", models: list[ModelTimes]) -> None:
    """Appends the model's times, and adds each row when it is complete."""
    rows, memory_kept, turns = list[WorkRow](), keep_freed_memory(), plan.timing.model_turns
    models.append(ModelTimes(name, str(model.dtype).removeprefix("torch."), turns, memory_kept, rows))
    with progress("timing the model", 2 * turns) as tick:
        timed = {"turns": turns, "seed": plan.seed, "tick": tick}
        rows.extend(time_model(model, plan.policy, **timed))  # rows before Ctrl-C are kept


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
