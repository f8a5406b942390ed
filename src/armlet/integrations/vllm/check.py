"""Checks that ARM acts in vLLM: runs the same prompts through the model without ARM and with it."""

# pyright: reportMissingImports=false

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

from armlet.checkpoints.identity import model_folder
from armlet.integrations.vllm.offline import UNTREATED, RankReport, open_llm, reports, run_prompts, token_logprobs
from armlet.integrations.vllm.requests import ExtraArgs
from armlet.integrations.vllm.settings import full_setting
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from vllm import LLM

REPEATS = 5  # timed runs of each engine, after one to warm up
SMALL_CACHE = {"kv_cache_memory_bytes": 2**30, "enable_prefix_caching": False}  # options of both engines
MAX_POSITIONS = 1024  # most tokens of prompt and answer


class EngineAnswers(NamedTuple):
    """The tokens of each prompt's answer, and their log-probabilities."""

    tokens: list[list[int]]
    logprobs: list[list[float]]


@dataclass(frozen=True)
class Check:
    """The comparison of the engines without and with ARM."""

    model: str  # name of the model, as passed
    settings: dict[str, object]  # the content of an armlet.json
    ranks: list[RankReport]  # reports of the ranks after all requests
    missing: list[int]  # requested layers that are on no rank or received no tokens
    changed: int  # number of answers that ARM changes
    prompts: int  # number of prompts
    off_equal: bool  # with ARM turned off by requests, tokens and log-probabilities equal the baseline's bit for bit
    mates_equal: bool  # tokens of requests without ARM, batched with requests that use ARM, equal the baseline's
    seconds: dict[str, list[float]]  # seconds per generated token of each timed run: baseline, on, off

    @property
    def passed(self) -> bool:
        """Whether ARM acted in the requested layers and for the requested prompts, and only there."""
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
    memory: float | None,
    tick: Callable[[str], None],
) -> Check:
    """Loads the model without ARM and then with it, and runs the same prompts, at least two.

    `settings` are the content or the path of an armlet.json; `tokens` is the number of tokens per answer; `memory` is
    the share of a GPU's memory, in (0, 1], that vLLM wants to find free, None for its own default; `tick` is called
    with a description of each next step.

    Raises:
        ArgumentError: fewer than two prompts, or settings that vLLM does not support.
        EngineError: vLLM is not installed, or cannot load the model.
    """
    if len(prompts) < 2:
        raise ArgumentError(f"vllm-check: expected at least two prompts, with and without ARM, found {len(prompts)}")
    full, folder = full_setting(settings), str(model_folder(model))
    options = {"enforce_eager": eager, "tensor_parallel_size": tensor_parallel, "dtype": dtype}
    options |= {"max_model_len": _max_positions(folder)} | SMALL_CACHE
    options |= {} if memory is None else {"gpu_memory_utilization": memory}
    seconds: dict[str, list[float]] = {}
    tick("loading without ARM")
    with open_llm(folder, False, **options) as engine:
        tick("answering without ARM")
        baseline, seconds["baseline"] = _timed(engine, prompts, tokens, None)
    tick("loading with ARM")
    with open_llm(folder, full, **options) as engine:
        tick("answering with ARM")
        on, seconds["on"] = _timed(engine, prompts, tokens, None)
        off, seconds["off"] = _timed(engine, prompts, tokens, UNTREATED)
        mixed = _engine_answers(engine, prompts, tokens, None, UNTREATED)
        ranks = reports(engine)
    changed = sum(plain != treated for plain, treated in zip(baseline.tokens, on.tokens, strict=True))
    off_equal, mates_equal = off == baseline, mixed.tokens[1::2] == baseline.tokens[1::2]
    return Check(model, full, ranks, _missing(ranks), changed, len(prompts), off_equal, mates_equal, seconds)


def _timed(
    engine: "LLM", prompts: Sequence[str], tokens: int, extra_args: ExtraArgs
) -> tuple[EngineAnswers, list[float]]:
    """Returns the answers, and the seconds per generated token of each timed run."""
    answers = _engine_answers(engine, prompts, tokens, extra_args)
    generated = sum(map(len, answers.tokens))
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        _engine_answers(engine, prompts, tokens, extra_args)
        seconds.append((time.perf_counter() - start) / generated)
    return answers, seconds


def _engine_answers(engine: "LLM", prompts: Sequence[str], tokens: int, *extra_args: ExtraArgs) -> EngineAnswers:
    """Generates greedy answers; the prompts use the `extra_args` in turn."""
    from vllm import SamplingParams

    greedy = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True, "logprobs": 0}
    params = [SamplingParams(**greedy, extra_args=extra) for _, extra in zip(prompts, cycle(extra_args), strict=False)]
    outputs = [output.outputs[0] for output in run_prompts(engine, prompts, params)]
    logprobs = [token_logprobs(output.token_ids, output.logprobs) for output in outputs]
    return EngineAnswers([list(output.token_ids) for output in outputs], logprobs)


def _max_positions(folder: str) -> int:
    """Returns `MAX_POSITIONS`, or the model's limit if it is lower."""
    from transformers import AutoConfig

    text = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    return min(MAX_POSITIONS, getattr(text, "max_position_embeddings", MAX_POSITIONS))


def _missing(ranks: Sequence[RankReport]) -> list[int]:
    fired = {int(layer) for rank in ranks for layer, counts in rank["layers"].items() if counts["tokens"]}
    return sorted({layer for rank in ranks for layer in rank["asked"]} - fired)
