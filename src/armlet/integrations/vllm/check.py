"""Proof that ARM fires in vLLM: the same prompts through the model without it and with it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from armlet.checkpoints.identity import model_folder
from armlet.integrations.vllm.offline import OFF, RankReport, opened, reports, run_prompts, token_logprobs
from armlet.integrations.vllm.settings import ExtraArgs, full_setting
from armlet.redistribution.errors import ArgumentError

# vLLM has an environment of its own, so that its types are unknown in this one.
# pyright: reportMissingImports=false

if TYPE_CHECKING:
    from vllm import LLM

REPEATS = 5
"""Timed runs of each engine, after one that warms it up."""

CACHE_BYTES = 2**30
"""Keys and values of few requests."""

MOST_POSITIONS = 1024
"""Tokens of prompt and answer."""


class EngineAnswers(NamedTuple):
    """The tokens of each prompt's answer, and their log-probabilities."""

    tokens: list[list[int]]
    logprobs: list[list[float]]


@dataclass
class Check:
    """The comparison of both engines.

    Args:
        model: as it was named.
        settings: the content of an armlet.json.
        ranks: of `armlet_report`, after all requests.
        missing: layers that were asked for and are on no rank, or saw no token.
        changed: the number of answers that ARM changes.
        prompts: the number of prompts.
        off_equal: with ARM off by request, tokens and log-probabilities are bit for bit the baseline's.
        mates_equal: so are the tokens of requests without ARM in a batch with requests that have it.
        seconds: median seconds per generated token: baseline, on, off.
    """

    model: str
    settings: dict[str, object]
    ranks: list[RankReport]
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


def check_serving(
    model: str,
    settings: object,
    prompts: Sequence[str],
    *,
    tokens: int = 32,
    eager: bool = False,
    tensor_parallel: int = 1,
    dtype: str = "auto",
    tick: Callable[[str], None] = lambda _what: None,
) -> Check:
    """Loads the model twice, without ARM and then with it, and runs the same prompts.

    Args:
        model: a folder or hub id.
        settings: the content or the name of an armlet.json; strength above 0.
        prompts: at least two.
        tokens: of each answer, greedy.
        eager: without compilation and graphs.
        tensor_parallel: ranks along the width.
        dtype: of the weights.
        tick: is told what comes next.

    Raises:
        ArgumentError: fewer than two prompts, or settings that vLLM cannot serve.
        EngineError: vLLM is not installed, or cannot load the model.
    """
    if len(prompts) < 2:
        raise ArgumentError("vllm-check: two prompts are needed, one of them to stay without ARM beside the other")
    full = full_setting(settings)
    folder = str(model_folder(model))
    options = {"enforce_eager": eager, "tensor_parallel_size": tensor_parallel, "dtype": dtype}
    limits = {"max_model_len": _most_positions(folder), "kv_cache_memory_bytes": CACHE_BYTES}
    options |= limits | {"enable_prefix_caching": False}
    every: list[ExtraArgs] = [None] * len(prompts)
    none: list[ExtraArgs] = [OFF] * len(prompts)
    tick("loading without ARM")
    with opened(folder, False, **options) as engine:
        tick("answering without ARM")
        baseline, base_seconds = _timed(engine, prompts, tokens, every)
    tick("loading with ARM")
    with opened(folder, full, **options) as engine:
        tick("answering with ARM")
        on, on_seconds = _timed(engine, prompts, tokens, every)
        off, off_seconds = _timed(engine, prompts, tokens, none)
        mixed = _engine_answers(engine, prompts, tokens, [OFF if at % 2 else None for at in range(len(prompts))])
        ranks = reports(engine)
    return Check(
        model=model,
        settings=full,
        ranks=ranks,
        missing=_missing(ranks),
        changed=sum(plain != treated for plain, treated in zip(baseline.tokens, on.tokens, strict=True)),
        prompts=len(prompts),
        off_equal=off == baseline,
        mates_equal=mixed.tokens[1::2] == baseline.tokens[1::2],
        seconds={"baseline": base_seconds, "on": on_seconds, "off": off_seconds},
    )


def _timed(
    engine: "LLM", prompts: Sequence[str], tokens: int, extra_args: Sequence[ExtraArgs]
) -> tuple[EngineAnswers, float]:
    """The answers, and the median seconds per generated token."""
    answers = _engine_answers(engine, prompts, tokens, extra_args)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        _engine_answers(engine, prompts, tokens, extra_args)
        seconds.append(time.perf_counter() - start)
    return answers, median(seconds) / sum(map(len, answers.tokens))


def _engine_answers(
    engine: "LLM", prompts: Sequence[str], tokens: int, extra_args: Sequence[ExtraArgs]
) -> EngineAnswers:
    from vllm import SamplingParams

    greedy = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True, "logprobs": 0}
    params = [SamplingParams(**greedy, extra_args=asked) for asked in extra_args]
    outputs = [output.outputs[0] for output in run_prompts(engine, prompts, params)]
    logprobs = [token_logprobs(output.token_ids, output.logprobs) for output in outputs]
    return EngineAnswers([list(output.token_ids) for output in outputs], logprobs)


def _most_positions(folder: str) -> int:
    """`MOST_POSITIONS`, or the model's own limit where that is lower."""
    from transformers import AutoConfig

    text = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    return min(MOST_POSITIONS, getattr(text, "max_position_embeddings", MOST_POSITIONS))


def _missing(ranks: Sequence[RankReport]) -> list[int]:
    fired = {int(layer) for rank in ranks for layer, counts in rank["layers"].items() if counts["tokens"]}
    return sorted({layer for rank in ranks for layer in rank["asked"]} - fired)
