"""The gated MLPs of a model, and the clamps that its configuration gives them."""

from collections.abc import Iterator, Mapping, Sequence
from math import exp
from typing import NamedTuple

from torch import nn

from armlet.attachment.expert_reach import fused_weights
from armlet.attachment.gated_mlps import possible_downs
from armlet.attachment.sites import GATE, ROUTED, SHARED, UP, find_layers, is_mixture, mixture_block, outside_attention
from armlet.redistribution.trained import TrainedPlacement, trained

DENSE = "dense"
SILU_DEPTH = 0.28  # g − silu(g) is never larger for g > 0


class Clamp(NamedTuple):
    """The clamp of one MLP: of up on both sides at `limit`, and of the gate above.

    gate: the output of the linear gate at which the clamp begins: `limit`, or where the activated gate is `limit`.
    """

    limit: float
    gate: float


class Part(NamedTuple):
    """A dense MLP, a shared expert, or all routed experts of one layer; module is None where there is none."""

    layer: int  # from 0
    kind: str  # "dense", "shared" or "routed"
    module: nn.Module | None
    clamp: Clamp | None


def find_parts(model: nn.Module, config: object) -> list[Part]:
    """The gated MLPs of all layers with the clamps of a configuration.

    A clamp that the configuration names for a layer without such an MLP has a part without a module.

    Raises:
        ArgumentError: as `presets.trained`, for a configuration whose clamps are not known.
        UnsupportedModelError: the model has no list of layers.
    """
    clamps = configured_clamps(trained(config))
    layers = [(index, [*_gated_modules(layer)]) for index, layer in find_layers(model, "all")]
    return [part for index, modules in layers for part in layer_parts(index, modules, clamps)]


def configured_clamps(placements: Sequence[TrainedPlacement]) -> dict[tuple[int, str], Clamp]:
    """The clamp of each layer and kind of experts, "" for all kinds; two placements, gate and up, are one clamp."""
    clamps = dict[tuple[int, str], Clamp]()
    for gate, up in zip(placements[::2], placements[1::2], strict=True):
        limits = gate["policy"].limit, up["policy"].limit
        assert limits[0] is not None
        assert limits[1] is not None
        assert (gate["site"], up["site"]) == (GATE, UP)
        clamp = Clamp(limits[1], _before_silu(limits[0]) if limits[0] == limits[1] else limits[1])
        clamps |= {(layer, up.get("experts", "")): clamp for layer in up["layers"]}
    return clamps


def _before_silu(limit: float) -> float:
    """The gate at which SiLU is `limit`; limits of which SiLU is the limit itself in float32 are large."""
    low, high = limit, limit + SILU_DEPTH
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle / (1 + exp(-middle)) < limit else (low, middle)
    return high


def layer_parts(
    layer: int, modules: Sequence[tuple[str, nn.Module]], clamps: Mapping[tuple[int, str], Clamp]
) -> Iterator[Part]:
    """The parts of a layer with their clamps, given the kind and module of each; see `find_parts`."""
    kinds = {kind for kind, _ in modules}
    for kind, module in modules:
        yield Part(layer, kind, module, clamps.get((layer, kind), clamps.get((layer, ""))))
    for (place, kind), clamp in clamps.items():
        if place == layer and (kind not in kinds if kind else not kinds):
            yield Part(layer, kind or DENSE, None, clamp)


def _gated_modules(layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The kind and the module of what may be a gated MLP, by its linears."""
    modules, block = outside_attention(layer), mixture_block(layer)
    routed = [module for module in modules if fused_weights(module)]
    inside = {part for module in modules if is_mixture(module) for part in module.get_submodule("experts").modules()}
    if block is not None:
        yield from ((ROUTED, module) for module in routed or [block.get_submodule("experts")])
    kind = DENSE if block is None else SHARED
    yield from ((kind, module) for module in modules if module not in inside and possible_downs(module))
