"""What a worker does around vLLM's model runners: each token's position and strength, before each forward pass.

Runner V1 stores its requests' parameters; runner V2 stores only what sampling needs, so they are kept here as
`KEPT_ATTRIBUTE`. A V2 runner fills its input buffers, whichever way it runs the model afterwards: call, graph replay.
"""

# pyright: reportMissingImports=false

from typing import TYPE_CHECKING

from torch import Tensor, nn

from armlet.integrations.vllm import settings
from armlet.integrations.vllm.offline import UNTREATED, RankReport
from armlet.integrations.vllm.requests import ExtraArgs
from armlet.integrations.vllm.serving import ARM_ATTRIBUTE, WorkerArm, joined_counts
from armlet.integrations.vllm.wrapping import Call, plugin_logger
from armlet.redistribution.errors import ArmletError

if TYPE_CHECKING:
    from vllm.config import ModelConfig, VllmConfig
    from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput
    from vllm.v1.engine import EngineCoreRequest
    from vllm.v1.worker.gpu.input_batch import InputBatch
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner as RunnerV2
    from vllm.v1.worker.gpu_input_batch import CachedRequestState
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    from vllm.v1.worker.gpu_worker import Worker

    from armlet.integrations.vllm.conformity import RankClamps, RankTrial

KEPT_ATTRIBUTE = "armlet_requests"  # of a V2 runner: the `extra_args` of its requests
WARM_UP_ATTRIBUTE = "armlet_warms_up"  # of a V2 runner: whether new requests are vLLM's own


def worker_arm_of(runner: "GPUModelRunner | RunnerV2") -> WorkerArm | None:
    """Returns ARM in a runner's model, None without."""
    return getattr(runner.get_model(), ARM_ATTRIBUTE, None)


def extra_args_of(request: "EngineCoreRequest | CachedRequestState | NewRequestData") -> ExtraArgs:
    """Returns `extra_args` of a generation request, or `extra_kwargs` of a pooling request."""
    pooling = request.pooling_params
    return getattr(request.sampling_params, "extra_args", None) if pooling is None else pooling.extra_kwargs


def load_with_arm(
    call: Call, _loader: object, vllm_config: "VllmConfig", model_config: "ModelConfig", *_: object, **__: object
) -> nn.Module:
    """Puts ARM into a model when its weights are loaded, before anything wraps, compiles or captures it."""
    model = call()
    engine = settings.served(vllm_config.additional_config)
    if not engine or _is_draft(vllm_config, model_config) or hasattr(model, ARM_ATTRIBUTE):
        return model
    max_tokens = vllm_config.scheduler_config.max_num_batched_tokens
    worker_arm = WorkerArm(model, engine, max_tokens, vllm_config.device_config.device)
    setattr(model, ARM_ATTRIBUTE, worker_arm)
    for name, layers in worker_arm.report().items():
        policies = ", ".join(str(placement["policy"]) for placement in engine.settings[name])
        named = "" if name == settings.ON else f"{name}: "
        plugin_logger().info("armlet: %s%s in layers %s on this rank", named, policies, [*map(int, layers)])
    if settings.ON not in engine.settings:
        default = "without ARM" if engine.default == settings.OFF else f"with {engine.default}"
        plugin_logger().info("armlet: requests that name no setting run %s", default)
    return model


def _is_draft(vllm_config: "VllmConfig", model_config: "ModelConfig") -> bool:
    """Whether this is a draft model; speculative decoding without a draft model has the target's configuration."""
    speculative = vllm_config.speculative_config
    draft, target = (getattr(speculative, f"{role}_model_config", None) for role in ("draft", "target"))
    return model_config is draft and draft is not target


def run_dummy(call: Call, runner: "GPUModelRunner | RunnerV2", *_: object, **__: object) -> object:
    """Turns ARM off in passes without requests (warm-up, capture, a rank without work), which are not counted."""
    if (worker_arm := worker_arm_of(runner)) is not None:
        worker_arm.turn_off()
    return call()


# --- V1 -------------------------------------------------------------------------------------------------------------


def run_forward(
    call: Call,
    runner: "GPUModelRunner",
    _ids: object = None,
    positions: Tensor | None = None,
    *_: object,
    **__: object,
) -> object:
    """Sets the inputs of ARM before V1 runs the model."""
    worker_arm = worker_arm_of(runner)
    if worker_arm is None:
        return call()
    if positions is None:
        raise ArmletError("vLLM runs the model without positions, on which ARM's noise depends")
    ids = runner.input_batch.req_ids
    starts = runner.query_start_loc.np[: len(ids) + 1]
    extra_args = [extra_args_of(runner.requests[request]) for request in ids]
    worker_arm.set_inputs(positions, (starts[1:] - starts[:-1]).tolist(), extra_args)
    output = call()
    worker_arm.check_fired()
    return output


# --- V2 -------------------------------------------------------------------------------------------------------------


def keep_requests(call: Call, runner: "RunnerV2", scheduled: "SchedulerOutput", *_: object, **__: object) -> object:
    """Keeps the parameters of new requests. A preempted request comes as new again."""
    output = call()
    if worker_arm_of(runner) is not None:
        kept: dict[str, ExtraArgs] = vars(runner).setdefault(KEPT_ATTRIBUTE, {})
        for finished in scheduled.finished_req_ids:
            kept.pop(finished, None)
        warms_up = getattr(runner, WARM_UP_ATTRIBUTE, False)
        for request in scheduled.scheduled_new_reqs:
            kept[request.req_id] = UNTREATED if warms_up else extra_args_of(request)
    return output


def fill_batch(call: Call, runner: "RunnerV2", *_: object, **__: object) -> "InputBatch":
    """Sets the inputs of ARM when V2 has filled its own input buffers."""
    batch: InputBatch = call()
    if (worker_arm := worker_arm_of(runner)) is not None:
        kept: dict[str, ExtraArgs] = getattr(runner, KEPT_ATTRIBUTE)
        extra_args = [kept[request] for request in batch.req_ids]
        worker_arm.set_inputs(batch.positions, batch.num_scheduled_tokens.tolist(), extra_args)
    return batch


def run_step(call: Call, runner: "RunnerV2", *_: object, **__: object) -> object:
    """Checks after V2 has run the model that ARM ran."""
    output = call()
    if (worker_arm := worker_arm_of(runner)) is not None:
        worker_arm.check_fired()
    return output


def warm_up(call: Call, worker: "Worker", *_: object, **__: object) -> object:
    """Turns ARM off in the requests with which V2 warms its kernels up; they are not counted."""
    setattr(worker.model_runner, WARM_UP_ATTRIBUTE, True)
    try:
        return call()
    finally:
        setattr(worker.model_runner, WARM_UP_ATTRIBUTE, False)


# --- for `collective_rpc` -------------------------------------------------------------------------------------------


def report_rank(worker: "Worker") -> RankReport:
    """Returns the requested layers and the counts of the layers on this rank."""
    worker_arm = worker_arm_of(worker.model_runner)
    requested, counts = (worker_arm.layers, worker_arm.report()) if worker_arm else ([], {})
    return {"rank": worker.rank, "asked": requested, "layers": joined_counts(counts), "settings": counts}


def install_in_rank(worker: "Worker", engine: settings.Served | None) -> None:
    """Replaces this rank's ARM by that of other settings; the model must be eager."""
    model, config = worker.model_runner.get_model(), worker.vllm_config
    if (installed := worker_arm_of(worker.model_runner)) is not None:
        installed.take_out()
        delattr(model, ARM_ATTRIBUTE)
    if engine:
        max_tokens, device = config.scheduler_config.max_num_batched_tokens, config.device_config.device
        setattr(model, ARM_ATTRIBUTE, WorkerArm(model, engine, max_tokens, device))


def conform_rank_of(worker: "Worker", clamps: "RankClamps") -> "list[RankTrial]":
    """Tries the clamps of the layers on this rank."""
    from armlet.integrations.vllm.conformity import conform_rank  # imports what a server does not need

    return conform_rank(worker, clamps)
