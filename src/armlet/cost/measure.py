"""Times ARM's function against three other operations, and a model with and without ARM."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from armlet.attachment.attach import attach
from armlet.attachment.wrappers import ArmWrapper
from armlet.cost.findings import FunctionRow, WorkRow
from armlet.cost.timing import Spread, TimedJob, in_turns, summarize
from armlet.presentation.progress import Tick
from armlet.redistribution.entry import redistribute
from armlet.redistribution.literal import literal
from armlet.redistribution.noise import Noise
from armlet.redistribution.rows import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NEW_TOKENS, PREFILL, PROMPT = 48, 1024, 16
"""Number of generated tokens, length of the prefill, and length of the prompt for generation."""

FUNCTION_RATIOS = (("literal", "arm"), ("arm", "silu"), ("arm", "copy"))
"""Speedup over the literal algorithm, and slowdown against operations that any implementation needs."""

PLACEMENTS: dict[str, int | str] = {"layer 0": 0, "all layers": "all"}
"""Layers to which ARM is attached in a model, by name."""


@dataclass(frozen=True)
class Shapes:
    """The function is timed for each combination of these."""

    widths: Sequence[int]
    tokens: Sequence[int]
    dtypes: Sequence[torch.dtype]


def time_function(
    shapes: Shapes,
    policy: Policy,
    *,
    turns: int,
    device: str | None = None,
    seed: int = 0,
    tick: Tick = lambda _=1, /: None,
) -> Iterator[FunctionRow]:
    """Times ARM at token scope, the literal algorithm over the whole tensor, only SiLU, and a copy.

    The literal algorithm is always the paper's, at `Outward`'s defaults. Each shape has `turns` turns.
    """
    for width, tokens, dtype in product(shapes.widths, shapes.tokens, shapes.dtypes):
        a = gate(tokens, width, dtype, device=device, seed=seed)
        jobs = {
            "arm": TimedJob(partial(redistribute, a, policy)),
            "literal": TimedJob(partial(literal, a)),
            "silu": TimedJob(partial(functional.silu, a)),
            "copy": TimedJob(a.clone),
        }
        summary = summarize(in_turns(jobs, turns, tick), FUNCTION_RATIOS)
        yield FunctionRow(width, tokens, str(dtype).removeprefix("torch."), *summary)


def time_model(
    model: "PreTrainedModel", policy: Policy, *, turns: int, seed: int = 0, tick: Tick = lambda _=1, /: None
) -> Iterator[WorkRow]:
    """Times greedy generation and a long prefill without ARM, with ARM in layer 0 and with ARM in all layers.

    On a CPU, generation also times each call of ARM for a decoded token inside the model. In a loop outside a model a
    call takes less time, because its code and its row are in the caches. seed: seed of the prompts and the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(int(model.config.vocab_size), (1, PREFILL), generator=generator).to(model.device)
    generate, prefill = partial(_generate, model, ids[:, :PROMPT]), partial(model, input_ids=ids, logits_to_keep=1)
    for work, call, tokens in (("generate", generate, NEW_TOKENS), ("prefill", prefill, PREFILL)):
        jobs = {
            label: TimedJob(call, partial(attach, model, policy, layers=layers, noise=Noise(seed)))
            for label, layers in PLACEMENTS.items()
        }
        with torch.no_grad():
            times = in_turns({"without": TimedJob(call)} | jobs, turns, tick)
            timed = work == "generate" and model.device.type == "cpu"
            calls = {label: _time_arm_calls(model, jobs[label]) for label in PLACEMENTS} if timed else None
        yield WorkRow(work, tokens, *summarize(times, [(label, "without") for label in PLACEMENTS]), calls)


def _generate(model: "PreTrainedModel", prompt: Tensor) -> object:
    length = {"min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS}
    mask = torch.ones_like(prompt)
    return model.generate(prompt, attention_mask=mask, do_sample=False, pad_token_id=0, **length)  # type: ignore[operator]


def _time_arm_calls(model: nn.Module, job: TimedJob) -> Spread:
    """Seconds per call of ARM for a single token while the job runs."""
    with job.context():
        seconds = _record_calls(model)
        job.call()
    return Spread.of(seconds)


def _record_calls(model: nn.Module) -> list[float]:
    """Returns a list to which each call of ARM for a single token appends its seconds, until ARM is detached."""
    seconds: list[float] = []
    children = (child for module in model.modules() for child in module.children())  # `modules` leaves out some places
    for place in {child for child in children if isinstance(child, ArmWrapper)}:
        place.redistributed = partial(_call_timed, place.redistributed, seconds)
    return seconds


def _call_timed(call: Callable[[Tensor], Tensor], seconds: list[float], a: Tensor) -> Tensor:
    start = time.perf_counter()
    values = call(a)
    elapsed = time.perf_counter() - start
    if a.numel() == a.shape[-1]:
        seconds.append(elapsed)
    return values


def gate(tokens: int, width: int, dtype: torch.dtype, *, device: str | None = None, seed: int = 0) -> Tensor:
    """SiLU of normal values with standard deviation 2, `[tokens, width]`."""
    generator = torch.Generator().manual_seed(seed)
    return functional.silu(2 * torch.randn(tokens, width, generator=generator)).to(device, dtype)
