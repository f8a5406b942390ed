"""The functions of vLLM that armlet wraps, each with what its wrapper needs of vLLM.

vLLM calls `wrap_vllm` in every process that it starts. In an engine without ARM, the wrappers refuse requests that ask
for it, and put the cache salt of a request or session in other words; they do nothing else, and what such an engine
does not need is neither wrapped nor imported. An engine with ARM is refused if this vLLM lacks anything of what `SEAMS`
lists for it.
"""

# pyright: reportMissingImports=false

import sys
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from armlet.integrations.vllm import expert_sites, request_wrappers, runners, settings
from armlet.integrations.vllm.settings import SETTING_KEY
from armlet.integrations.vllm.wrapping import (
    WRAPPED,
    Call,
    Seam,
    missing_in_vllm,
    plugin_logger,
    wrap_function,
    wrap_seams,
)
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.worker.gpu_worker import Worker

RUN_WITH, READ_FOR = "0.32.0", "0.33.0"
"""Versions of vLLM that armlet was run with, and whose source was read: see docs/reference/vllm_versions.md."""


def wrap_vllm() -> None:
    """Wraps vLLM; the entry point `vllm.general_plugins`. Calling it twice is not an error."""
    wrap_seams(SEAMS["repair"])
    missing = wrap_seams(SEAMS["engine"])
    configured = SEAMS["engine"][0]
    if set(configured.needs) & set(missing):
        raise RuntimeError(
            f"armlet: {_lacks(missing)}: it cannot see which engines use ARM; VLLM_PLUGINS='' loads vLLM without it"
        )
    if missing:
        plugin_logger().warning("armlet: %s: engines with ARM are refused", _lacks(missing))
        return
    for loader in _loaders():
        wrap_function(loader, "load_model", runners.load_with_arm)
    worker = resolve_name("vllm.v1.worker.worker_base:WorkerBase")
    setattr(worker, f"{SETTING_KEY}_report", runners.report_rank)
    setattr(worker, f"{SETTING_KEY}_install", _install_in_rank)
    setattr(worker, f"{SETTING_KEY}_conform", runners.conform_rank_of)


def _lacks(missing: list[str]) -> str:
    import vllm

    return (
        f"this vLLM, {vllm.__version__}, does not have {', '.join(missing)}, which armlet needs; "
        f"it was run with {RUN_WITH} and read for {READ_FOR}"
    )


def _refuse(missing: list[str]) -> None:
    if missing:
        raise ArgumentError(f"{SETTING_KEY}: expected a vLLM that ARM can run in: {_lacks(missing)}")


def _loaders() -> list[type]:
    """The loaders of vLLM with a `load_model` of their own."""
    descendants = [resolve_name("vllm.model_executor.model_loader:BaseModelLoader")]
    for loader in descendants:  # grows
        descendants += loader.__subclasses__()
    return [loader for loader in descendants if "load_model" in vars(loader)]


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
        plugin_logger().warning(
            "armlet: using the armlet.json in the folder of the model, %s, as --additional-config names no setting; "
            "{'armlet': false} turns it off",
            arguments.model,
        )
    config = call()
    if engine := settings.served(config.additional_config):
        _refuse(wrap_seams(SEAMS["engine"]) + wrap_seams(SEAMS["engine with ARM"]))
        settings.check_config(config, engine)
        _refuse(missing_in_vllm(SEAMS[_runner(config)]))
    return config


def _load_worker(call: Call, worker: "Worker", *_: object, **__: object) -> object:
    uses_arm = bool(settings.served(worker.vllm_config.additional_config))
    if uses_arm:
        _refuse(wrap_seams(SEAMS["engine"]) + _wrap_runner(worker))
    result = call()
    if uses_arm and runners.worker_arm_of(worker.model_runner) is None:
        raise ArgumentError(
            f"ARM is not in the model: armlet does not know the loader of load_format "
            f"{worker.vllm_config.load_config.load_format!r}; its load_model must call the load_model of vLLM's "
            "BaseModelLoader"
        )
    return result


def _install_in_rank(worker: "Worker", additional_config: dict[str, object]) -> None:
    engine = settings.served(additional_config)
    if engine:  # the engine may have started without ARM
        _refuse(wrap_seams(SEAMS["engine"]) + _wrap_runner(worker))
    runners.install_in_rank(worker, engine)


def _wrap_runner(worker: "Worker") -> list[str]:
    """Wraps the class of a worker's model runner; returns what this vLLM lacks."""
    seams = SEAMS[_runner(worker.vllm_config)]
    missing, runner = wrap_seams(seams), type(worker.model_runner)
    if not missing and not hasattr(getattr(runner, seams[0].name, None), WRAPPED):
        raise ArgumentError(f"{SETTING_KEY}: expected a model runner of vLLM that armlet knows, found {runner}")
    return missing


def _runner(config: "VllmConfig") -> str:
    return "runner V2" if config.use_v2_model_runner else "runner V1"


def _of(owner: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{owner}.{name}" for name in names)


CONFIG = "vllm.config.vllm:VllmConfig"
SPECULATIVE = "vllm.config.speculative:SpeculativeConfig"
LINEAR = "vllm.model_executor.layers.linear"
ACTIVATION = "vllm.model_executor.layers.activation"
RUNNER_V1 = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
RUNNER_V2 = "vllm.v1.worker.gpu.model_runner:GPUModelRunner"
REQUEST = ("sampling_params", "pooling_params")
BEAM_SEARCH_REQUESTS = (
    "vllm.entrypoints.openai.chat_completion.protocol:ChatCompletionRequest",
    "vllm.entrypoints.openai.completion.protocol:CompletionRequest",
    "vllm.entrypoints.speech_to_text.transcription.protocol:TranscriptionRequest",
    "vllm.entrypoints.speech_to_text.translation.protocol:TranslationRequest",
)

SEAMS: dict[str, tuple[Seam, ...]] = {
    # In every process; a vLLM without this function needs no repair.
    "repair": (Seam("vllm.triton_utils.dispatcher:_rebind_kernels(overrides)", _rebind_kernels),),
    # In every process; the first tells `wrap_vllm` which engines have ARM.
    "engine": (
        Seam(
            "vllm.engine.arg_utils:EngineArgs.create_engine_config",
            _create_config,
            (*_of("vllm.engine.arg_utils:EngineArgs", "additional_config", "model"), f"{CONFIG}.additional_config"),
        ),
        Seam(
            "vllm.v1.engine.input_processor:InputProcessor._validate_params(params)",
            request_wrappers.check_parameters,
            (
                "vllm.v1.engine.input_processor:InputProcessor.vllm_config",
                "vllm.sampling_params:SamplingParams.extra_args",
                "vllm.pooling_params:PoolingParams.extra_kwargs",
                "vllm.exceptions:VLLMValidationError",
            ),
        ),
        Seam(
            "vllm.v1.request:Request.from_engine_core_request(request)",
            request_wrappers.salt_request,
            _of("vllm.v1.engine:EngineCoreRequest", "cache_salt", "request_id", "resumable", *REQUEST),
        ),
        Seam(
            "vllm.model_executor.model_loader.base_loader:BaseModelLoader.load_model(vllm_config, model_config)",
            runners.load_with_arm,
            (
                *_of(CONFIG, "scheduler_config", "device_config", "speculative_config"),
                *_of(SPECULATIVE, "draft_model_config", "target_model_config"),
                "vllm.config.scheduler:SchedulerConfig.max_num_batched_tokens",
                "vllm.config.device:DeviceConfig.device",
                "vllm.model_executor.models.utils:PPMissingLayer",
                f"{LINEAR}:MergedColumnParallelLinear.output_sizes",
                *_of(f"{LINEAR}:ColumnParallelLinear", "tp_rank", "tp_size"),
                f"{ACTIVATION}:SiluAndMul",
                f"{ACTIVATION}:GeluAndMul.approximate",
                "vllm.distributed.communication_op:tensor_model_parallel_all_gather(input_, dim)",
            ),
        ),
        Seam(
            "vllm.v1.worker.gpu_worker:Worker.load_model",
            _load_worker,
            _of("vllm.v1.worker.worker_base:WorkerBase", "vllm_config", "model_runner", "rank"),
        ),
    ),
    # In the process that configures an engine with ARM.
    "engine with ARM": (
        Seam(
            f"{CONFIG}.use_v2_model_runner",
            None,
            (
                *_of(CONFIG, "cache_config", "parallel_config", "model_config", "kv_transfer_config"),
                *_of("vllm.config.parallel:ParallelConfig", "enable_dbo", "ubatch_size"),
                *_of(
                    "vllm.config.parallel:ParallelConfig", "prefill_context_parallel_size", "use_sequence_parallel_moe"
                ),
                f"{SPECULATIVE}.enable_adaptive_verification",
                "vllm.config.cache:CacheConfig.kv_sharing_fast_prefill",
                "vllm.config.model:ModelConfig.uses_mrope",
                *_of("vllm.platforms.interface:Platform", "is_cpu", "is_cuda_alike", "is_xpu", "device_name"),
            ),
        ),
        *(
            Seam(f"{request}.to_beam_search_params", request_wrappers.reject_beam_strength, (f"{request}.vllm_xargs",))
            for request in BEAM_SEARCH_REQUESTS
        ),
    ),
    # In a worker with ARM; the first is part of every step, and shows whether armlet knows the runner.
    "runner V1": (
        Seam(
            f"{RUNNER_V1}._model_forward(input_ids, positions)",
            runners.run_forward,
            (
                *_of(RUNNER_V1, "get_model", "input_batch", "query_start_loc", "requests"),
                "vllm.v1.worker.gpu_input_batch:InputBatch.req_ids",
                *_of("vllm.v1.worker.gpu_input_batch:CachedRequestState", *REQUEST),
                "vllm.v1.utils:CpuGpuBuffer.np",
            ),
        ),
        Seam(f"{RUNNER_V1}._dummy_run", runners.run_dummy),
    ),
    # For a layer with a mixture of experts; nothing is wrapped, `expert_sites` checks it.
    "mixture": (Seam(expert_sites.NEEDED[0], None, expert_sites.NEEDED[1:]),),
    "runner V2": (
        Seam(
            f"{RUNNER_V2}.prepare_inputs",
            runners.fill_batch,
            (
                f"{RUNNER_V2}.get_model",
                *_of("vllm.v1.worker.gpu.input_batch:InputBatch", "req_ids", "num_scheduled_tokens", "positions"),
            ),
        ),
        Seam(
            f"{RUNNER_V2}.add_requests(scheduler_output)",
            runners.keep_requests,
            (
                *_of("vllm.v1.core.sched.output:SchedulerOutput", "scheduled_new_reqs", "finished_req_ids"),
                *_of("vllm.v1.core.sched.output:NewRequestData", "req_id", *REQUEST),
            ),
        ),
        Seam(f"{RUNNER_V2}.execute_model", runners.run_step),
        Seam(f"{RUNNER_V2}._dummy_run", runners.run_dummy),
        Seam(f"{RUNNER_V2}.capture_model", runners.run_dummy),
        Seam("vllm.v1.worker.gpu_worker:Worker.compile_or_warm_up_model", runners.warm_up),
    ),
}
"""By when they are needed."""
