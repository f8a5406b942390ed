"""Finds the parts of a mixture of experts in a vLLM model that ARM can reach, and says why it cannot reach others.

Which kernel computes the experts is only known after the weights are loaded. A class of kernels is accepted by name,
after its code was read: vLLM 0.32 has about 75, and each may order its rows differently.
"""

# pyright: reportMissingImports=false

from collections.abc import Iterator
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from torch import nn

from armlet.attachment.sites import ROUTED, UnsupportedModelError, outside_attention
from armlet.integrations.vllm.operator import FUSED_ACTIVATIONS
from armlet.integrations.vllm.sites import FusedSite, MixtureLayer, fused_candidates
from armlet.integrations.vllm.source import installed_source, missing_places

KERNELS = "vllm.model_executor.layers.fused_moe"
ROWS_IN_ORDER = ("triton_moe:TritonExperts", "triton_moe:TritonWNA16Experts", "marlin_moe:MarlinExperts")
"""Modules and classes whose `apply` passes the rows of gate and up to `activation` in the order of the routing: row
token · choices + choice. Their kernels read tokens in the order of experts, but write each row to its own place."""

ON_CPU = (
    "cpu_moe:CPUUnquantizedExperts",
    "cpu_moe:X86CPUUnquantizedExperts",
    "cpu_moe:ArmCPUUnquantizedExperts",
    "cpu_moe:PowerCPUUnquantizedExperts",
)
"""Classes with one operator for all of `apply`, beside which the rows are computed again for tokens with ARM."""

OTHER_KERNEL = (
    "on GPUs, start vLLM with --moe-backend triton, or --moe-backend marlin for weights of 4 or 8 bits, or choose "
    "other layers"
)

MODULAR = f"{KERNELS}.modular_kernel:FusedMoEExpertsModular"
NEEDED = (
    f"{MODULAR}.apply(output, hidden_states, w1, w2, topk_weights, topk_ids)",
    f"{MODULAR}.activation(activation, output, input)",
    f"{KERNELS}.experts.triton_moe:TritonExperts.activation(activation, output, input)",
    f"{KERNELS}.routed_experts:RoutedExperts.quant_method",
    f"{KERNELS}.runner.moe_runner:MoERunner.routed_experts",
    f"{KERNELS}.runner.moe_runner:MoERunner.moe_config",
    f"{KERNELS}.runner.moe_runner:MoERunner.expert_map_manager",
    f"{KERNELS}.config:FusedMoEConfig.moe_parallel_config",
    f"{KERNELS}.config:FusedMoEConfig.intermediate_size_per_partition_unpadded",
    "vllm._custom_ops:cpu_prepack_moe_weight",
)
"""What ARM in routed experts needs of vLLM; places are as in `source`."""


@dataclass(frozen=True, eq=False)
class RoutedSite:
    """The routed experts of one layer on this rank, and the kernel that computes them."""

    layer: int  # from 0
    label: str  # of the model and layer, for errors
    routed: nn.Module  # vLLM's `RoutedExperts`
    kernel: Any  # its `FusedMoEExpertsModular`
    activation: str  # the activation's name in `operator.FUSED_ACTIVATIONS`
    experts: int
    width: int  # the intermediate size of an expert over all ranks
    shard: int  # this rank's index along the width
    shards: int  # number of ranks along the width
    on_cpu: bool  # whether its class is one of `ON_CPU`


def check_needed() -> None:
    """Raises UnsupportedModelError if this vLLM lacks what ARM in routed experts needs."""
    if missing := missing_places(NEEDED, installed_source()):
        lacks = f"this vLLM does not have {', '.join(missing)}, which ARM needs in a mixture of experts"
        raise UnsupportedModelError(f"{lacks}; choose layers with a dense gated MLP, if the model has one")


def shared_sites(place: MixtureLayer) -> list[FusedSite]:
    """The dense gated MLPs beside the routed experts; raises UnsupportedModelError for one that ARM cannot reach."""
    sites: list[FusedSite] = []
    for module in _beside(place.module):
        candidates = list(fused_candidates(place.layer, module))
        sites += candidates
        if not candidates and _looks_gated(module):
            raise UnsupportedModelError(
                f"{place.label}: {type(module).__name__} runs beside the experts, and is no gated MLP with a merged "
                f"gate and up and SiluAndMul or GeluAndMul; a layer is treated whole or not at all, unless "
                f"experts={ROUTED!r}"
            )
    return sites


def _beside(layer: nn.Module) -> list[nn.Module]:
    routed = {part for experts in _routed_modules(layer) for part in experts.modules()}
    return [module for module in outside_attention(layer) if module not in routed]


def _looks_gated(module: nn.Module) -> bool:
    from vllm.model_executor.layers.linear import MergedColumnParallelLinear

    names = [name for name, _ in module.named_children()]
    named_so = any("down" in name for name in names) and any("gate" in name or "up" in name for name in names)
    merged: list[Any] = [child for child in module.children() if isinstance(child, MergedColumnParallelLinear)]
    mixer = any("conv" in name for name in names)  # of a state-space layer
    return named_so or any(len(child.output_sizes) > 1 and not mixer for child in merged)


def _routed_modules(layer: nn.Module) -> Iterator[nn.Module]:
    routed_class = resolve_name(f"{KERNELS}.routed_experts:RoutedExperts")
    yield from (module for module in layer.modules() if isinstance(module, routed_class))


def routed_site(place: MixtureLayer) -> RoutedSite:
    """The routed experts of a layer; raises UnsupportedModelError with the kernel's name if ARM cannot reach them."""
    check_needed()
    runner_class = resolve_name(f"{KERNELS}.runner.moe_runner:MoERunner")
    runners: list[Any] = [module for module in place.module.modules() if type(module) is runner_class]
    if len(runners) != 1 or len(list(_routed_modules(place.module))) != 1:
        mixtures = [type(module).__name__ for module in place.module.modules() if hasattr(module, "experts")]
        raise UnsupportedModelError(
            f"{place.label}: expected the routed experts in one MoERunner of vLLM, found {len(runners)} in "
            f"{', '.join(mixtures)}; choose other layers"
        )
    (runner,) = runners
    kernel = _kernel(place.label, runner.routed_experts)
    for reason in (*_unusual_formula(runner, kernel), *_unusual_rows(runner)):
        raise UnsupportedModelError(
            f"{place.label}: its routed experts ({type(kernel).__name__}) cannot have ARM, as {reason}"
        )
    config, parallel = runner.moe_config, runner.moe_config.moe_parallel_config
    return RoutedSite(
        layer=place.layer,
        label=place.label,
        routed=runner.routed_experts,
        kernel=kernel,
        activation=runner.activation.value,
        experts=config.num_experts,
        width=config.intermediate_size,
        shard=parallel.tp_rank,
        shards=parallel.tp_size,
        on_cpu=_class_name(kernel) in ON_CPU,
    )


def _class_name(kernel: object) -> str:
    return f"{type(kernel).__module__.removeprefix(f'{KERNELS}.experts.')}:{type(kernel).__name__}"


def current_kernel(routed: Any) -> Any:
    """The object that computes routed experts now; None where vLLM has not moved this method to kernels."""
    return getattr(getattr(routed.quant_method, "moe_kernel", None), "fused_experts", None)


def _kernel(label: str, routed: Any) -> Any:
    """The kernel of routed experts; raises UnsupportedModelError unless its rows are known."""
    kernel = current_kernel(routed)
    name = type(routed.quant_method if kernel is None else kernel).__name__
    if kernel is None:
        reason = "computes them in a function of its own, in which there is no place for ARM"
    elif kernel.is_monolithic():
        reason = "computes routing and experts in one kernel"
    elif "Batched" in kernel.activation_format().name:
        reason = "groups its rows by expert, and does not know which token each is"
    elif _class_name(kernel) not in (*ROWS_IN_ORDER, *ON_CPU):
        reason = "computes the activation inside a kernel, or on rows whose order was never checked"
    else:
        return kernel
    raise UnsupportedModelError(f"{label}: its routed experts cannot have ARM, as {name} {reason}; {OTHER_KERNEL}")


def _unusual_formula(runner: Any, kernel: Any) -> Iterator[str]:
    """Reasons why the experts are not activation(gate) · up on rows that are rounded by themselves."""
    quantised, settings = kernel.quant_config, kernel.activation_config
    if runner.activation.value not in FUSED_ACTIVATIONS:
        yield f"their activation is {runner.activation.value}, and not plain SiLU or GELU of gate times up"
    if settings.clamp_limit is not None or (settings.alpha, settings.beta) != (1.0, 0.0):
        yield f"their gate is clamped or scaled (limit {settings.clamp_limit}, alpha {settings.alpha})"
    if quantised.use_fp8_w8a8 and kernel.block_shape == [128, 128]:
        yield "vLLM computes activation, product and the rounding to fp8 by blocks in one kernel"
    by_rows = kernel.per_act_token_quant or kernel.block_shape is not None or kernel.a2_scale is not None
    if kernel.quant_dtype is not None and not by_rows:
        yield "the input of down is rounded with one scale for all tokens of a batch, which ARM would change for all"
    if getattr(kernel, "_use_zentorch", False):
        yield "zentorch computes them in one kernel; uninstall zentorch"


def _unusual_rows(runner: Any) -> Iterator[str]:
    """Reasons why the rows are not those of this rank's tokens in the experts of the model."""
    config, routed = runner.moe_config, runner.routed_experts
    parallel, prepare = config.moe_parallel_config, routed.quant_method.moe_kernel.prepare_finalize
    if parallel.use_ep or parallel.enable_eplb or routed.expert_map is not None:
        yield "they are spread over ranks (expert parallelism); use tensor parallelism"
    if max(parallel.dp_size, parallel.pcp_size, parallel.sp_size) > 1:
        yield "they get the tokens of other ranks; use tensor parallelism"
    if type(prepare).__name__ != "MoEPrepareAndFinalizeNoDPEPModular":
        yield f"{type(prepare).__name__} may reorder their tokens"
    if runner.expert_map_manager.num_fused_shared_experts or type(runner.router).__name__ == "ZeroExpertRouter":
        yield "the routing also chooses shared experts, or experts that only return their input"
    if config.is_lora_enabled:
        yield "a LoRA adapter may be on them (enable_lora), which was never tried"
    if config.intermediate_size_per_partition_unpadded != config.intermediate_size_per_partition:
        yield "their width is padded, and ARM would see the padding"
    if config.intermediate_size_per_partition * parallel.tp_size != config.intermediate_size:
        yield "their width is not split evenly over the ranks"
