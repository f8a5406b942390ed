"""Finds the sites of mixtures of experts: a layer's routed experts, and the dense gated MLPs that run beside them."""

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from armlet.attachment.expert_reach import (
    APPLY_GATE,
    SIZE,
    FusedWeights,
    dispatches,
    fused_weights,
    reached,
    up_columns,
)
from armlet.attachment.expert_rows import EAGER
from armlet.attachment.gate_formula import has_formula
from armlet.attachment.gated_mlps import ACTIVATION_FUNCTIONS, gated_mlp, is_activation, possible_downs
from armlet.attachment.sites import (
    ALL_EXPERTS,
    GATE,
    ROUTED,
    SHARED,
    UP,
    Site,
    UnsupportedModelError,
    check_experts,
    check_site,
    dense_site,
    find_layers,
    is_mixture,
    mixture_block,
    outside_attention,
    site_in,
)


@dataclass(frozen=True, eq=False)
class ExpertsSite(Site):
    """The routed experts of one layer: `mlp` is the module with all of them, `width` the intermediate size of each."""

    experts: int = 0
    implementations: frozenset[str] = frozenset()  # with which ARM can be at this site
    routing_name: str = ""  # of forward's argument with the routing; "" if all experts run on all tokens
    up: slice | None = None  # the columns of up in what `_apply_gate` gets (site "up")

    def check_implementation(self) -> str:
        """How transformers computes these experts now; raises UnsupportedModelError if ARM cannot be there."""
        config = self.mlp.config if dispatches(self.mlp) else None
        name: str = getattr(config, "_experts_implementation", None) or EAGER
        if name not in self.implementations:
            names = " or ".join(repr(known) for known in sorted(self.implementations, reverse=True))
            raise UnsupportedModelError(
                f"layer {self.layer}: {type(self.mlp).__name__} computes its experts by {name!r}, where ARM cannot "
                f"tell which token and expert a row of the {self.site} belongs to; call "
                f"model.set_experts_implementation with {names}"
            )
        return name


def find_all_sites(model: nn.Module, layers: Sequence[int] | str, site: str, experts: str) -> list[Site]:
    """Finds the sites of some layers, dense ones and mixtures of experts, in order; see `sites.find_sites`.

    In a mixture, `experts` says which: "routed", "shared" (the dense MLPs beside them) or "all", which is all or none.

    Raises:
        ArgumentError: a layer out of range, no layers, or an unknown site or kind of experts.
        UnsupportedModelError: a part of a layer cannot be recognised or reached, or there is none of this kind.
    """
    check_site(site)
    check_experts(experts)
    sites: list[Site] = []
    for index, layer in find_layers(model, layers):
        if block := mixture_block(layer):
            sites += _mixture_sites(f"{type(model).__name__}, layer {index}", index, layer, block, site, experts)
        elif experts == ALL_EXPERTS:
            sites.append(dense_site(type(model).__name__, index, layer, site))
        else:
            raise UnsupportedModelError(
                f"{type(model).__name__}, layer {index}: has no experts, so experts={experts!r} has no meaning there; "
                f"{_mixtures_of(model)}, or leave `experts` out"
            )
    _refuse_shared(model, sites)
    return sites


def _mixtures_of(model: nn.Module) -> str:
    indices = [index for index, layer in find_layers(model, "all") if mixture_block(layer)]
    return f"choose from the layers with experts, {', '.join(map(str, indices))}" if indices else "no layer has them"


def _refuse_shared(model: nn.Module, sites: Iterable[Site]) -> None:
    layers = [(index, set(layer.modules())) for index, layer in find_layers(model, "all")]
    for site in sites:
        sharing = [index for index, modules in layers if site.mlp in modules]
        if len(sharing) > 1:
            raise UnsupportedModelError(
                f"{type(model).__name__}, layer {site.layer}: layers {sharing} share one {type(site.mlp).__name__}, so "
                "that ARM would act in all of them with the draws of one; give each layer its own, by copy.deepcopy"
            )


def _mixture_sites(label: str, index: int, layer: nn.Module, block: nn.Module, site: str, experts: str) -> list[Site]:
    modules = outside_attention(layer)
    routed = [(module, weights) for module in modules if (weights := fused_weights(module))]
    parts = {part for module in modules if is_mixture(module) for part in module.get_submodule("experts").modules()}
    beside = [module for module in modules if module not in parts]
    dense = [gated for module in beside if (gated := gated_mlp(module))]
    sites: list[Site] = []
    if experts != SHARED:
        if len(routed) != 1:
            raise UnsupportedModelError(
                f"{label}: expected the routed experts in one module with the weights gate_up_proj and down_proj of "
                f"all of them, found {len(routed)} in {type(block).__name__}; choose another layer"
                + (f", or experts={SHARED!r}" if dense else "")
            )
        sites.append(_experts_site(label, index, *routed[0], site))
    if experts != ROUTED:
        _refuse_unknown(label, set(beside) - {gated.mlp for gated in dense})
        if experts == SHARED and not dense:
            raise UnsupportedModelError(f"{label}: has no shared experts; use experts={ROUTED!r}")
        sites += [site_in(gated, label, index, site, part) for part, gated in enumerate(dense, len(sites))]
    return sites


def _experts_site(label: str, index: int, experts: nn.Module, weights: FusedWeights, site: str) -> ExpertsSite:
    arguments = list(inspect.signature(type(experts).forward).parameters)[2:]  # without self and the hidden states
    routing_name = arguments[0] if arguments else ""
    up, attribute = None, _only_activation(experts) if site == GATE else APPLY_GATE
    if site == UP and (up := up_columns(experts, weights.width)) is None:
        attribute = ""
    implementations = reached(experts, weights, attribute, routing_name) if attribute else frozenset[str]()
    if not implementations and site == GATE and _has_formula(experts):
        attribute, implementations = APPLY_GATE, reached(experts, weights, APPLY_GATE, routing_name)
    if getattr(experts, "_is_expert_parallel", False) or hasattr(experts.gate_up_proj, "placements"):
        raise UnsupportedModelError(
            f"{label}: {type(experts).__name__} has its experts spread over devices, each of which computes other "
            "rows; load the model without tp_plan, or attach before fully_shard"
        )
    if not implementations:
        raise UnsupportedModelError(
            f"{label}: {type(experts).__name__} computes its experts in a way in which ARM cannot tell which token and "
            f"expert a row of the {site} belongs to (another activation, quantised weights?); choose another site, "
            f"another layer, or experts={SHARED!r}, if it has shared ones"
        )
    routed: dict[str, Any] = {"implementations": implementations, "routing_name": routing_name, "up": up}
    place = ExpertsSite(index, experts, attribute, weights.width, site, experts=weights.experts, **routed)
    place.check_implementation()
    return place


def _has_formula(experts: nn.Module) -> bool:
    """Whether the experts' `_apply_gate` has the bits of a known formula."""
    return has_formula(experts, SIZE, partial(getattr(type(experts), APPLY_GATE), experts))


def _only_activation(experts: nn.Module) -> str:
    """The name of the only activation, a module or a function; "" without one."""
    functions = [name for name, value in vars(experts).items() if isinstance(value, ACTIVATION_FUNCTIONS)]
    arm = vars(experts).get(APPLY_GATE)  # at other sites
    modules = [name for name, child in experts.named_children() if child is not arm and is_activation(child)]
    return (modules + functions)[0] if len(modules + functions) == 1 else ""


def _refuse_unknown(label: str, modules: Iterable[nn.Module]) -> None:
    """Raises UnsupportedModelError if one of these modules is an MLP: it would be left untreated."""
    for module in modules:
        names = [name for name, child in module.named_children() if hasattr(child, "in_features")]
        names += [name for name, weight in module.named_parameters(recurse=False) if weight.dim() == 3]
        named_so = any("down_proj" in name for name in names) and any("up" in name or "gate" in name for name in names)
        exists = any(parameter.numel() for parameter in module.parameters())  # not 0 shared experts
        if exists and (named_so or possible_downs(module)):
            raise UnsupportedModelError(
                f"{label}: {type(module).__name__} ({', '.join(names)}) runs beside the experts, and is no gated MLP "
                f"with an activation module; a layer is treated whole or not at all, unless experts={ROUTED!r}"
            )
