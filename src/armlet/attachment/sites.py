"""Where ARM can go: the sites of a gated MLP, found by structure, whatever the architecture."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from armlet.redistribution.errors import ArgumentError, ArmletError


class UnsupportedModelError(ArmletError, TypeError):
    """The model, or the layer asked for, has no gated MLP that ARM can go into, or is none that `Layer1` covers."""


SITES = ("gate", "product")
GATE, PRODUCT = SITES
"""The output of the gate's activation, and the input of down, which is its product with up."""

DOWN = "down"
"""What is in the name of down where shapes do not tell the linears apart: an MLP as wide as the model."""


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
        """The module that stands there now."""
        return self.mlp.get_submodule(self.attribute)


@dataclass(frozen=True, eq=False)
class _Gated:
    """A gated MLP: the names of its activation module, and of what may be down by its shape; its intermediate size."""

    mlp: nn.Module
    activation: str
    downs: Sequence[str]
    width: int


def check_site(site: object) -> None:
    """Refuses what is no site.

    Raises:
        ArgumentError: names what there is.
    """
    if site not in SITES:
        raise ArgumentError(f"site: expected {' or '.join(SITES)}, found {site!r}")


def find_decoder(model: nn.Module) -> tuple[nn.Module, nn.ModuleList]:
    """The module that runs the decoder layers, and those layers.

    Raises:
        UnsupportedModelError: nothing in the model owns a list of layers.
    """
    get_decoder: Any = getattr(model, "get_decoder", None)  # of a model with other towers, the one for text
    root = get_decoder() if get_decoder else model
    owned = [(m, c) for m in root.modules() for c in m.children() if isinstance(c, nn.ModuleList) and len(c)]
    count = _layer_count(model)
    matching = [(m, c) for m, c in owned if len(c) == count] or owned
    if not matching:
        raise UnsupportedModelError(f"{type(model).__name__}: no list of decoder layers (an nn.ModuleList) in it")
    return matching[0]


def find_sites(model: nn.Module, layers: int | Iterable[int] | str = 0, site: str = GATE) -> list[Site]:
    """The sites of the layers asked for, in order.

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
    return [_site(model, index, modules[index], site) for index in _indices(model, layers, len(modules))]


def _layer_count(model: nn.Module) -> int | None:
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return getattr(text, "num_hidden_layers", None)


def _indices(model: nn.Module, layers: int | Iterable[int] | str, count: int) -> list[int]:
    if isinstance(layers, str) and layers == "all":
        return list(range(count))
    if isinstance(layers, str) or not (isinstance(layers, Iterable) or hasattr(layers, "__index__")):
        raise ArgumentError(f"layers: expected an index, several, or 'all', found {layers!r}")
    wanted = list(layers) if isinstance(layers, Iterable) else [layers]
    for index in wanted:
        whole = hasattr(index, "__index__") and not isinstance(index, bool)
        if not whole or not 0 <= index < count:
            raise ArgumentError(f"layers: {type(model).__name__} has layers 0 to {count - 1}, found {index!r}")
    if not wanted:
        raise ArgumentError("layers: no layer was named")
    return sorted({int(index) for index in wanted})


def _site(model: nn.Module, index: int, layer: nn.Module, site: str) -> Site:
    layer = getattr(layer, "_orig_mod", layer)  # torch.compile(layer) wraps it
    gated = [found for child in layer.children() if (found := _gated(child))]
    experts = [child for child in layer.children() if hasattr(child, "experts")]
    if experts or len(gated) != 1:
        raise UnsupportedModelError(_refusal(model, index, layer, experts, len(gated)))
    found = gated[0]
    attribute = found.activation if site == GATE else _down(model, index, found)
    return Site(index, found.mlp, attribute, found.width, site)


def _gated(mlp: nn.Module) -> _Gated | None:
    """What is known of a gated MLP by its structure; None for anything else."""
    activations = [name for name, child in mlp.named_children() if _is_activation(child)]
    downs = _downs(mlp)
    if len(activations) != 1 or not downs:
        return None
    down: Any = mlp.get_submodule(downs[0])
    return _Gated(mlp, activations[0], downs, down.in_features)


def _downs(mlp: nn.Module) -> list[str]:
    """The linear children beside which the others are gate and up, or a fused gate_up: all where all are alike."""
    linear: list[tuple[str, Any]] = [(name, c) for name, c in mlp.named_children() if hasattr(c, "in_features")]
    shapes = {name: (child.in_features, child.out_features) for name, child in linear}
    found: list[str] = []
    for down, (width, d_model) in shapes.items():
        others = [shape for name, shape in shapes.items() if name != down]
        if others in ([(d_model, width)] * 2, [(d_model, 2 * width)]):
            found.append(down)
    return found


def _down(model: nn.Module, index: int, gated: _Gated) -> str:
    named = gated.downs if len(gated.downs) == 1 else [name for name in gated.downs if DOWN in name]
    if len(named) != 1:
        raise UnsupportedModelError(
            f"{type(model).__name__}, layer {index}: {', '.join(gated.downs)} have one shape, and their names do not "
            f"tell which of them is down; in a gated MLP of your own, make `arm = armlet.ARM(policy, width="
            f"{gated.width}, layer={index})` and add `product = arm(product)` before down"
        )
    return named[0]


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
