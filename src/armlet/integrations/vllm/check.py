"""Proof that ARM fires in vLLM: the same prompts through the model without it and with it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from armlet.checkpoints.identity import model_folder
from armlet.integrations.vllm.offline import OFF, generate, opened, reports
from armlet.integrations.vllm.settings import KEY, resolve
from armlet.redistribution.errors import ArgumentError

# vLLM has an environment of its own, and no types to check against in this one.
# pyright: reportMissingImports=false

REPEATS = 5
"""Timed runs of each engine; one before them warms it up."""

CACHE = 2**30
"""Bytes of keys and values: a check has few requests."""

LONGEST = 1024
"""Tokens of prompt and answer."""


@dataclass
class Run:
    """What one engine gave.

    Args:
        answers: tokens of each prompt's answer.
        logprobs: of those tokens.
    """

    answers: list[list[int]]
    logprobs: list[list[float]]


@dataclass
class Check:
    """What the two engines gave.

    Args:
        model: as it was named.
        settings: the content of an armlet.json.
        ranks: of `armlet_report`, after all requests.
        missing: layers that were asked for and are on no rank, or saw no token.
        changed: answers that differ with ARM on.
        prompts: how many.
        off_equal: with ARM off by request, tokens and log-probabilities are bit for bit the baseline's.
        mates_equal: so are the tokens of requests without ARM beside requests with it.
        seconds: median seconds per generated token: baseline, on, off.
    """

    model: str
    settings: dict[str, Any]
    ranks: list[dict[str, Any]]
    missing: list[int]
    changed: int
    prompts: int
    off_equal: bool
    mates_equal: bool
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """ARM fired where it was asked for, and nowhere else."""
        fired = any(rank["layers"] for rank in self.ranks) and not self.missing
        return fired and self.off_equal and self.mates_equal


def check(
    model: str,
    settings: dict[str, Any],
    prompts: Sequence[str],
    *,
    tokens: int = 32,
    eager: bool = False,
    tensor_parallel: int = 1,
    dtype: str = "auto",
    tick: Callable[[str], None] = lambda _what: None,
) -> Check:
    """Loads the model twice, one after the other, and asks it the same.

    Args:
        model: a folder or hub id.
        settings: the content of an armlet.json; strength above 0.
        prompts: at least two.
        tokens: of each answer, greedy.
        eager: without compilation and graphs.
        tensor_parallel: ranks along the width.
        dtype: of the weights.
        tick: is told what comes next.

    Raises:
        ArgumentError: fewer than two prompts, or settings that vLLM cannot serve.
        EngineError: there is no vLLM, or it cannot load the model.
    """
    if len(prompts) < 2:
        raise ArgumentError("vllm-check: two prompts are needed, one of them to stay without ARM beside the other")
    full = resolve({KEY: settings}, model)[KEY]
    folder = str(model_folder(model))
    how: dict[str, Any] = {"enforce_eager": eager, "tensor_parallel_size": tensor_parallel, "dtype": dtype}
    how |= {"max_model_len": _longest(folder), "kv_cache_memory_bytes": CACHE, "enable_prefix_caching": False}
    tick("loading without ARM")
    with opened(folder, False, **how) as engine:
        tick("answering without ARM")
        baseline, base_seconds = _timed(engine, prompts, tokens, None)
    tick("loading with ARM")
    with opened(folder, full, **how) as engine:
        tick("answering with ARM")
        on, on_seconds = _timed(engine, prompts, tokens, None)
        off, off_seconds = _timed(engine, prompts, tokens, OFF)
        half: list[Any] = [OFF if at % 2 else None for at in range(len(prompts))]
        mixed = _answer(engine, prompts, tokens, half)
        ranks = reports(engine)
    return Check(
        model,
        full,
        ranks,
        _missing(ranks),
        sum(one != other for one, other in zip(baseline.answers, on.answers, strict=True)),
        len(prompts),
        off == baseline,
        mixed.answers[1::2] == baseline.answers[1::2],
        {"baseline": base_seconds, "on": on_seconds, "off": off_seconds},
    )


def _timed(engine: Any, prompts: Sequence[str], tokens: int, extra_args: Any) -> tuple[Run, float]:
    """The answers, and the median seconds per generated token."""
    asked = [extra_args] * len(prompts)
    run = _answer(engine, prompts, tokens, asked)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        _answer(engine, prompts, tokens, asked)
        seconds.append(time.perf_counter() - start)
    return run, median(seconds) / sum(map(len, run.answers))


def _answer(engine: Any, prompts: Sequence[str], tokens: int, asked: Sequence[Any]) -> Run:
    from vllm import SamplingParams

    params = [
        SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, logprobs=0, extra_args=each) for each in asked
    ]
    outputs = [each.outputs[0] for each in generate(engine, prompts, params)]
    logprobs = [
        [step[token].logprob for token, step in zip(each.token_ids, each.logprobs, strict=True)] for each in outputs
    ]
    return Run([list(each.token_ids) for each in outputs], logprobs)


def _longest(folder: str) -> int:
    """`LONGEST`, or fewer tokens where the model knows no more positions."""
    from transformers import AutoConfig

    text: Any = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    return min(LONGEST, getattr(text, "max_position_embeddings", LONGEST))


def _missing(ranks: Sequence[dict[str, Any]]) -> list[int]:
    fired = {int(layer) for rank in ranks for layer, counts in rank["layers"].items() if counts["tokens"]}
    return sorted({layer for rank in ranks for layer in rank["asked"]} - fired)
