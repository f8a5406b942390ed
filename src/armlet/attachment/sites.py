"""Where ARM can go: the sites of a gated MLP, found by structure, whatever the architecture."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from armlet.redistribution.errors import ArgumentError, ArmletError


class UnsupportedModelError(ArmletError, TypeError):
    """The model, or a layer of it, has no gated MLP that ARM can go into, or is not covered by `Layer1`."""


SITES = ("gate", "product")
GATE, PRODUCT = SITES
"""The output of the gate's activation, and the input of down, which is its product with up."""

DOWN = "down"
"""Part of down's name, which decides where shapes do not tell the linears apart: an MLP as wide as the model."""


@dataclass(frozen=True, eq=False)
class Site:
    """A place in one layer.

    Args:
        layer: its index, from 0.
        mlp: the gated MLP.
        attribute: the name of its activation module (site "gate"), or of its linear down (site "product").
        width: its intermediate size.
        site: one of `SITES`.
    """

    layer: int
    mlp: nn.Module
    attribute: str
    width: int
    site: str = GATE

    @property
    def module(self) -> nn.Module:
        """The module that is there now."""
        return self.mlp.get_submodule(self.attribute)


@dataclass(frozen=True, eq=False)
class _GatedMlp:
    """A gated MLP, the names of its activation module and of its linears with the shape of down, and its width."""

    mlp: nn.Module
    activation: str
    downs: Sequence[str]
    width: int


def check_site(site: object) -> None:
    """Refuses anything but a site.

    Raises:
        ArgumentError: names the sites.
    """
    if site not in SITES:
        raise ArgumentError(f"site: expected {' or '.join(SITES)}, found {site!r}")


def find_decoder(model: nn.Module) -> tuple[nn.Module, nn.ModuleList]:
    """The module that runs the decoder layers, and those layers.

    Raises:
        UnsupportedModelError: no module of the model has a list of layers.
    """
    get_decoder: Any = getattr(model, "get_decoder", None)  # of a model with other towers, the one for text
    root = get_decoder() if get_decoder else model
    lists = [(m, c) for m in root.modules() for c in m.children() if isinstance(c, nn.ModuleList) and len(c)]
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    count = getattr(text, "num_hidden_layers", None)
    matching = [(module, layers) for module, layers in lists if len(layers) == count] or lists
    if not matching:
        raise UnsupportedModelError(f"{type(model).__name__}: no list of decoder layers (an nn.ModuleList) in it")
    return matching[0]


def find_sites(model: nn.Module, layers: int | Iterable[int] | str = 0, site: str = GATE) -> list[Site]:
    """The sites of some layers, in order.

    Args:
        model: a causal LM.
        layers: an index, several, or "all".
        site: one of `SITES`.

    Raises:
        ArgumentError: a layer out of range, or none; no such site.
        UnsupportedModelError: a layer without a gated MLP that can be recognised, or whose down cannot be told.
    """
    check_site(site)
    modules = find_decoder(model)[1]
    return [_layer_site(model, index, modules[index], site) for index in _indices(model, layers, len(modules))]


def _indices(model: nn.Module, layers: int | Iterable[int] | str, count: int) -> list[int]:
    if isinstance(layers, str) and layers == "all":
        return list(range(count))
    if isinstance(layers, str) or not (isinstance(layers, Iterable) or hasattr(layers, "__index__")):
        raise ArgumentError(f"layers: expected an index, several, or 'all', found {layers!r}")
    indices = list(layers) if isinstance(layers, Iterable) else [layers]
    for index in indices:
        whole = hasattr(index, "__index__") and not isinstance(index, bool)
        if not whole or not 0 <= index < count:
            raise ArgumentError(f"layers: {type(model).__name__} has layers 0 to {count - 1}, found {index!r}")
    if not indices:
        raise ArgumentError("layers: no layer was named")
    return sorted({int(index) for index in indices})


def _layer_site(model: nn.Module, index: int, layer: nn.Module, site: str) -> Site:
    layer = getattr(layer, "_orig_mod", layer)  # torch.compile(layer) wraps it
    gated = [mlp for child in layer.children() if (mlp := _gated_mlp(child))]
    experts = [child for child in layer.children() if hasattr(child, "experts")]
    if experts or len(gated) != 1:
        raise UnsupportedModelError(_refusal(model, index, layer, experts, len(gated)))
    attribute = gated[0].activation if site == GATE else _down(model, index, gated[0])
    return Site(index, gated[0].mlp, attribute, gated[0].width, site)


def _gated_mlp(mlp: nn.Module) -> _GatedMlp | None:
    """What the structure tells about a gated MLP; None for any other module."""
    activations = [name for name, child in mlp.named_children() if _is_activation(child)]
    linears: list[tuple[str, Any]] = [(name, c) for name, c in mlp.named_children() if hasattr(c, "in_features")]
    shapes = {name: (linear.in_features, linear.out_features) for name, linear in linears}
    downs = [name for name, (width, d_model) in shapes.items() if _others_fit(shapes, name, width, d_model)]
    return _GatedMlp(mlp, activations[0], downs, shapes[downs[0]][0]) if len(activations) == 1 and downs else None


def _others_fit(shapes: dict[str, tuple[int, int]], down: str, width: int, d_model: int) -> bool:
    """Whether the linears beside `down` are gate and up, or a fused gate_up."""
    others = [shape for name, shape in shapes.items() if name != down]
    return others in ([(d_model, width)] * 2, [(d_model, 2 * width)])


def _down(model: nn.Module, index: int, gated: _GatedMlp) -> str:
    downs = gated.downs if len(gated.downs) == 1 else [name for name in gated.downs if DOWN in name]
    if len(downs) != 1:
        raise UnsupportedModelError(
            f"{type(model).__name__}, layer {index}: {', '.join(gated.downs)} have one shape, and their names do not "
            f"tell which of them is down; in a gated MLP of your own, make `arm = armlet.ARM(policy, width="
            f"{gated.width}, layer={index})` and add `product = arm(product)` before down"
        )
    return downs[0]


def _is_activation(child: nn.Module) -> bool:
    plain = not any(True for _ in child.parameters()) and not hasattr(child, "in_features")
    return plain and not isinstance(child, nn.Dropout | nn.Identity)


def _refusal(model: nn.Module, index: int, layer: nn.Module, experts: list[nn.Module], gated: int) -> str:
    where = f"{type(model).__name__}, layer {index}"
    if experts:
        return (
            f"{where}: {type(experts[0]).__name__} is a mixture-of-experts block, whose fused experts have no single "
            "activated gate; choose a layer with a dense gated MLP, where the model has one"
        )
    parts = [f"{type(c).__name__}({', '.join(n for n, _ in c.named_children())})" for c in layer.children()]
    return (
        f"{where}: expected one gated MLP (gate, up and down, or a fused gate_up and down, with an activation module), "
        f"found {gated} in {', '.join(parts)}; in a gated MLP of your own, make `arm = armlet.ARM(policy, width=..., "
        f"layer={index})` and add `act = arm(act)` before the product with up"
    )
