"""Where ARM can go: the activation module of a gated MLP, found by structure, whatever the architecture."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from armlet.redistribution.errors import ArgumentError, ArmletError


class UnsupportedModelError(ArmletError, TypeError):
    """The model, or the layer asked for, has no gated MLP that ARM can go into, or is none that `Layer1` covers."""


@dataclass(frozen=True, eq=False)
class Site:
    """The output of one layer's gate activation.

    Args:
        layer: its index, from 0.
        mlp: the gated MLP.
        attribute: the name of its activation module.
        width: its intermediate size.
    """

    layer: int
    mlp: nn.Module
    attribute: str
    width: int

    @property
    def activation(self) -> nn.Module:
        """The module that stands there now."""
        return self.mlp.get_submodule(self.attribute)


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


def find_sites(model: nn.Module, layers: int | Iterable[int] | str = 0) -> list[Site]:
    """The sites of the layers asked for, in order.

    Args:
        model: a causal LM.
        layers: an index, several, or "all".

    Raises:
        ArgumentError: a layer out of range, or none.
        UnsupportedModelError: a layer without a gated MLP that can be recognised.
    """
    modules = find_decoder(model)[1]
    return [_site(model, index, modules[index]) for index in _indices(model, layers, len(modules))]


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


def _site(model: nn.Module, index: int, layer: nn.Module) -> Site:
    layer = getattr(layer, "_orig_mod", layer)  # torch.compile(layer) wraps it
    gated = [(child, *shape) for child in layer.children() if (shape := _gated(child))]
    experts = [child for child in layer.children() if hasattr(child, "experts")]
    if experts or len(gated) != 1:
        raise UnsupportedModelError(_refusal(model, index, layer, experts, len(gated)))
    mlp, attribute, width = gated[0]
    return Site(index, mlp, attribute, width)


def _gated(mlp: nn.Module) -> tuple[str, int] | None:
    """The name of the activation and the intermediate size of a gated MLP; None for anything else."""
    activations = [name for name, child in mlp.named_children() if _is_activation(child)]
    width = _gated_width(mlp)
    return (activations[0], width) if width and len(activations) == 1 else None


def _gated_width(mlp: nn.Module) -> int | None:
    """The intermediate size, where the linear children are gate, up and down, or a fused gate_up and down."""
    linear: list[Any] = [child for child in mlp.children() if hasattr(child, "in_features")]
    shapes: list[tuple[int, int]] = [(child.in_features, child.out_features) for child in linear]
    for d_model, width in ((out, into) for into, out in shapes):
        others = sorted(shapes, key=lambda shape: shape != (width, d_model))[1:]
        if others in ([(d_model, width)] * 2, [(d_model, 2 * width)]):
            return width
    return None


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
