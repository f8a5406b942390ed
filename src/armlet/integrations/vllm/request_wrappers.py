"""What armlet does around vLLM's functions for requests, before these reach an engine."""

# pyright: reportMissingImports=false

from typing import TYPE_CHECKING

from armlet.integrations.vllm.requests import check_request, request_salt
from armlet.integrations.vllm.runners import extra_args_of
from armlet.integrations.vllm.settings import SETTING_KEY
from armlet.integrations.vllm.wrapping import Call
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from vllm import PoolingParams, SamplingParams
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.v1.engine import EngineCoreRequest
    from vllm.v1.engine.input_processor import InputProcessor


def check_parameters(
    call: Call, processor: "InputProcessor", params: "SamplingParams | PoolingParams", *_: object, **__: object
) -> object:
    """Refuses a request whose setting is wrong, or which this engine cannot serve."""
    from vllm.exceptions import VLLMValidationError

    try:
        extra_args = getattr(params, "extra_args", getattr(params, "extra_kwargs", None))
        check_request(extra_args, processor.vllm_config.additional_config)
    except ArgumentError as error:
        raise VLLMValidationError(str(error)) from error  # the server responds with status 400
    return call()


def reject_beam_strength(call: Call, request: "CompletionRequest", *_: object, **__: object) -> object:
    """Refuses a beam search over HTTP whose setting vLLM would drop."""
    from vllm.exceptions import VLLMValidationError

    if SETTING_KEY in (request.vllm_xargs or {}):
        raise VLLMValidationError(
            f"vllm_xargs: {SETTING_KEY} is set, but vLLM's beam search drops it: beams run as the engine is configured"
        )
    return call()


def salt_request(call: Call, _cls: type, request: "EngineCoreRequest", *_: object, **__: object) -> object:
    """Makes what a request asks of ARM part of its cache salt; a session has a salt of its own.

    vLLM keeps that when the session goes on, although its next part may ask for something else.
    """
    extra_args = extra_args_of(request)
    session = request.request_id if request.resumable else None
    request.cache_salt = request_salt(request.cache_salt, extra_args, session)
    return call()
