"""The places of vLLM that ARM needs, each wrapped once in each process.

vLLM calls `register` in every process it starts. Where the engine is not configured for ARM, each wrapper calls what it
wraps and does nothing else.
"""

# vLLM has an environment of its own, and no types to check against in this one.
# pyright: reportMissingImports=false

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from armlet.integrations.vllm.refusals import refuse
from armlet.integrations.vllm.serving import ATTRIBUTE, Serving
from armlet.integrations.vllm.settings import KEY, check_request, configured, resolve, salted
from armlet.redistribution.errors import ArgumentError

WRAPPED = "_armlet_wrapped"


def register() -> None:
    """Wraps vLLM; the entry point `vllm.general_plugins`. Twice is no error."""
    from vllm.config import VllmConfig
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader import BaseModelLoader
    from vllm.triton_utils import dispatcher
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.request import Request
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    from vllm.v1.worker.gpu_worker import Worker
    from vllm.v1.worker.worker_base import WorkerBase

    _wrap(dispatcher, "_rebind_kernels", _rebind)
    _wrap(EngineArgs, "create_engine_config", _configure)
    _wrap(VllmConfig, "use_v2_model_runner", _choose_runner)
    _wrap(InputProcessor, "_validate_params", _validate)
    _wrap(Request, "from_engine_core_request", _salt)
    _wrap(BaseModelLoader, "load_model", _load)
    for loader in _subclasses(BaseModelLoader):
        if "load_model" in vars(loader):
            _wrap(loader, "load_model", _load)
    _wrap(Worker, "load_model", _loaded)
    _wrap(GPUModelRunner, "_model_forward", _forward)
    _wrap(GPUModelRunner, "_dummy_run", _dummy)
    setattr(WorkerBase, f"{KEY}_report", _report)


def _wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replaces a method, class method, property or a module's function by `around(original, first argument, …)`."""
    found = owner.__dict__.get(name)
    if found is None:
        raise RuntimeError(f"armlet: this vLLM has no {owner.__name__}.{name}; it was built for 0.32")
    kind = type(found) if isinstance(found, property | classmethod) else None
    original: Any = getattr(found, "fget", None) or getattr(found, "__func__", found)
    if hasattr(original, WRAPPED):
        return

    @wraps(original)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(original, self, *args, **kwargs)

    setattr(wrapper, WRAPPED, True)
    setattr(owner, name, kind(wrapper) if kind else wrapper)


def _subclasses(owner: type) -> list[type]:
    return [each for child in owner.__subclasses__() for each in (child, *_subclasses(child))]


def _rebind(original: Callable[..., Any], overrides: Any) -> Any:
    """vLLM's search through all modules fails at llvmlite's library object, which has an answer to any attribute.

    It would fail in a process that has used numba before, as ARM on the CPU does.
    """
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "llvmlite"}
    try:
        return original(overrides)
    finally:
        sys.modules.update(hidden)


def _configure(original: Callable[..., Any], arguments: Any, *args: Any, **kwargs: Any) -> Any:
    arguments.additional_config = resolve(arguments.additional_config, arguments.model)
    config = original(arguments, *args, **kwargs)
    if entry := configured(config.additional_config):
        refuse(config, entry["policy"].name)
        _wrap_beam_search()
    return config


def _choose_runner(original: Callable[..., bool], config: Any) -> bool:
    """Runner V1, which has one place before each forward pass; V2 where the user insists, for `refuse` to say so."""
    import vllm.envs as envs

    with_arm = isinstance(config.additional_config, dict) and KEY in config.additional_config
    return original(config) if not with_arm or envs.VLLM_USE_V2_MODEL_RUNNER else False


def _validate(original: Callable[..., Any], processor: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
    from vllm.exceptions import VLLMValidationError

    try:
        asked = getattr(params, "extra_args", getattr(params, "extra_kwargs", None))
        check_request(asked, processor.vllm_config.additional_config)
    except ArgumentError as error:
        raise VLLMValidationError(str(error)) from error  # what the server answers with 400
    return original(processor, params, *args, **kwargs)


def _wrap_beam_search() -> None:
    """Of the server; where no engine is configured with ARM, its modules are not even imported."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.speech_to_text.transcription.protocol import TranscriptionRequest
    from vllm.entrypoints.speech_to_text.translation.protocol import TranslationRequest

    for request in (ChatCompletionRequest, CompletionRequest, TranscriptionRequest, TranslationRequest):
        _wrap(request, "to_beam_search_params", _beam)


def _beam(original: Callable[..., Any], request: Any, *args: Any, **kwargs: Any) -> Any:
    from vllm.exceptions import VLLMValidationError

    if KEY in (request.vllm_xargs or {}):
        raise VLLMValidationError(
            f"vllm_xargs: {KEY} was given, and vLLM's beam search drops it: beams run as the engine is configured"
        )
    return original(request, *args, **kwargs)


def _asked(request: Any) -> Any:
    """What a request says of itself: `extra_args` where it generates, `extra_kwargs` where it pools."""
    pooling = request.pooling_params
    return getattr(request.sampling_params, "extra_args", None) if pooling is None else pooling.extra_kwargs


def _salt(original: Callable[..., Any], cls: type, request: Any, *args: Any, **kwargs: Any) -> Any:
    request.cache_salt = salted(request.cache_salt, _asked(request))
    return original(cls, request, *args, **kwargs)


def _load(
    original: Callable[..., Any], loader: Any, vllm_config: Any, model_config: Any, *args: Any, **kwargs: Any
) -> Any:
    from vllm.logger import init_logger

    model = original(loader, vllm_config, model_config, *args, **kwargs)
    arguments = configured(vllm_config.additional_config)
    if not arguments or _is_draft(vllm_config, model_config) or hasattr(model, ATTRIBUTE):
        return model
    most = vllm_config.scheduler_config.max_num_batched_tokens
    serving = Serving(model, arguments, most, vllm_config.device_config.device)
    setattr(model, ATTRIBUTE, serving)
    logger = init_logger(f"vllm.plugins.{KEY}")
    logger.info("armlet: %s in layers %s of this rank's part", serving.policy, list(serving.places))
    return model


def _loaded(original: Callable[..., Any], worker: Any, *args: Any, **kwargs: Any) -> Any:
    result = original(worker, *args, **kwargs)
    if configured(worker.vllm_config.additional_config) and _serving(worker.model_runner) is None:
        raise ArgumentError(
            f"ARM is not in the model: load_format {worker.vllm_config.load_config.load_format!r} has a loader that "
            "armlet does not know; let its load_model call that of vLLM's BaseModelLoader"
        )
    return result


def _serving(runner: Any) -> Serving | None:
    return getattr(runner.get_model(), ATTRIBUTE, None)


def _is_draft(vllm_config: Any, model_config: Any) -> bool:
    """Speculative decoding's draft model; without one, its configuration is that of the target."""
    speculative = vllm_config.speculative_config
    draft = getattr(speculative, "draft_model_config", None)
    return draft is not None and model_config is draft and draft is not speculative.target_model_config


def _forward(
    original: Callable[..., Any], runner: Any, input_ids: Any = None, positions: Any = None, *args: Any, **kwargs: Any
) -> Any:
    serving = _serving(runner)
    if serving is None:
        return original(runner, input_ids, positions, *args, **kwargs)
    ids = runner.input_batch.req_ids
    starts = runner.query_start_loc.np[: len(ids) + 1]
    serving.feed(positions, starts[1:] - starts[:-1], [_asked(runner.requests[each]) for each in ids])
    output = original(runner, input_ids, positions, *args, **kwargs)
    serving.prove()
    return output


def _dummy(original: Callable[..., Any], runner: Any, *args: Any, **kwargs: Any) -> Any:
    """A pass for no request (warm-up, capture, an idle rank beside a busy one) is neither treated nor counted."""
    if (serving := _serving(runner)) is not None:
        serving.strengths.zero_()
    return original(runner, *args, **kwargs)


def _report(worker: Any) -> dict[str, Any]:
    """Where ARM is on this rank and what it did, for `collective_rpc`."""
    serving = _serving(worker.model_runner)
    return {"rank": worker.rank, **(serving.report() if serving else {"asked": [], "layers": {}})}
