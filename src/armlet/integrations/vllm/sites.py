"""Where ARM can go in a model of vLLM: the fused activation and product of a gated MLP, found by structure."""

# vLLM has an environment of its own, so that its types are unknown in this one.
# pyright: reportMissingImports=false

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from armlet.attachment.sites import UnsupportedModelError, find_decoder


@dataclass(frozen=True, eq=False)
class FusedSite:
    """The fused activation of one layer on this rank.

    Args:
        layer: from 0.
        mlp: the gated MLP.
        attribute: the name of its activation.
        activation: its name in `operator.FUSED_ACTIVATIONS`.
        width: the whole intermediate size.
        shard: this rank's index along the width.
        shards: ranks along the width.
    """

    layer: int
    mlp: nn.Module
    attribute: str
    activation: str
    width: int
    shard: int
    shards: int


def layer_count(model: nn.Module) -> int:
    """The number of layers of the decoder for text, including those on other pipeline ranks."""
    return len(_decoder_layers(model))


def find_fused_sites(model: nn.Module, layers: list[int]) -> list[FusedSite]:
    """The sites of those `layers` that are on this rank, in order.

    Raises:
        UnsupportedModelError: a layer has no gated MLP that can be recognised.
    """
    from vllm.model_executor.models.utils import PPMissingLayer

    modules = _decoder_layers(model)
    here = [index for index in layers if not isinstance(modules[index], PPMissingLayer)]
    return [_fused_site(model, index, modules[index]) for index in here]


def _decoder_layers(model: nn.Module) -> nn.ModuleList:
    inner: Any = getattr(model, "get_language_model", None)
    return find_decoder(inner() if inner else model)[1]


def _fused_site(model: nn.Module, index: int, layer: nn.Module) -> FusedSite:
    sites = [site for child in layer.children() for site in _candidates(index, child)]
    if len(sites) == 1:
        return sites[0]
    parts = [f"{type(c).__name__}({', '.join(type(n).__name__ for n in c.children())})" for c in layer.children()]
    raise UnsupportedModelError(
        f"{type(model).__name__}, layer {index}: expected one gated MLP (a merged gate and up, SiluAndMul or "
        f"GeluAndMul, and down), found {len(sites)} in {', '.join(parts)}; choose layers with a dense gated MLP, "
        "where the model has one"
    )


def _candidates(index: int, mlp: nn.Module) -> Iterator[FusedSite]:
    from vllm.model_executor.layers.linear import MergedColumnParallelLinear

    acts = [(name, activation) for name, child in mlp.named_children() if (activation := _activation_name(child))]
    merged: list[Any] = [child for child in mlp.children() if isinstance(child, MergedColumnParallelLinear)]
    if len(acts) == 1 and len(merged) == 1 and len(set(merged[0].output_sizes)) == 1 == len(merged[0].output_sizes) - 1:
        linear, (name, activation) = merged[0], acts[0]
        yield FusedSite(index, mlp, name, activation, linear.output_sizes[0], linear.tp_rank, linear.tp_size)


def _activation_name(module: nn.Module) -> str | None:
    """Its name in `operator.ACTIVATIONS`; None for subclasses, which clamp, scale or swap gate and up."""
    from vllm.model_executor.layers.activation import GeluAndMul, SiluAndMul

    if type(module) is GeluAndMul:
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    return "silu" if type(module) is SiluAndMul else None
