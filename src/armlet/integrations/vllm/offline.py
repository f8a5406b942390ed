"""Opens vLLM's offline engine with or without ARM, runs prompts, and closes it."""

# pyright: reportMissingImports=false

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypedDict

from armlet.integrations.vllm.settings import OFF, SETTING_KEY, check_config, full_entry, served
from armlet.redistribution.errors import ArgumentError, ArmletError

if TYPE_CHECKING:
    from vllm import LLM, PromptType, RequestOutput, SamplingParams
    from vllm.logprobs import Logprob

ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout is for the result
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine's errors are raised here, and Ctrl-C arrives once
}
"""Environment variables that are set unless the user has set them."""

CPU_CACHE = 2**31  # bytes of keys and values on a CPU, of which vLLM would otherwise use nearly all memory
UNTREATED: dict[str, object] = {SETTING_KEY: OFF}  # `extra_args` of a request without ARM

LayerCounts = dict[str, int | float]
"""calls, tokens, moved, share_moved and passed of one layer, as in `ARM.report`."""


class RankReport(TypedDict):
    """Report of one rank: the requested layers (`asked`), and the counts of this rank's layers.

    `settings` has the counts of each setting, by its name or "on", and `layers` those of all of them together.
    """

    rank: int
    asked: list[int]
    layers: dict[str, LayerCounts]
    settings: dict[str, dict[str, LayerCounts]]


class EngineError(ArmletError, RuntimeError):
    """vLLM is not installed, cannot load the model, or rejects a request.

    The message has vLLM's reason. Install armlet in vLLM's environment, or change `--engine-args` or the lengths.
    """


@contextmanager
def open_llm(model: str, settings: object, **options: object) -> "Iterator[LLM]":
    """Opens a `vllm.LLM` for a folder; the end of the block ends its processes and frees its memory in this one.

    `settings` are the content of an armlet.json, or False for no ARM, even if the folder contains such a file.

    Raises:
        EngineError: vLLM is not installed, or cannot load the model.
        ArmletError: vLLM does not support ARM with these settings.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        from vllm import LLM
        from vllm.distributed import cleanup_dist_env_and_memory
        from vllm.platforms import current_platform
    except ImportError as error:
        raise EngineError(
            f"vLLM is not installed in this environment ({error}): in the checkout, pip install '.[vllm]' into vLLM's"
        ) from error
    defaults = {"kv_cache_memory_bytes": CPU_CACHE} if current_platform.is_cpu() else {}
    arguments: dict[str, Any] = {"use_tqdm_on_load": False} | defaults | options
    try:
        engine = LLM(model, additional_config={SETTING_KEY: settings}, **arguments)
    except ArmletError:
        raise
    except Exception as error:  # any failure of the engine, in this process or its own
        raise EngineError(f"{model}: vLLM cannot load it ({type(error).__name__}: {error})") from error
    try:
        yield engine
    finally:
        engine.llm_engine.engine_core.shutdown()
        cleanup_dist_env_and_memory()


def run_prompts(
    engine: "LLM", prompts: "Sequence[PromptType]", params: "Sequence[SamplingParams]"
) -> "list[RequestOutput]":
    """Returns the engine's outputs for prompts, in order; a prompt is a text or `{"prompt_token_ids": ids}`.

    Raises EngineError if vLLM rejects a request, for example because a prompt is too long.
    """
    from vllm.exceptions import VLLMError

    try:
        return engine.generate(list(prompts), list(params), use_tqdm=False)
    except (VLLMError, ValueError) as error:
        raise EngineError(f"vLLM rejects the request ({error})") from error


def token_logprobs(tokens: Sequence[int], steps: "Sequence[dict[int, Logprob] | None] | None") -> list[float]:
    """Returns the log-probability of each token, given vLLM's log-probabilities of each step.

    Raises EngineError if the log-probabilities of a token are missing.
    """
    complete = [step for step in steps or [] if step is not None]
    if len(complete) != len(tokens):
        raise EngineError(f"vLLM returned log-probabilities for {len(complete)} of {len(tokens)} tokens")
    return [step[token].logprob for token, step in zip(tokens, complete, strict=True)]


def reports(engine: "LLM") -> list[RankReport]:
    """Returns the report of each rank so far."""
    return engine.collective_rpc(f"{SETTING_KEY}_report")


def install(engine: "LLM", entry: Mapping[str, object]) -> None:
    """Replaces ARM in an eager engine by other settings, an entry as in `full_entry`, with all counts at 0.

    Raises:
        ArgumentError: the engine is not eager (compiled code would keep the earlier settings), or cannot have these.
        EngineError: keys and values of the earlier settings cannot be dropped, because requests run.
        UnsupportedModelError: the model cannot have them. It then has the earlier ones, with counts at 0.
    """
    config = engine.llm_engine.vllm_config
    if not config.model_config.enforce_eager:
        raise ArgumentError('--engine-args: other settings need an eager engine: {"enforce_eager": true}')
    full = full_entry(entry)
    new, old = {SETTING_KEY: full}, {SETTING_KEY: config.additional_config.get(SETTING_KEY)}
    check_config(config, served(new))
    if not engine.reset_prefix_cache():
        raise EngineError(
            "vLLM cannot empty its prefix cache while requests run; install settings before or after them"
        )
    method = f"{SETTING_KEY}_install"
    try:
        engine.collective_rpc(method, args=(new,))
    except Exception:
        engine.collective_rpc(method, args=(old,))
        raise
    config.additional_config = {**config.additional_config, **new}
