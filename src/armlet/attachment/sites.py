"""Finds the sites of gated MLPs, where ARM can be attached, by structure in any architecture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from armlet.redistribution.errors import ArgumentError, ArmletError, description


class UnsupportedModelError(ArmletError, TypeError):
    """The model or a layer has no gated MLP that ARM can be attached to, or `Layer1` does not support it."""


SITES = ("gate", "product")
GATE, PRODUCT = SITES
"""The output of the gate's activation, and the input of down: the product of that output with up."""

DOWN = "down"
"""Part of down's name, used when shapes are ambiguous because the MLP is as wide as the model."""


WRAPPED = ("_checkpoint_wrapped_module", "_orig_mod")
"""The attributes by which torch's activation checkpointing and `torch.compile` keep a layer that they wrap."""


@dataclass(frozen=True, eq=False)
class Site:
    """A place in one layer."""

    layer: int  # the layer's index, from 0
    mlp: nn.Module  # the gated MLP
    attribute: str  # the name of its activation module (site "gate"), or of its linear down (site "product")
    width: int  # the intermediate size
    site: str = GATE  # one of `SITES`

    @property
    def module(self) -> nn.Module:
        """The current module at this site."""
        return self.mlp.get_submodule(self.attribute)


class _GatedMlp(NamedTuple):
    """A gated MLP, the names of its activation module and of linears with the shape of down, and its width."""

    mlp: nn.Module
    activation: str
    downs: list[str]
    width: int


def check_site(site: object) -> None:
    """Raises ArgumentError if `site` is not one of `SITES`."""
    if not isinstance(site, str) or site not in SITES:
        raise ArgumentError(f"site: expected {' or '.join(SITES)}, found {description(site)}")


def find_decoder(model: nn.Module) -> tuple[nn.Module, nn.ModuleList]:
    """Returns the module that runs the decoder layers, and the layers; raises UnsupportedModelError without them."""
    get_decoder: Any = getattr(model, "get_decoder", None)  # returns the text decoder of a multimodal model
    root = get_decoder() if get_decoder else model
    lists = [(m, c) for m in root.modules() for c in m.children() if isinstance(c, nn.ModuleList) and len(c)]
    if not lists:
        raise UnsupportedModelError(f"{type(model).__name__}: no list of decoder layers (an nn.ModuleList)")
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    count = getattr(text, "num_hidden_layers", None)
    return next((pair for pair in lists if len(pair[1]) == count), lists[0])


def find_sites(model: nn.Module, layers: Sequence[int] | str = (0,), site: str = GATE) -> list[Site]:
    """Finds the sites of some layers of a causal LM, in order; `layers` is the result of `layer_indices`.

    Raises:
        ArgumentError: a layer out of range, no layers, or an unknown site.
        UnsupportedModelError: a layer without a recognisable gated MLP or without a recognisable down.
    """
    check_site(site)
    modules = find_decoder(model)[1]
    return [_layer_site(model, index, modules[index], site) for index in _indices(model, layers, len(modules))]


def _indices(model: nn.Module, layers: Sequence[int] | str, count: int) -> list[int]:
    if isinstance(layers, str):
        return list(range(count))
    for index in layers:
        if index not in range(count):
            raise ArgumentError(f"layers: {type(model).__name__} has layers 0 to {count - 1}, found {index!r}")
    return [*layers]


def _layer_site(model: nn.Module, index: int, layer: nn.Module, site: str) -> Site:
    for wrapped in WRAPPED:
        layer = getattr(layer, wrapped, layer)
    children = list(layer.children())
    gated = [mlp for child in children if (mlp := _gated_mlp(child))]
    label = f"{type(model).__name__}, layer {index}"
    if experts := [type(child).__name__ for child in children if hasattr(child, "experts")]:
        raise UnsupportedModelError(
            f"{label}: {experts[0]} is a mixture-of-experts block, whose fused experts have no single "
            "activated gate; choose a layer with a dense gated MLP, if the model has one"
        )
    if len(gated) != 1:
        parts = [f"{type(c).__name__}({', '.join(n for n, _ in c.named_children())})" for c in children]
        raise UnsupportedModelError(
            f"{label}: expected one gated MLP (gate, up and down, or a fused gate_up and down, with an activation "
            f"module), found {len(gated)} in {', '.join(parts)}; in your own gated MLP, create `arm = armlet.ARM("
            f"policy, width=..., layer={index})` and add `act = arm(act)` before the product with up"
        )
    attribute = gated[0].activation if site == GATE else _down(label, index, gated[0])
    return Site(index, gated[0].mlp, attribute, gated[0].width, site)


def _gated_mlp(mlp: nn.Module) -> _GatedMlp | None:
    """Describes a gated MLP from its structure; None for any other module."""
    children: dict[str, Any] = dict(mlp.named_children())
    activations = [name for name, child in children.items() if _is_activation(child)]
    shapes = {name: (c.in_features, c.out_features) for name, c in children.items() if hasattr(c, "in_features")}
    downs = []
    for down, (width, d_model) in shapes.items():
        others = [shape for name, shape in shapes.items() if name != down]
        if others in ([(d_model, width)] * 2, [(d_model, 2 * width)]):  # gate and up, or a fused gate_up
            downs.append(down)
    return _GatedMlp(mlp, activations[0], downs, shapes[downs[0]][0]) if len(activations) == 1 and downs else None


def _is_activation(child: nn.Module) -> bool:
    plain = not any(True for _ in child.parameters()) and not hasattr(child, "in_features")
    return plain and not isinstance(child, nn.Dropout | nn.Identity)


def _down(label: str, index: int, gated: _GatedMlp) -> str:
    downs = gated.downs if len(gated.downs) == 1 else [name for name in gated.downs if DOWN in name]
    if len(downs) != 1:
        raise UnsupportedModelError(
            f"{label}: {', '.join(gated.downs)} have the same shape, and their names do not show which is down; in "
            f"your own gated MLP, create `arm = armlet.ARM(policy, width={gated.width}, layer={index})` and add "
            "`product = arm(product)` before down"
        )
    return downs[0]
