"""vLLM's offline engine: opened with ARM or without, and closed again."""

import os
from typing import Any

from armlet.integrations.vllm.settings import KEY
from armlet.redistribution.errors import ArmletError

# vLLM has an environment of its own, and no types to check against in this one.
# pyright: reportMissingImports=false

QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_LOGGING_STREAM": "ext://sys.stderr"}
"""Where the user did not say otherwise: stdout is the result's."""

OFF = {KEY: "off"}
"""A request's `extra_args` without ARM."""


class EngineError(ArmletError, RuntimeError):
    """vLLM is not there, the model cannot be loaded in it, or it does not take a request."""


def open_engine(model: str, settings: Any, **options: Any) -> Any:
    """A `vllm.LLM`.

    Args:
        model: a folder or hub id.
        settings: the content of an armlet.json; False for none, also where one lies in the model's folder.
        options: of `vllm.LLM`.

    Raises:
        EngineError: there is no vLLM, or it cannot load the model.
        ArmletError: ARM cannot be served so.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        from vllm import LLM
    except ImportError as error:
        raise EngineError(f"vLLM is not installed in this environment ({error})") from error
    try:
        return LLM(model, additional_config={KEY: settings}, **options)
    except ArmletError:
        raise
    except Exception as error:  # whatever stops an engine, in this process or in its own
        raise EngineError(f"{model}: vLLM cannot load it ({type(error).__name__}: {error})") from error


def close_engine(engine: Any) -> None:
    """Ends its processes."""
    engine.llm_engine.engine_core.shutdown()


def reports(engine: Any) -> list[dict[str, Any]]:
    """Of each rank: `rank`, the layers `asked` for, and `layers`: what ARM did so far in those that are on it."""
    return engine.collective_rpc(f"{KEY}_report")
