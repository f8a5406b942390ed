"""vLLM's offline engine: opened with ARM or without, asked, and closed again."""

# pyright: reportMissingImports=false

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypedDict

from armlet.integrations.vllm.settings import SETTING_KEY
from armlet.redistribution.errors import ArmletError

if TYPE_CHECKING:
    from vllm import LLM, PromptType, RequestOutput, SamplingParams
    from vllm.logprobs import Logprob

ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout is for the result
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine's errors are raised here, and Ctrl-C arrives once
}
"""Environment variables, where the user has not set them."""

CPU_CACHE = 2**31  # bytes of keys and values on a CPU, where vLLM would take nearly all of the memory
OFF: dict[str, object] = {SETTING_KEY: "off"}  # a request's `extra_args` without ARM

LayerCounts = dict[str, int | float]
"""calls, tokens, moved, share_moved, passed: of one layer, as in `ARM.report`."""


class RankReport(TypedDict):
    """What ARM did on one rank: the layers `asked` for, and the counts of those `layers` that are on it."""

    rank: int
    asked: list[int]
    layers: dict[str, LayerCounts]


class EngineError(ArmletError, RuntimeError):
    """vLLM is not installed, it cannot load the model, or it refuses a request."""


@contextmanager
def opened(model: str, settings: object, **options: object) -> "Iterator[LLM]":
    """A `vllm.LLM` of a folder; at the end of the block its processes end, and its memory in this one is free again.

    `settings` are the content of an armlet.json, or False for no ARM, even where the folder has such a file.

    Raises:
        EngineError: vLLM is not installed, or cannot load the model.
        ArmletError: ARM cannot be served with these settings.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        from vllm import LLM
        from vllm.distributed import cleanup_dist_env_and_memory
        from vllm.platforms import current_platform
    except ImportError as error:
        raise EngineError(
            f"vLLM is not installed in this environment ({error}): pip install '.[vllm]' in the checkout, in vLLM's own"
        ) from error
    defaults = {"kv_cache_memory_bytes": CPU_CACHE} if current_platform.is_cpu() else {}
    arguments: dict = {"use_tqdm_on_load": False} | defaults | options
    try:
        engine = LLM(model, additional_config={SETTING_KEY: settings}, **arguments)
    except ArmletError:
        raise
    except Exception as error:  # whatever stops an engine, in this process or in its own
        raise EngineError(f"{model}: vLLM cannot load it ({type(error).__name__}: {error})") from error
    try:
        yield engine
    finally:
        engine.llm_engine.engine_core.shutdown()
        cleanup_dist_env_and_memory()


def run_prompts(
    engine: "LLM", prompts: "Sequence[PromptType]", params: "Sequence[SamplingParams]"
) -> "list[RequestOutput]":
    """The engine's outputs for prompts, texts or `{"prompt_token_ids": ids}`, in their order.

    Raises:
        EngineError: it refuses one, such as a prompt that is too long.
    """
    from vllm.exceptions import VLLMError

    try:
        return engine.generate(list(prompts), list(params), use_tqdm=False)
    except (VLLMError, ValueError) as error:
        raise EngineError(f"vLLM does not take the request ({error})") from error


def token_logprobs(tokens: Sequence[int], steps: "Sequence[dict[int, Logprob] | None] | None") -> list[float]:
    """The log-probability of each token, from those of each step, which vLLM returns where a request asks for them.

    Raises:
        EngineError: it returned none.
    """
    known = [step for step in steps or [] if step is not None]
    if len(known) != len(tokens):
        raise EngineError(f"vLLM returned log-probabilities for {len(known)} of {len(tokens)} tokens")
    return [step[token].logprob for token, step in zip(tokens, known, strict=True)]


def reports(engine: "LLM") -> list[RankReport]:
    """What ARM did so far, rank by rank."""
    return engine.collective_rpc(f"{SETTING_KEY}_report")
