"""Hooks the functions of SGLang that ARM needs, once per process, and checks that they are there.

SGLang calls `hook_sglang` in every process that it starts. It logs what a plugin raises and goes on without the plugin;
so what is missing is refused later, when an engine with a setting of ARM reads its options. The hooks do nothing unless
the engine is configured for ARM.
"""

# pyright: reportMissingImports=false

import inspect
import logging
from collections.abc import Callable
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from armlet.integrations.sglang import settings
from armlet.integrations.sglang.serving import RunnerArm
from armlet.integrations.vllm.requests import request_salt
from armlet.redistribution.errors import ArmletError

if TYPE_CHECKING:
    from sglang.srt.managers.io_struct import GenerateReqInput, GetInternalStateReqOutput
    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
    from sglang.srt.managers.scheduler import Scheduler
    from sglang.srt.managers.tokenizer_manager import TokenizerManager
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch
    from sglang.srt.model_executor.model_runner import ModelRunner
    from sglang.srt.server_args import ServerArgs

ARM = "armlet"  # attribute of a model runner with its `RunnerArm`, and of a forward batch with its requests' parameters
VERSION = "0.5.23"
logger = logging.getLogger(__name__)

Original = Callable[..., Any]


class Hook(NamedTuple):
    """A function of SGLang, the first parameters that the hook relies on, and the hook."""

    target: str
    parameters: tuple[str, ...]
    kind: str  # a name of `HookType`
    hook: Original


def hook_sglang() -> None:
    """Hooks SGLang; the entry point `sglang.srt.plugins`."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    missing = [problem for hooked in HOOKS if (problem := _problem(hooked))]
    if HOOKS[0].target in " ".join(missing):  # no engine can be refused; SGLang logs this and serves without ARM
        raise RuntimeError(f"armlet was built for SGLang {VERSION}, and cannot see which engines use ARM: {missing[0]}")
    for hooked in () if missing else HOOKS:
        HookRegistry.register(hooked.target, hooked.hook, HookType[hooked.kind])
    if missing:
        HookRegistry.register(HOOKS[0].target, partial(_refuse, missing), HookType.BEFORE)


def _problem(hooked: Hook) -> str | None:
    """What a hook misses in this SGLang."""
    owner, _, name = hooked.target.rpartition(".")
    try:
        parameters = list(inspect.signature(getattr(resolve_name(owner), name)).parameters)
    except (ImportError, AttributeError) as error:
        return f"{hooked.target}: {error}"
    expected = list(hooked.parameters)
    return None if expected == parameters[: len(expected)] else f"{hooked.target} takes {', '.join(parameters)}"


def _refuse(missing: list[str], args: "ServerArgs") -> None:
    if settings.served_with(args.json_model_override_args, args.model_path):
        raise ArmletError(f"armlet was built for SGLang {VERSION}; this one differs: {'; '.join(missing)}")


def _resolve(call: Original, args: "ServerArgs") -> None:
    """Puts ARM's full setting into the options that all processes get, and checks the other options."""
    if getattr(args, "_resolution_finished", False):
        return call(args)
    given = args.json_model_override_args
    args.json_model_override_args = settings.full_overrides(given, args.model_path)
    call(args)
    _engine_settings(args)
    return None


def _engine_settings(args: "ServerArgs") -> settings.Served | None:
    """The settings of an engine whose options are resolved and checked; None without ARM."""
    from sglang.srt.arg_groups.overrides import resolving_view

    engine = settings.served_with(args.json_model_override_args, args.model_path)
    if engine:
        settings.check_options(resolving_view(args))
    return engine


def _check_request(
    call: Original, manager: "TokenizerManager", obj: "GenerateReqInput", *rest: object, **named: object
) -> Any:
    args = manager.server_args
    params = {**(manager.preferred_sampling_params or {}), **(obj.sampling_params or {})}
    engine = settings.served_with(args.json_model_override_args, args.model_path)
    overrides = settings.full_overrides(args.json_model_override_args, args.model_path)
    settings.check_custom_params(params, engine, overrides, session=bool(getattr(obj, "session_params", None)))
    return call(manager, obj, *rest, **named)


def _salt_request(_result: None, req: "Req", *_: object, **__: object) -> None:
    from sglang.srt.runtime_context import get_server_args

    args = get_server_args()
    if settings.served_with(args.json_model_override_args, args.model_path):
        req.cache_salt = request_salt(req.cache_salt, _custom_params(req))


def _custom_params(req: "Req") -> dict[str, object] | None:
    return req.sampling_params.custom_params


def _note_requests(result: "ForwardBatch", _cls: type, batch: "ScheduleBatch", *_: object, **__: object) -> None:
    setattr(result, ARM, [_custom_params(req) for req in batch.reqs])


def _install(runner: "ModelRunner", *_: object, **__: object) -> None:
    """Puts ARM into a loaded model, before graphs are captured and after the number of cached tokens is known."""
    from sglang.srt.runtime_context import max_prefill_buffer_tokens

    engine = _engine_settings(runner.server_args)
    if engine is None or runner.is_draft_worker:
        return
    device = torch.device(runner.device)
    max_tokens = max(runner.max_total_num_tokens, max_prefill_buffer_tokens())  # as of SGLang's own buffers
    arm = RunnerArm(runner.model, engine, max_tokens, device)
    setattr(runner, ARM, arm)
    policies = ", ".join(str(placement["policy"]) for placement in engine.placements)
    logger.info("armlet: %s in layers %s on this rank", policies, list(arm.modules))
    if device.type != "cpu":
        logger.warning("armlet: inside SGLang, ARM was run on CPUs alone so far; compare answers before you rely on it")


def _run_forward(
    call: Original, runner: "ModelRunner", forward_batch: "ForwardBatch", *rest: object, **named: object
) -> Any:
    run = partial(call, runner, forward_batch, *rest, **named)
    arm: RunnerArm | None = getattr(runner, ARM, None)
    if arm is None:
        return run()
    mode = forward_batch.forward_mode
    if mode.is_idle():
        arm.turn_off()
        return run()
    params, positions = getattr(forward_batch, ARM, None), forward_batch.positions
    counts = [1] * forward_batch.batch_size if mode.is_decode() else forward_batch.extend_seq_lens_cpu
    if params is None or positions is None or counts is None:
        raise ArmletError(f"SGLang runs a batch ({mode.name}) of which requests or positions are not known")
    return arm.run(run, positions, counts, params, "decode" if mode.is_decode() else "prefill")


def _report(result: "GetInternalStateReqOutput", scheduler: "Scheduler", *_: object, **__: object) -> None:
    """Adds the counts of each setting and layer on this rank to what `/server_info` shows."""
    arm: RunnerArm | None = getattr(scheduler.tp_worker.model_runner, ARM, None)
    if arm is not None:
        result.internal_state[ARM] = arm.report()


HOOKS = (
    Hook("sglang.srt.server_args.ServerArgs.resolve_once", ("self",), "AROUND", _resolve),
    Hook(
        "sglang.srt.managers.tokenizer_manager.TokenizerManager._create_tokenized_object",
        ("self", "obj"), "AROUND", _check_request,
    ),
    Hook("sglang.srt.managers.schedule_batch.Req.__init__", ("self",), "AFTER", _salt_request),
    Hook(
        "sglang.srt.model_executor.forward_batch_info.ForwardBatch.init_new",
        ("batch", "model_runner"), "AFTER", _note_requests,
    ),
    Hook("sglang.srt.model_executor.model_runner.ModelRunner.init_cuda_graphs", ("self",), "BEFORE", _install),
    Hook(
        "sglang.srt.model_executor.model_runner.ModelRunner.forward", ("self", "forward_batch"), "AROUND", _run_forward
    ),
    Hook("sglang.srt.managers.scheduler.Scheduler.get_internal_state", ("self",), "AFTER", _report),
)  # fmt: skip
"""All that armlet hooks in SGLang. The first also refuses ARM where another is missing."""
