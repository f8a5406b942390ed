"""Finds the sites of gated MLPs, where ARM can be attached, by structure in any architecture."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from armlet.attachment.gated_mlps import GatedForward, GatedMlp, gated_mlp, up_output
from armlet.redistribution.errors import ArgumentError, ArmletError, description


class UnsupportedModelError(ArmletError, TypeError):
    """The model or a layer has no gated MLP that ARM can be attached to, or `Layer1` does not support it.

    The message names the class and what was found there. Choose other layers, another site, or `experts="routed"` or
    `"shared"`; in an MLP of your own, call the module `ARM` after the activation.
    """


SITES = ("gate", "up", "product")
GATE, UP, PRODUCT = SITES
"""The output of the gate's activation, the output of up, before a clamp, softcap or addition of the model's, and the
input of down: their product."""

EXPERTS = ("all", "routed", "shared")
ALL_EXPERTS, ROUTED, SHARED = EXPERTS
"""In a mixture of experts: all of a layer's experts, those that a router chooses, or those that all tokens pass."""

DOWN = "down"
"""Part of down's name, used when shapes are ambiguous because the MLP is as wide as the model."""


WRAPPER_ATTRIBUTES = ("_checkpoint_wrapped_module", "_orig_mod")
"""The attributes by which torch's activation checkpointing and `torch.compile` keep a layer that they wrap."""


Part = tuple[int, int, int]
"""One of an attachment's sites: its layer, placement and part, see `Site`."""


@dataclass(frozen=True, eq=False)
class Site:
    """A place in one layer."""

    layer: int  # the layer's index, from 0
    mlp: nn.Module  # the gated MLP
    attribute: str  # the name of its activation (site "gate"), or of its linear up or down
    width: int  # the intermediate size
    site: str = GATE  # one of `SITES`
    part: int = 0  # counts the sites of a layer that has several, a mixture of experts
    half: int | None = None  # of the linear's output, where gate and up are one linear (site "up")
    placement: int = 0  # counts the placements of an attachment

    @property
    def key(self) -> Part:
        """What tells this site from the attachment's others."""
        return self.layer, self.placement, self.part

    @property
    def module(self) -> nn.Module:
        """The current module at this site."""
        return self.mlp.get_submodule(self.attribute)


@dataclass(frozen=True, eq=False)
class ForwardSite(Site):
    """The activated gate inside the forward of an MLP, which `attribute` names."""

    gated: GatedForward = field(kw_only=True)


def check_site(site: object) -> None:
    """Raises ArgumentError if `site` is not one of `SITES`."""
    if not isinstance(site, str) or site not in SITES:
        raise ArgumentError(f"site: expected {', '.join(SITES[:-1])} or {SITES[-1]}, found {description(site)}")


def check_experts(experts: object) -> None:
    """Raises ArgumentError if `experts` is not one of `EXPERTS`."""
    if experts not in EXPERTS:
        raise ArgumentError(f"experts: expected {', '.join(EXPERTS[:-1])} or {EXPERTS[-1]}, found {experts!r}")


def find_decoder(model: nn.Module, label: str = "") -> tuple[nn.Module, nn.ModuleList]:
    """Returns the module that runs the decoder layers, and the layers; `label` begins the errors.

    Raises:
        UnsupportedModelError: there is no list of layers, or there are several, of which none is known to be the text
            decoder's.
    """
    holder, label = model, label or type(model).__name__
    while not hasattr(holder, "get_decoder") and len(children := list(holder.children())) == 1:
        (holder,) = children
    root: nn.Module = getattr(holder, "get_decoder", lambda: holder)()  # the text decoder of a multimodal model
    root = root if _layer_lists(root) else model  # a head that is named `decoder` is no decoder
    lists = _layer_lists(root)
    if not lists:
        raise UnsupportedModelError(f"{label}: no list of decoder layers (an nn.ModuleList); pass a language model")
    owners = {owner for owner, _ in lists}
    lists = [(owner, layers) for owner, layers in lists if owners.issubset(owner.modules())]  # its towers are inside
    if not lists:
        parts = _branches(root, owners)
        names = [name for name, module in model.named_modules() if module in parts]
        raise UnsupportedModelError(
            f"{label}: {' and '.join(names)} have layers of their own, and get_decoder() does not say "
            f"which is the text decoder; attach to the one that you mean, such as attach(model.{names[0]}, ...)"
        )
    config: Any = getattr(holder, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    count = getattr(text, "num_hidden_layers", None)
    return next((pair for pair in lists if len(pair[1]) == count), lists[0])


def _layer_lists(root: nn.Module) -> list[tuple[nn.Module, nn.ModuleList]]:
    """The modules with a list of modules, and the lists, without those inside another list's entries."""
    lists: list[tuple[nn.Module, nn.ModuleList]] = []
    inner: set[nn.Module] = set()
    for owner in root.modules():
        children = [child for child in owner.children() if isinstance(child, nn.ModuleList) and len(child)]
        if owner not in inner:
            lists += [(owner, layers) for layers in children]
        inner.update(module for layers in children for module in layers.modules())
    return lists


def _branches(root: nn.Module, owners: set[nn.Module]) -> list[nn.Module]:
    """The children of a module, or of a part of it, in which some of these modules are, but not all."""
    parts = [child for child in root.children() if not owners.isdisjoint(child.modules())]
    return _branches(parts[0], owners) if len(parts) == 1 else parts


def find_sites(model: nn.Module, layers: Sequence[int] | str = (0,), site: str = GATE) -> list[Site]:
    """Finds the sites of some dense layers of a causal LM, in order; `layers` is the result of `layer_indices`.

    Raises:
        ArgumentError: a layer out of range, no layers, or an unknown site.
        UnsupportedModelError: a layer without a recognisable gated MLP or without a recognisable down, or with experts.
    """
    check_site(site)
    return [dense_site(type(model).__name__, index, layer, site) for index, layer in find_layers(model, layers)]


def find_layers(model: nn.Module, layers: Sequence[int] | str) -> list[tuple[int, nn.Module]]:
    """Index and module of some layers, without the wrappers that torch puts around them."""
    modules = find_decoder(model, f"{type(model).__name__}, layer {0 if isinstance(layers, str) else layers[0]}")[1]
    indices = range(len(modules)) if isinstance(layers, str) else layers
    for index in indices:
        if index not in range(len(modules)):
            raise ArgumentError(f"layers: {type(model).__name__} has layers 0 to {len(modules) - 1}, found {index!r}")
    return [(index, _unwrapped(modules[index])) for index in indices]


def _unwrapped(layer: nn.Module) -> nn.Module:
    for attribute in WRAPPER_ATTRIBUTES:
        layer = getattr(layer, attribute, layer)
    return layer


def mixture_block(layer: nn.Module) -> nn.Module | None:
    """The first module of a layer that has experts, possibly the layer itself; None in a dense layer."""
    return next(filter(is_mixture, layer.modules()), None)


def is_mixture(module: nn.Module) -> bool:
    """Whether a module has experts."""
    return isinstance(getattr(module, "experts", None), nn.Module)


def is_attention(module: nn.Module) -> bool:
    """Whether a module is an attention, which may contain small MLPs of its own, such as an indexer's."""
    return re.fullmatch(r".*Attention\d*", type(module).__name__) is not None  # not ZambaAttentionDecoderLayer


def outside_attention(layer: nn.Module) -> list[nn.Module]:
    """The layer and its modules, without its attentions and theirs."""
    inside = {module for child in layer.children() if is_attention(child) for module in child.modules()}
    return [module for module in layer.modules() if module not in inside]


def dense_site(model_name: str, index: int, layer: nn.Module, site: str) -> Site:
    """The site of a layer with one gated MLP; raises UnsupportedModelError for any other layer."""
    children = list(layer.children())
    gated = [mlp for child in children if (mlp := gated_mlp(child))]
    gated = gated or [mlp for module in outside_attention(layer) if (mlp := gated_mlp(module))]
    label = f"{model_name}, layer {index}"
    attentions = [type(child).__name__ for child in children if is_attention(child)]
    if attentions and all("CrossAttention" in name for name in attentions):  # Mllama
        raise UnsupportedModelError(
            f"{label}: its only attention is {attentions[0]}, so it is skipped for a prompt without an image, where "
            "ARM could not act; choose layers with self-attention"
        )
    if block := mixture_block(layer):
        raise UnsupportedModelError(
            f"{label}: {type(block).__name__} is a mixture of experts, and this needs layers with one dense gated MLP; "
            "choose other layers, or another model"
        )
    if len(gated) != 1:
        parts = [f"{type(c).__name__}({', '.join(n for n, _ in c.named_children())})" for c in children]
        raise UnsupportedModelError(
            f"{label}: expected one gated MLP (gate, up and down, or a fused gate_up and down, with an activation), "
            f"found {len(gated)} in {', '.join(parts)}; choose another layer, if the model has gated MLPs. Where the "
            f"MLP is your own code, create `arm = armlet.ARM(policy, width=..., layer={index})` and add "
            "`act = arm(act)` before the product with up"
        )
    return site_in(gated[0], label, index, site)


def site_in(gated: GatedMlp, label: str, index: int, site: str, part: int = 0) -> Site:
    """The site in a gated MLP; raises UnsupportedModelError without a recognisable down."""
    if site == UP:
        return _up_site(gated, label, index, part)
    if site == GATE and gated.forward:
        return ForwardSite(index, gated.mlp, "forward", gated.width, GATE, part, gated=gated.forward)
    attribute = gated.activation if site == GATE else _down(label, index, gated)
    if not attribute:
        raise UnsupportedModelError(
            f"{label}: {type(gated.mlp).__name__} computes its activation inside its forward, where ARM cannot act on "
            f"the activated gate: use site={PRODUCT!r} or {UP!r}"
        )
    return Site(index, gated.mlp, attribute, gated.width, site, part)


def _up_site(gated: GatedMlp, label: str, index: int, part: int) -> Site:
    up = up_output(gated, _down(label, index, gated))
    if up is None:
        raise UnsupportedModelError(
            f"{label}: the code of {type(gated.mlp).__name__} does not show which linear is up (its output, or that "
            f"plus 1, times a function of gate): use site={GATE!r} or {PRODUCT!r}"
        )
    return Site(index, gated.mlp, up.linear, gated.width, UP, part, up.half)


def _down(label: str, index: int, gated: GatedMlp) -> str:
    downs = gated.downs if len(gated.downs) == 1 else [name for name in gated.downs if DOWN in name]
    if len(downs) != 1:
        raise UnsupportedModelError(
            f"{label}: {', '.join(gated.downs)} have the same shape, and their names do not show which is down; in "
            f"your own gated MLP, create `arm = armlet.ARM(policy, width={gated.width}, layer={index})` and add "
            "`product = arm(product)` before down"
        )
    return downs[0]
