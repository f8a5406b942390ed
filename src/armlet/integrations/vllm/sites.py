"""Finds the fused activations of gated MLPs in a vLLM model, which ARM can replace, by structure."""

# pyright: reportMissingImports=false

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from armlet.attachment.sites import UnsupportedModelError, find_decoder, is_mixture


@dataclass(frozen=True, eq=False)
class FusedSite:
    """The fused activation of one layer on this rank."""

    layer: int  # from 0
    mlp: nn.Module  # the gated MLP
    attribute: str  # the name of the activation module
    activation: str  # the activation's name in `operator.FUSED_ACTIVATIONS`
    width: int  # the intermediate size over all ranks
    shard: int  # this rank's index along the width
    shards: int  # number of ranks along the width


@dataclass(frozen=True, eq=False)
class MixtureLayer:
    """A layer that is a mixture of experts."""

    layer: int  # from 0
    label: str  # of the model and layer, for errors
    module: nn.Module


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Returns the layers of the text decoder; layers on other pipeline ranks are `PPMissingLayer`s."""
    inner: Any = getattr(model, "get_language_model", None)
    return find_decoder(inner() if inner else model)[1]


def find_fused_sites(model: nn.Module, layers: list[int]) -> list[FusedSite | MixtureLayer]:
    """Finds the sites of `layers` on this rank; raises UnsupportedModelError if one has no recognisable gated MLP.

    What ARM can reach in a mixture of experts is only found out when it is put there, see `MixtureArm`.
    """
    from vllm.model_executor.models.utils import PPMissingLayer

    modules = decoder_layers(model)
    local_layers = [index for index in layers if not isinstance(modules[index], PPMissingLayer)]
    return [_fused_site(model, index, modules[index]) for index in local_layers]


def _fused_site(model: nn.Module, index: int, layer: nn.Module) -> FusedSite | MixtureLayer:
    if any(is_mixture(module) for module in layer.modules()):
        return MixtureLayer(index, f"{type(model).__name__}, layer {index}", layer)
    return only_site(model, index, layer, fused_candidates)


def only_site(
    model: nn.Module, index: int, layer: nn.Module, candidates: Callable[[int, nn.Module], Iterator[FusedSite]]
) -> FusedSite:
    """The one site among a dense layer's children; raises UnsupportedModelError if there is none, or several."""
    sites = [site for child in layer.children() for site in candidates(index, child)]
    if len(sites) == 1:
        return sites[0]
    parts = [f"{type(c).__name__}({', '.join(type(n).__name__ for n in c.children())})" for c in layer.children()]
    raise UnsupportedModelError(
        f"{type(model).__name__}, layer {index}: expected one gated MLP (a merged gate and up, SiluAndMul or "
        f"GeluAndMul, and down), found {len(sites)} in {', '.join(parts)}; choose layers with a dense gated MLP, "
        "if the model has one"
    )


def fused_candidates(index: int, mlp: nn.Module) -> Iterator[FusedSite]:
    """Yields the site of an MLP with one known activation and one merged linear of two equal widths."""
    from vllm.model_executor.layers.linear import MergedColumnParallelLinear

    acts = [(name, activation) for name, child in mlp.named_children() if (activation := _activation_name(child))]
    merged: list[Any] = [child for child in mlp.children() if isinstance(child, MergedColumnParallelLinear)]
    if len(acts) == len(merged) == 1 and merged[0].output_sizes == merged[0].output_sizes[:1] * 2:
        yield FusedSite(index, mlp, *acts[0], merged[0].output_sizes[0], merged[0].tp_rank, merged[0].tp_size)


def _activation_name(module: nn.Module) -> str | None:
    """Returns the name in `operator.FUSED_ACTIVATIONS`; None for subclasses, which clamp, scale or swap gate and up."""
    from vllm.model_executor.layers.activation import GeluAndMul, SiluAndMul

    if type(module) is GeluAndMul:
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    return "silu" if type(module) is SiluAndMul else None
