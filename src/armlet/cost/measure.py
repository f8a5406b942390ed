"""What ARM costs: its function against three yardsticks, and a model with and without it.

Times on a shared machine drift, so what is compared runs in turns, in one process, and what is reported is the median
of the turns' ratios.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from armlet.attachment.attach import Attachment, attach
from armlet.attachment.places import ArmPlace
from armlet.cost.literal import literal
from armlet.redistribution.entry import redistribute
from armlet.redistribution.noise import Noise
from armlet.redistribution.rows import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LEAST = 2e-3
"""Seconds that one measurement lasts at least: shorter calls are repeated."""

NEW_TOKENS, PREFILL, PROMPT = 48, 1024, 16
"""Tokens that are generated; of a long prompt; of the prompt that is generated from."""

RATIOS = (("literal", "arm"), ("arm", "silu"), ("arm", "copy"))
"""Of the function's times: how much faster than the literal algorithm, and how much longer than what must be done."""

Tick = Callable[[], None]


@dataclass(frozen=True)
class Job:
    """What is timed: `call`, inside `within`, whose own time does not count."""

    call: Callable[[], object]
    within: Callable[[], AbstractContextManager[object]] = nullcontext


Times = dict[str, list[float]]
"""Seconds of each job, turn by turn."""


def in_turns(jobs: Mapping[str, Job], turns: int, tick: Tick = lambda: None) -> Times:
    """Times each job once a turn, after it has run twice to warm up.

    Args:
        jobs: by name.
        turns: at least two.
        tick: is called after each turn.
    """
    repeats = {name: _repeats(job) for name, job in jobs.items()}
    times: Times = {name: [] for name in jobs}
    for _ in range(turns):
        for name, job in jobs.items():
            times[name].append(_seconds(job, repeats[name]))
        tick()
    return times


def summary(times: Times, ratios: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Median seconds of each job, and of each pair (above, below) the median and quartiles of the turns' ratios."""
    found = {}
    for above, below in ratios:
        turn = [one / other for one, other in zip(times[above], times[below], strict=True)]
        low, middle, high = quantiles(turn, n=4, method="inclusive")
        found[f"{above} / {below}"] = {"median": middle, "quartiles": [low, high]}
    return {"seconds": {name: median(own) for name, own in times.items()}, "ratios": found}


def time_function(
    widths: Sequence[int],
    tokens: Sequence[int],
    dtypes: Sequence[torch.dtype],
    policy: Policy,
    *,
    turns: int,
    device: str | None = None,
    seed: int = 0,
    tick: Tick = lambda: None,
) -> Iterator[dict[str, Any]]:
    """ARM at token scope against the literal algorithm over the whole tensor, SiLU alone, and a copy.

    Args:
        widths: of the tensors; each combination is a row of the result.
        tokens: of the tensors.
        dtypes: of the tensors.
        policy: what moves; the literal algorithm is always the paper's, at `Outward`'s defaults.
        turns: of each combination.
        device: None for the CPU.
        seed: of the values.
        tick: is called after each turn.
    """
    for width in widths:
        for count in tokens:
            for dtype in dtypes:
                a = gate(count, width, dtype, device=device, seed=seed)
                found = summary(in_turns(_function_jobs(a, policy), turns, tick), RATIOS)
                yield {"width": width, "tokens": count, "dtype": str(dtype).removeprefix("torch."), **found}


def time_model(
    model: "PreTrainedModel", policy: Policy, *, turns: int, seed: int = 0, tick: Tick = lambda: None
) -> Iterator[dict[str, Any]]:
    """Greedy generation and a long prefill with ARM in layer 0 and in all layers, against the model without.

    Of the generation, also what one call of ARM takes in its place, on a CPU: `calls` has median and quartiles, in
    seconds, of the calls for a token that is decoded. In a loop, out of the model, a call takes less: the caches have
    its code and its row.

    Args:
        model: a causal language model.
        policy: what moves.
        turns: of each of the two.
        seed: of the prompts' random tokens, and of the noise.
        tick: is called after each turn.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(int(model.config.vocab_size), (1, PREFILL), generator=generator).to(model.device)

    def generate() -> object:
        prompt = ids[:, :PROMPT]
        how = {"do_sample": False, "min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS, "pad_token_id": 0}
        return model.generate(prompt, attention_mask=torch.ones_like(prompt), **how)  # type: ignore[operator]

    def prefill() -> object:
        return model(input_ids=ids, logits_to_keep=1)

    def attached(layers: int | str) -> Attachment:
        return attach(model, policy, layers=layers, noise=Noise(seed))

    where: dict[str, int | str] = {"layer 0": 0, "all layers": "all"}
    for name, call, tokens in (("generate", generate, NEW_TOKENS), ("prefill", prefill, PREFILL)):
        with torch.no_grad():
            jobs = {label: Job(call, partial(attached, layers)) for label, layers in where.items()}
            times = in_turns({"without": Job(call)} | jobs, turns, tick)
            row = {"work": name, "tokens": tokens, **summary(times, [(label, "without") for label in where])}
            if name == "generate" and model.device.type == "cpu":
                row["calls"] = {label: _call_in_place(model, jobs[label]) for label in where}
        yield row


def _call_in_place(model: "PreTrainedModel", job: Job) -> dict[str, Any]:
    """Median and quartiles of the seconds of each call for a single token."""
    seconds: list[float] = []
    with job.within():
        _time_calls(model, seconds)
        job.call()
    low, middle, high = quantiles(seconds, n=4, method="inclusive")
    return {"median": middle, "quartiles": [low, high]}


def _time_calls(model: nn.Module, seconds: list[float]) -> None:
    """Notes what each call of ARM takes from now on, as long as it is attached."""
    children = (child for module in model.modules() for child in module.children())
    for place in {child for child in children if isinstance(child, ArmPlace)}:
        place.redistributed = partial(_note_seconds, place.redistributed, seconds)


def _note_seconds(call: Callable[[Tensor], Tensor], seconds: list[float], a: Tensor) -> Tensor:
    start = time.perf_counter()
    values = call(a)
    taken = time.perf_counter() - start
    if a.numel() == a.shape[-1]:
        seconds.append(taken)
    return values


def gate(tokens: int, width: int, dtype: torch.dtype, *, device: str | None = None, seed: int = 0) -> Tensor:
    """`[tokens, width]`: SiLU of normal values with standard deviation 2."""
    generator = torch.Generator().manual_seed(seed)
    return functional.silu(2 * torch.randn(tokens, width, generator=generator)).to(device, dtype)


def _function_jobs(a: Tensor, policy: Policy) -> dict[str, Job]:
    return {
        "arm": Job(lambda: redistribute(a, policy)),
        "literal": Job(lambda: literal(a)),
        "silu": Job(lambda: functional.silu(a)),
        "copy": Job(a.clone),
    }


def _repeats(job: Job) -> int:
    with job.within():
        job.call()
    return max(1, round(LEAST / max(_seconds(job, 1), 1e-9)))


def _seconds(job: Job, repeats: int) -> float:
    with job.within():
        _settle()
        start = time.perf_counter()
        for _ in range(repeats):
            job.call()
        _settle()
        return (time.perf_counter() - start) / repeats


def _settle() -> None:
    """A GPU's work is done when it says so, not when it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
