"""Proof that ARM fires in vLLM: the same prompts through the model without it and with it."""

# pyright: reportMissingImports=false

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from armlet.checkpoints.identity import model_folder
from armlet.integrations.vllm.offline import OFF, RankReport, opened, reports, run_prompts, token_logprobs
from armlet.integrations.vllm.settings import ExtraArgs, full_setting
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from vllm import LLM

REPEATS = 5  # timed runs of each engine, after one that warms it up
FEW_REQUESTS = {"kv_cache_memory_bytes": 2**30, "enable_prefix_caching": False}  # options of both engines
MOST_POSITIONS = 1024  # tokens of prompt and answer


class EngineAnswers(NamedTuple):
    """The tokens of each prompt's answer, and their log-probabilities."""

    tokens: list[list[int]]
    logprobs: list[list[float]]


@dataclass(frozen=True)
class Check:
    """The comparison of both engines."""

    model: str  # as it was named
    settings: dict[str, object]  # the content of an armlet.json
    ranks: list[RankReport]  # of `armlet_report`, after all requests
    missing: list[int]  # layers that were asked for and are on no rank, or saw no token
    changed: int  # the number of answers that ARM changes
    prompts: int  # the number of prompts
    off_equal: bool  # with ARM off by request, tokens and log-probabilities are bit for bit the baseline's
    mates_equal: bool  # so are the tokens of requests without ARM in a batch with requests that have it
    seconds: dict[str, float]  # median seconds per generated token: baseline, on, off

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
    tokens: int,
    eager: bool,
    tensor_parallel: int,
    dtype: str,
    tick: Callable[[str], None],
) -> Check:
    """Loads the model twice, without ARM and then with it, and runs the same prompts, at least two.

    `settings` are the content or the name of an armlet.json, `tokens` those of each answer; `tick` is told what comes
    next.

    Raises:
        ArgumentError: fewer than two prompts, or settings that vLLM cannot serve.
        EngineError: vLLM is not installed, or cannot load the model.
    """
    if len(prompts) < 2:
        raise ArgumentError("vllm-check: two prompts are needed, one of them to stay without ARM beside the other")
    full, folder = full_setting(settings), str(model_folder(model))
    options = {"enforce_eager": eager, "tensor_parallel_size": tensor_parallel, "dtype": dtype}
    options |= {"max_model_len": _most_positions(folder)} | FEW_REQUESTS
    seconds: dict[str, float] = {}
    tick("loading without ARM")
    with opened(folder, False, **options) as engine:
        tick("answering without ARM")
        baseline, seconds["baseline"] = _timed(engine, prompts, tokens, None)
    tick("loading with ARM")
    with opened(folder, full, **options) as engine:
        tick("answering with ARM")
        on, seconds["on"] = _timed(engine, prompts, tokens, None)
        off, seconds["off"] = _timed(engine, prompts, tokens, OFF)
        mixed = _engine_answers(engine, prompts, tokens, None, OFF)
        ranks = reports(engine)
    changed = sum(plain != treated for plain, treated in zip(baseline.tokens, on.tokens, strict=True))
    off_equal, mates_equal = off == baseline, mixed.tokens[1::2] == baseline.tokens[1::2]
    return Check(model, full, ranks, _missing(ranks), changed, len(prompts), off_equal, mates_equal, seconds)


def _timed(engine: "LLM", prompts: Sequence[str], tokens: int, extra_args: ExtraArgs) -> tuple[EngineAnswers, float]:
    """The answers, and the median seconds per generated token."""
    answers = _engine_answers(engine, prompts, tokens, extra_args)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        _engine_answers(engine, prompts, tokens, extra_args)
        seconds.append(time.perf_counter() - start)
    return answers, median(seconds) / sum(map(len, answers.tokens))


def _engine_answers(engine: "LLM", prompts: Sequence[str], tokens: int, *extra_args: ExtraArgs) -> EngineAnswers:
    """Greedy answers; the prompts take turns at `extra_args`."""
    from vllm import SamplingParams

    greedy = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True, "logprobs": 0}
    params = [SamplingParams(**greedy, extra_args=asked) for _, asked in zip(prompts, cycle(extra_args), strict=False)]
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
