"""Wraps the functions of vLLM that ARM needs, once per process.

vLLM calls `wrap_vllm` in every process that it starts. The wrappers do nothing unless the engine is configured for ARM.
"""

# pyright: reportMissingImports=false

import sys
from collections.abc import Callable
from functools import partial, wraps
from pkgutil import resolve_name
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from armlet.integrations.vllm import settings
from armlet.integrations.vllm.offline import RankReport
from armlet.integrations.vllm.requests import ExtraArgs, check_request, request_salt
from armlet.integrations.vllm.serving import ARM_ATTRIBUTE, WorkerArm, joined_counts
from armlet.integrations.vllm.settings import SETTING_KEY
from armlet.redistribution.errors import ArgumentError, ArmletError

if TYPE_CHECKING:
    from vllm import PoolingParams, SamplingParams
    from vllm.config import ModelConfig, VllmConfig
    from vllm.engine.arg_utils import EngineArgs
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.v1.engine import EngineCoreRequest
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.worker.gpu_input_batch import CachedRequestState
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    from vllm.v1.worker.gpu_worker import Worker

    from armlet.integrations.vllm.conformity import RankClamps, RankTrial

WRAPPED = "_armlet_wrapped"

BEAM_SEARCH_REQUESTS = (
    "vllm.entrypoints.openai.chat_completion.protocol:ChatCompletionRequest",
    "vllm.entrypoints.openai.completion.protocol:CompletionRequest",
    "vllm.entrypoints.speech_to_text.transcription.protocol:TranscriptionRequest",
    "vllm.entrypoints.speech_to_text.translation.protocol:TranslationRequest",
)

Call = Callable[[], Any]
"""Calls the wrapped function with the arguments of this call."""


def wrap_vllm() -> None:
    """Wraps vLLM; the entry point `vllm.general_plugins`. Calling it twice is not an error."""
    functions = (
        ("vllm.triton_utils.dispatcher", "_rebind_kernels", _rebind_kernels),
        ("vllm.engine.arg_utils:EngineArgs", "create_engine_config", _create_config),
        ("vllm.config:VllmConfig", "use_v2_model_runner", _choose_runner),
        ("vllm.v1.engine.input_processor:InputProcessor", "_validate_params", _validate_params),
        ("vllm.v1.request:Request", "from_engine_core_request", _salt_request),
        ("vllm.model_executor.model_loader:BaseModelLoader", "load_model", _load_with_arm),
        ("vllm.v1.worker.gpu_worker:Worker", "load_model", _load_worker),
        ("vllm.v1.worker.gpu_model_runner:GPUModelRunner", "_model_forward", _run_forward),
        ("vllm.v1.worker.gpu_model_runner:GPUModelRunner", "_dummy_run", _run_dummy),
    )
    for owner, name, around in functions:
        _wrap(resolve_name(owner), name, around)
    for loader in _subclasses(resolve_name("vllm.model_executor.model_loader:BaseModelLoader")):
        if "load_model" in vars(loader):
            _wrap(loader, "load_model", _load_with_arm)
    worker = resolve_name("vllm.v1.worker.worker_base:WorkerBase")
    setattr(worker, f"{SETTING_KEY}_report", _report_rank)
    setattr(worker, f"{SETTING_KEY}_install", _install_in_rank)
    setattr(worker, f"{SETTING_KEY}_conform", _conform_rank)


def _wrap(owner: type | ModuleType, name: str, around: Callable[..., object]) -> None:
    """Replaces a method, class method, property or function by `around(call, *arguments)`."""
    attribute = vars(owner).get(name)
    if attribute is None:
        raise RuntimeError(f"armlet: this vLLM has no {owner.__name__}.{name}; armlet was built for 0.32")
    kind = type(attribute) if isinstance(attribute, property | classmethod) else None
    original: Any = getattr(attribute, "fget", None) or getattr(attribute, "__func__", attribute)
    if hasattr(original, WRAPPED):
        return

    @wraps(original)
    def wrapper(*args: object, **kwargs: object) -> object:
        return around(partial(original, *args, **kwargs), *args, **kwargs)

    setattr(wrapper, WRAPPED, True)
    setattr(owner, name, kind(wrapper) if kind else wrapper)


def _subclasses(owner: type) -> list[type]:
    return [descendant for child in owner.__subclasses__() for descendant in (child, *_subclasses(child))]


def _rebind_kernels(call: Call, _overrides: object) -> None:
    """Hides llvmlite from vLLM's search through all modules, which fails at llvmlite's library object.

    That object has every attribute. The search would fail in a process that has used numba, as ARM does on CPUs.
    """
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "llvmlite"}
    try:
        call()
    finally:
        sys.modules.update(hidden)


def _create_config(call: Call, arguments: "EngineArgs", *_: object, **__: object) -> "VllmConfig":
    given = arguments.additional_config
    arguments.additional_config = settings.resolve(given, arguments.model)
    if isinstance(given, dict) and SETTING_KEY not in given and settings.served(arguments.additional_config):
        _logger().warning(
            "armlet: using the armlet.json in the folder of the model, %s, as --additional-config names no setting; "
            "{'armlet': false} turns it off",
            arguments.model,
        )
    config = call()
    if engine := settings.served(config.additional_config):
        settings.check_config(config, {placement["policy"].name for placement in engine.placements})
        for request in BEAM_SEARCH_REQUESTS:  # imports the server's modules only for engines with ARM
            _wrap(resolve_name(request), "to_beam_search_params", _reject_beam_strength)
    return config


def _choose_runner(call: Call, config: "VllmConfig") -> bool:
    """Chooses runner V1, which allows code before each forward pass; V2, if the user set it, fails `check_config`."""
    import vllm.envs as envs

    uses_arm = isinstance(config.additional_config, dict) and SETTING_KEY in config.additional_config
    return call() if not uses_arm or envs.VLLM_USE_V2_MODEL_RUNNER else False


def _validate_params(
    call: Call, processor: "InputProcessor", params: "SamplingParams | PoolingParams", *_: object, **__: object
) -> object:
    from vllm.exceptions import VLLMValidationError

    try:
        extra_args = getattr(params, "extra_args", getattr(params, "extra_kwargs", None))
        check_request(extra_args, processor.vllm_config.additional_config)
    except ArgumentError as error:
        raise VLLMValidationError(str(error)) from error  # the server responds with status 400
    return call()


def _reject_beam_strength(call: Call, request: "CompletionRequest", *_: object, **__: object) -> object:
    from vllm.exceptions import VLLMValidationError

    if SETTING_KEY in (request.vllm_xargs or {}):
        raise VLLMValidationError(
            f"vllm_xargs: {SETTING_KEY} is set, but vLLM's beam search drops it: beams run as the engine is configured"
        )
    return call()


def _extra_args(request: "EngineCoreRequest | CachedRequestState") -> ExtraArgs:
    """Returns `extra_args` of a generation request, or `extra_kwargs` of a pooling request."""
    pooling = request.pooling_params
    return getattr(request.sampling_params, "extra_args", None) if pooling is None else pooling.extra_kwargs


def _salt_request(call: Call, _cls: type, request: "EngineCoreRequest", *_: object, **__: object) -> object:
    request.cache_salt = request_salt(request.cache_salt, _extra_args(request))
    return call()


def _load_with_arm(
    call: Call, _loader: object, vllm_config: "VllmConfig", model_config: "ModelConfig", *_: object, **__: object
) -> nn.Module:
    model = call()
    engine = settings.served(vllm_config.additional_config)
    if not engine or _is_draft(vllm_config, model_config) or hasattr(model, ARM_ATTRIBUTE):
        return model
    max_tokens = vllm_config.scheduler_config.max_num_batched_tokens
    worker_arm = WorkerArm(model, engine, max_tokens, vllm_config.device_config.device)
    setattr(model, ARM_ATTRIBUTE, worker_arm)
    for name, placements in engine.settings.items():
        policies = ", ".join(str(placement["policy"]) for placement in placements)
        named = "" if name == settings.ON else f"{name}: "
        _logger().info("armlet: %s%s in layers %s on this rank", named, policies, list(worker_arm.report()[name]))
    return model


def _logger() -> Any:
    from vllm.logger import init_logger

    return init_logger(f"vllm.plugins.{SETTING_KEY}")


def _is_draft(vllm_config: "VllmConfig", model_config: "ModelConfig") -> bool:
    """Whether this is a draft model; speculative decoding without a draft model has the target's configuration."""
    speculative = vllm_config.speculative_config
    draft, target = (getattr(speculative, f"{role}_model_config", None) for role in ("draft", "target"))
    return model_config is draft and draft is not target


def _load_worker(call: Call, worker: "Worker", *_: object, **__: object) -> object:
    result = call()
    if settings.served(worker.vllm_config.additional_config) and _worker_arm(worker.model_runner) is None:
        raise ArgumentError(
            f"ARM is not in the model: armlet does not know the loader of load_format "
            f"{worker.vllm_config.load_config.load_format!r}; its load_model must call the load_model of vLLM's "
            "BaseModelLoader"
        )
    return result


def _worker_arm(runner: "GPUModelRunner") -> WorkerArm | None:
    return getattr(runner.get_model(), ARM_ATTRIBUTE, None)


def _run_forward(
    call: Call, runner: "GPUModelRunner", _ids: object = None, positions: Tensor | None = None, *_: object, **__: object
) -> object:
    worker_arm = _worker_arm(runner)
    if worker_arm is None:
        return call()
    if positions is None:
        raise ArmletError("vLLM runs the model without positions, on which ARM's noise depends")
    ids = runner.input_batch.req_ids
    starts = runner.query_start_loc.np[: len(ids) + 1]
    extra_args = [_extra_args(runner.requests[request]) for request in ids]
    worker_arm.set_inputs(positions, (starts[1:] - starts[:-1]).tolist(), extra_args)
    output = call()
    worker_arm.check_fired()
    return output


def _run_dummy(call: Call, runner: "GPUModelRunner", *_: object, **__: object) -> object:
    """Turns ARM off in a pass without requests (warm-up, capture, a rank without work), which is not counted."""
    if (worker_arm := _worker_arm(runner)) is not None:
        worker_arm.turn_off()
    return call()


def _report_rank(worker: "Worker") -> RankReport:
    """Returns the requested layers and the counts of the layers on this rank, for `collective_rpc`."""
    worker_arm = _worker_arm(worker.model_runner)
    requested, counts = (worker_arm.layers, worker_arm.report()) if worker_arm else ([], {})
    return {"rank": worker.rank, "asked": requested, "layers": joined_counts(counts), "settings": counts}


def _install_in_rank(worker: "Worker", entry: dict[str, object]) -> None:
    """Replaces this rank's ARM by other settings, for `collective_rpc`; the model must be eager."""
    model, config = worker.model_runner.get_model(), worker.vllm_config
    engine = settings.served({SETTING_KEY: entry})
    if (installed := _worker_arm(worker.model_runner)) is not None:
        installed.remove()
    if engine:
        max_tokens, device = config.scheduler_config.max_num_batched_tokens, config.device_config.device
        setattr(model, ARM_ATTRIBUTE, WorkerArm(model, engine, max_tokens, device))


def _conform_rank(worker: "Worker", clamps: "RankClamps") -> "list[RankTrial]":
    """Tries the clamps of the layers on this rank, for `collective_rpc`."""
    from armlet.integrations.vllm.conformity import conform_rank  # imports what a server does not need

    return conform_rank(worker, clamps)
