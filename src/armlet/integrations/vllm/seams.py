"""The places of vLLM that ARM needs, each wrapped once in each process.

vLLM calls `register` in every process it starts. Where the engine is not configured for ARM, each wrapper calls what it
wraps and does nothing else.
"""

# vLLM has an environment of its own, and no types to check against in this one.
# pyright: reportMissingImports=false

from collections.abc import Callable
from functools import wraps
from typing import Any

from armlet.integrations.vllm.serving import ATTRIBUTE, Serving
from armlet.integrations.vllm.settings import KEY, check_request, configured, resolve, salted
from armlet.redistribution.errors import ArgumentError

WRAPPED = "_armlet_wrapped"


def register() -> None:
    """Wraps vLLM; the entry point `vllm.general_plugins`. Twice is no error."""
    from vllm.config import VllmConfig
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader import BaseModelLoader
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.request import Request
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    from vllm.v1.worker.worker_base import WorkerBase

    _wrap(EngineArgs, "create_engine_config", _configure)
    _wrap(VllmConfig, "use_v2_model_runner", _choose_runner)
    _wrap(InputProcessor, "_validate_params", _validate)
    _wrap(Request, "from_engine_core_request", _salt)
    _wrap(BaseModelLoader, "load_model", _load)
    for loader in _subclasses(BaseModelLoader):
        if "load_model" in vars(loader):
            _wrap(loader, "load_model", _load)
    _wrap(GPUModelRunner, "_model_forward", _forward)
    setattr(WorkerBase, f"{KEY}_report", _report)


def _wrap(owner: type, name: str, around: Callable[..., Any]) -> None:
    """Replaces a method, class method or property by `around(original, self, …)`."""
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


def _configure(original: Callable[..., Any], arguments: Any, *args: Any, **kwargs: Any) -> Any:
    arguments.additional_config = resolve(arguments.additional_config, arguments.model)
    config = original(arguments, *args, **kwargs)
    if entry := configured(config.additional_config):
        refuse(config, entry["policy"].name)
    return config


def refuse(config: Any, policy: str) -> None:
    """Refuses what would give wrong tokens, or no ARM at all, without a word.

    Raises:
        ArgumentError: says what, and why.
    """
    from vllm.platforms import current_platform

    parallel, platform = config.parallel_config, current_platform
    reasons = {
        "KV of another instance may be one without ARM (kv_transfer_config)": config.kv_transfer_config,
        "overlapping microbatches share one table of positions (enable_dbo)": parallel.enable_dbo,
        "a prompt split over ranks has other positions on each (prefill_context_parallel_size)": (
            parallel.prefill_context_parallel_size > 1
        ),
        "tokens split over ranks have other positions on each (sequence-parallel mixture of experts)": (
            parallel.use_sequence_parallel_moe
        ),
        "Outward's noise needs one position for each token, and this model has three (M-RoPE)": (
            policy == "outward" and config.model_config.uses_mrope
        ),
        "armlet feeds vLLM's model runner V1 (unset VLLM_USE_V2_MODEL_RUNNER)": config.use_v2_model_runner,
        f"vLLM's model runner for {platform.device_name} is one of its own": not (
            platform.is_cpu() or platform.is_cuda_alike() or platform.is_xpu()
        ),
    }
    for reason, applies in reasons.items():
        if applies:
            raise ArgumentError(f"ARM cannot be served so: {reason}")


def _choose_runner(original: Callable[..., bool], config: Any) -> bool:
    """Runner V1, which has one place before each forward pass; V2 where the user insists, for `refuse` to say so."""
    import vllm.envs as envs

    with_arm = isinstance(config.additional_config, dict) and KEY in config.additional_config
    return original(config) if not with_arm or envs.VLLM_USE_V2_MODEL_RUNNER else False


def _validate(original: Callable[..., Any], processor: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
    from vllm.exceptions import VLLMValidationError

    try:
        check_request(getattr(params, "extra_args", None), processor.vllm_config.additional_config)
    except ArgumentError as error:
        raise VLLMValidationError(str(error)) from error  # what the server answers with 400
    return original(processor, params, *args, **kwargs)


def _salt(original: Callable[..., Any], cls: type, request: Any, *args: Any, **kwargs: Any) -> Any:
    request.cache_salt = salted(request.cache_salt, getattr(request.sampling_params, "extra_args", None))
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


def _is_draft(vllm_config: Any, model_config: Any) -> bool:
    """Speculative decoding's draft model; without one, its configuration is that of the target."""
    speculative = vllm_config.speculative_config
    draft = getattr(speculative, "draft_model_config", None)
    return draft is not None and model_config is draft and draft is not speculative.target_model_config


def _forward(
    original: Callable[..., Any], runner: Any, input_ids: Any = None, positions: Any = None, *args: Any, **kwargs: Any
) -> Any:
    serving = getattr(runner.get_model(), ATTRIBUTE, None)
    if serving is not None:
        ids = runner.input_batch.req_ids
        starts = runner.query_start_loc.np[: len(ids) + 1]
        params = [runner.requests[each].sampling_params for each in ids]
        serving.feed(positions, starts[1:] - starts[:-1], [getattr(each, "extra_args", None) for each in params])
    return original(runner, input_ids, positions, *args, **kwargs)


def _report(worker: Any) -> dict[str, Any]:
    """Where ARM is on this rank and what it did, for `collective_rpc`."""
    serving = getattr(worker.model_runner.get_model(), ATTRIBUTE, None)
    return {"rank": worker.rank, **(serving.report() if serving else {"asked": [], "layers": {}})}
