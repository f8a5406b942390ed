"""vLLM's offline engine: opened with ARM or without, and closed again."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from armlet.integrations.vllm.settings import KEY
from armlet.redistribution.errors import ArmletError

# vLLM has an environment of its own, and no types to check against in this one.
# pyright: reportMissingImports=false

USUAL = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout is the result's
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # an error of the engine's is raised here, and Ctrl-C arrives once
}
"""Of the environment, where the user did not say otherwise."""

CPU_CACHE = 2**31
"""Bytes of keys and values on a CPU, where vLLM would ask for nearly all of the memory."""

OFF = {KEY: "off"}
"""A request's `extra_args` without ARM."""


class EngineError(ArmletError, RuntimeError):
    """vLLM is not there, the model cannot be loaded in it, or it does not take a request."""


def open_engine(model: str, settings: Any, **options: Any) -> Any:
    """A `vllm.LLM`; end it with `close_engine`.

    Args:
        model: a folder.
        settings: the content of an armlet.json; False for none, also where one lies in the model's folder.
        options: of `vllm.LLM`.

    Raises:
        EngineError: there is no vLLM, or it cannot load the model.
        ArmletError: ARM cannot be served so.
    """
    for name, value in USUAL.items():
        os.environ.setdefault(name, value)
    try:
        from vllm import LLM
        from vllm.platforms import current_platform
    except ImportError as error:
        raise EngineError(
            f"vLLM is not installed in this environment ({error}): pip install '.[vllm]' in the checkout, in vLLM's own"
        ) from error
    usual = {"kv_cache_memory_bytes": CPU_CACHE} if current_platform.is_cpu() else {}
    usual |= {"use_tqdm_on_load": False}
    try:
        return LLM(model, additional_config={KEY: settings}, **usual | options)
    except ArmletError:
        raise
    except Exception as error:  # whatever stops an engine, in this process or in its own
        raise EngineError(f"{model}: vLLM cannot load it ({type(error).__name__}: {error})") from error


def close_engine(engine: Any) -> None:
    """Ends its processes, and frees what it holds in this one."""
    from vllm.distributed import cleanup_dist_env_and_memory

    engine.llm_engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()


@contextmanager
def opened(model: str, settings: Any, **options: Any) -> Iterator[Any]:
    """`open_engine` for the time of the block."""
    engine = open_engine(model, settings, **options)
    try:
        yield engine
    finally:
        close_engine(engine)


def generate(engine: Any, prompts: Sequence[Any], params: Sequence[Any]) -> list[Any]:
    """What the engine makes of prompts, texts or `{"prompt_token_ids": ids}`, in their order.

    Raises:
        EngineError: it does not take one, such as a prompt that is too long.
    """
    from vllm.exceptions import VLLMError

    try:
        return engine.generate(list(prompts), list(params), use_tqdm=False)
    except (VLLMError, ValueError) as error:
        raise EngineError(f"vLLM does not take the request ({error})") from error


def reports(engine: Any) -> list[dict[str, Any]]:
    """Of each rank: `rank`, the layers `asked` for, and `layers`: what ARM did so far in those that are on it."""
    return engine.collective_rpc(f"{KEY}_report")
