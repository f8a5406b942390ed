"""Where ARM can go in a model of vLLM: the fused activation and product of a gated MLP, found by structure."""

# vLLM has an environment of its own, and no types to check against in this one.
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
        shard: this rank's place along the width.
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
    """Of the decoder for text, those on other pipeline ranks included."""
    return len(_layers(model))


def find_fused_sites(model: nn.Module, layers: list[int]) -> list[FusedSite]:
    """The sites of the layers asked for that are on this rank, in order.

    Raises:
        UnsupportedModelError: a layer has no gated MLP that can be recognised.
    """
    from vllm.model_executor.models.utils import PPMissingLayer

    modules = _layers(model)
    here = [index for index in layers if not isinstance(modules[index], PPMissingLayer)]
    return [_site(model, index, modules[index]) for index in here]


def _layers(model: nn.Module) -> nn.ModuleList:
    inner: Any = getattr(model, "get_language_model", None)
    return find_decoder(inner() if inner else model)[1]


def _site(model: nn.Module, index: int, layer: nn.Module) -> FusedSite:
    found = [site for child in layer.children() for site in _gated(index, child)]
    if len(found) == 1:
        return found[0]
    parts = [f"{type(c).__name__}({', '.join(type(n).__name__ for n in c.children())})" for c in layer.children()]
    raise UnsupportedModelError(
        f"{type(model).__name__}, layer {index}: expected one gated MLP (a merged gate and up, SiluAndMul or "
        f"GeluAndMul, and down), found {len(found)} in {', '.join(parts)}; choose layers with a dense gated MLP, "
        "where the model has one"
    )


def _gated(index: int, mlp: nn.Module) -> Iterator[FusedSite]:
    from vllm.model_executor.layers.linear import MergedColumnParallelLinear

    acts = [(name, known) for name, child in mlp.named_children() if (known := _activation(child))]
    merged: list[Any] = [child for child in mlp.children() if isinstance(child, MergedColumnParallelLinear)]
    if len(acts) == 1 and len(merged) == 1 and len(set(merged[0].output_sizes)) == 1 == len(merged[0].output_sizes) - 1:
        linear, (name, activation) = merged[0], acts[0]
        yield FusedSite(index, mlp, name, activation, linear.output_sizes[0], linear.tp_rank, linear.tp_size)


def _activation(module: nn.Module) -> str | None:
    """The type itself, no subclass: variants clamp, scale or swap gate and up."""
    from vllm.model_executor.layers.activation import GeluAndMul, SiluAndMul

    if type(module) is GeluAndMul:
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    return "silu" if type(module) is SiluAndMul else None
