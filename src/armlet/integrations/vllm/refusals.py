"""Engine configurations in which ARM would act wrongly, or not at all, without a warning."""

# vLLM has an environment of its own, so that its types are unknown in this one.
# pyright: reportMissingImports=false

from typing import TYPE_CHECKING

from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def refuse(config: "VllmConfig", policy: str) -> None:
    """Refuses a configuration that would give wrong tokens, or no ARM at all, without a warning.

    Args:
        config: of the engine.
        policy: its name.

    Raises:
        ArgumentError: says what, and why.
    """
    for reason, applies in _reasons(config, policy).items():
        if applies:
            raise ArgumentError(f"ARM cannot be served so: {reason}")


def _reasons(config: "VllmConfig", policy: str) -> dict[str, object]:
    from vllm.platforms import current_platform

    parallel, platform = config.parallel_config, current_platform
    return {
        "KV of another instance may be one without ARM (kv_transfer_config)": config.kv_transfer_config,
        "later layers see a prompt's last token only (kv_sharing_fast_prefill)": (
            config.cache_config.kv_sharing_fast_prefill
        ),
        "overlapping microbatches share one table of positions (enable_dbo, ubatch_size)": (
            parallel.enable_dbo or parallel.ubatch_size > 1
        ),
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
