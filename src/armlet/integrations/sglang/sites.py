"""Finds the fused activations of gated MLPs in an SGLang model, which ARM can replace, by structure."""

# pyright: reportMissingImports=false

from collections.abc import Iterator
from typing import Any

from torch import nn

from armlet.attachment.sites import UnsupportedModelError, is_mixture
from armlet.integrations.vllm.sites import FusedSite, decoder_layers, only_site


def find_gated_sites(model: nn.Module, layers: list[int]) -> list[FusedSite]:
    """Finds the sites of `layers` on this rank; raises UnsupportedModelError if one has no recognisable gated MLP."""
    from sglang.srt.layers.utils import PPMissingLayer

    modules = decoder_layers(model)
    local_layers = [index for index in layers if not isinstance(modules[index], PPMissingLayer)]
    return [_gated_site(model, index, modules[index]) for index in local_layers]


def _gated_site(model: nn.Module, index: int, layer: nn.Module) -> FusedSite:
    if any(is_mixture(module) for module in layer.modules()):  # ARM in a dense or shared MLP beside it would be half
        raise UnsupportedModelError(
            f"{type(model).__name__}, layer {index}: a mixture of experts, whose experts SGLang computes in one step, "
            "without ARM; choose layers with a dense gated MLP, if the model has one"
        )
    return only_site(model, index, layer, _candidates)


def _candidates(index: int, mlp: nn.Module) -> Iterator[FusedSite]:
    """Yields the site of an MLP with one known activation and one merged linear of two equal widths."""
    from sglang.srt.distributed.utils import get_group_rank_size
    from sglang.srt.layers.linear import MergedColumnParallelLinear

    acts = [(name, activation) for name, child in mlp.named_children() if (activation := _activation_name(child))]
    merged: list[Any] = [child for child in mlp.children() if isinstance(child, MergedColumnParallelLinear)]
    if len(acts) == len(merged) == 1 and merged[0].output_sizes == merged[0].output_sizes[:1] * 2:
        rank, size = get_group_rank_size(merged[0].tp_group)
        yield FusedSite(index, mlp, *acts[0], merged[0].output_sizes[0], rank, size)


def _activation_name(module: nn.Module) -> str | None:
    """Returns the name in `operator.FUSED_ACTIVATIONS`; None for subclasses and for what SGLang computes otherwise."""
    from sglang.srt.layers.activation import GeluAndMul, SiluAndMul

    if type(module) is GeluAndMul:
        return {"tanh": "gelu_tanh", "none": "gelu"}.get(str(module.approximate))
    return "silu" if type(module) is SiluAndMul else None
