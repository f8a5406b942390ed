"""Attaches ARM to a model."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache

from torch import Tensor, nn

from armlet.attachment.attached import check_model
from armlet.attachment.config import AttachArguments
from armlet.attachment.experts import check_routed
from armlet.attachment.handle import Attachment
from armlet.attachment.mixtures import find_all_sites
from armlet.attachment.placements import Placement, read_placements
from armlet.attachment.sites import ALL_EXPERTS, GATE, Site
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise, Source
from armlet.redistribution.policies import without_effect
from armlet.redistribution.rows import Policy


def attach(
    model: nn.Module,
    policy: Policy | str | Sequence[AttachArguments],
    *,
    layers: int | Iterable[int] | str = 0,
    scope: str = "token",
    noise: Source | Tensor = Noise(0),  # noqa: B008 - frozen
    site: str = GATE,
    experts: str = ALL_EXPERTS,
) -> Attachment:
    """Attaches ARM to a causal LM with gated MLPs: after the gate's activation, after `up`, or after their product.

    ARM reads the positions and the padding mask from each call, in `generate()` and in a plain forward call. Weights,
    state-dict keys and classes stay unchanged.

    Several placements, at other sites or with other settings by layer, are a list of mappings with these arguments,
    `attach(model, [{"policy": Inward(limit=7.0), "site": "up"}, {"policy": Inward(limit=7.0), "site": "gate"}])`; what
    one leaves out is as in this call. Keyed noise depends on seed and layer but not on the site: use two seeds, or two
    sites of a layer draw the same numbers.

    In a mixture of experts, a row is one token in one expert: the policy sees that expert's values of that token. Keyed
    noise depends on the token's position and, in routed experts, on the expert: channel j of expert e of width w is
    channel e·w + j.

    Args:
        model: any Hugging Face causal LM with gated MLPs.
        policy: `Outward`, `Inward`, `Transport` or `Cut`, one of your own (docs/howto/own_policy.md), or text as on the
            command line, such as "outward:band=0.2";
            or a list of placements.
        layers: an index, counted from 0 (Layer 1 of the papers is 0), several indices, a range, "all", or text such as
            "0,3" or "0-5,8".
        scope: "token" (independent of batch, padding, chunks and cache), "sequence" or "call", see `redistribute`.
        noise: `Noise(seed)`, `Noise.fresh()`, `Noise.midpoint()` or a tensor of uniforms shaped as each call's values.
        site: "gate", the output of the activation; "up", the output of the linear `up`, before a clamp or an addition
            of the model's; or "product", the input of `down`.
        experts: in layers that are mixtures of experts: "routed", those that the router chooses; "shared", the dense
            MLPs beside them, through which all tokens go; "all". In dense layers only "all" has a meaning.

    Returns:
        An `Attachment`: `detach()`, `paused()`, `update()`, `report()`, `reset()`, `save(path)`; also a context
        manager. `attached(model)` finds it again.

    Raises:
        UnsupportedModelError: the model or a layer has no gated MLP that can be recognised, for the sites "up" and
            "product" no recognisable `up` or `down`, or it is a mixture of which a part cannot be reached or does not
            exist.
        AlreadyAttachedError: ARM is already attached at one of the sites.
        ArgumentError: not a model, a layer out of range, an unknown policy, scope, noise, site or kind of experts, or
            two placements at the same site; for routed experts also any scope but "token", and a tensor as noise.

    After any of these errors the model is unchanged. A note on stderr names settings of the policy that another one
    replaces, once; `strength=0`, which turns ARM off, is not one of them.
    """
    check_model(model)
    defaults = {"layers": layers, "scope": scope, "noise": noise, "site": site, "experts": experts}
    placements = read_placements(policy, defaults)
    sites = [_sites(model, placement, number) for number, placement in enumerate(placements)]
    _refuse_same_site([place for group in sites for place in group])
    attachment = Attachment(model, placements, sites)
    for sentence in _without_effect(placements):
        _note_once(sentence)
    return attachment


def _sites(model: nn.Module, placement: Placement, number: int) -> list[Site]:
    """The sites of a placement, the number-th of its attachment."""
    sites = find_all_sites(model, placement.layers, placement.site, placement.experts)
    check_routed(sites, placement.scope, placement.noise)
    return [replace(site, placement=number) for site in sites]


def _refuse_same_site(sites: Iterable[Site]) -> None:
    seen: dict[tuple[nn.Module, str], Site] = {}
    for site in sites:
        other = seen.setdefault((site.mlp, site.site), site)
        if other is not site:
            raise ArgumentError(
                f"placements: {other.placement} and {site.placement} are both at the site {site.site} of layer "
                f"{site.layer}, which can have only one"
            )


def _without_effect(placements: Iterable[Placement]) -> list[str]:
    """Says which settings have no effect, of policies that are turned on."""
    policies = [placement.policy for placement in placements if placement.policy.strength]
    return [sentence for policy in policies for sentence in without_effect(policy)]


@cache
def _note_once(sentence: str) -> None:
    """Notes a sentence once in a process, because an evaluation attaches ARM for every batch."""
    from armlet.presentation.terminal import note

    note(sentence)
