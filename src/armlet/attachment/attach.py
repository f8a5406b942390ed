"""Attaches ARM to a model."""

from collections.abc import Iterable
from functools import cache

from torch import Tensor, nn

from armlet.attachment.attached import check_model
from armlet.attachment.config import layer_indices
from armlet.attachment.experts import check_routed
from armlet.attachment.handle import Attachment
from armlet.attachment.mixtures import find_all_sites
from armlet.attachment.origin import policy_origin
from armlet.attachment.sites import ALL_EXPERTS, GATE
from armlet.redistribution.arguments import check_policy
from armlet.redistribution.noise import Noise, Source, source
from armlet.redistribution.policies import as_policy, without_effect
from armlet.redistribution.rows import Policy


def attach(
    model: nn.Module,
    policy: Policy | str,
    *,
    layers: int | Iterable[int] | str = 0,
    scope: str = "token",
    noise: Source | Tensor = Noise(0),  # noqa: B008 - frozen
    site: str = GATE,
    experts: str = ALL_EXPERTS,
) -> Attachment:
    """Attaches ARM to a causal LM with gated MLPs, after the gate's activation or after the product with `up`.

    ARM reads the positions and the padding mask from each call, in `generate()` and in a plain forward call. Weights,
    state-dict keys and classes stay unchanged.

    Two calls can attach ARM at both sites of a layer. Keyed noise depends on seed and layer but not on the site: use
    two seeds, or both sites draw the same numbers.

    In a mixture of experts, a row is one token in one expert: the policy sees that expert's values of that token. Keyed
    noise depends on the token's position and, in routed experts, on the expert: channel j of expert e of width w is
    channel e·w + j.

    Args:
        model: any Hugging Face causal LM with gated MLPs.
        policy: `Outward`, `Inward`, `Transport` or `Cut`, or text as on the command line, such as "outward:band=0.2".
        layers: an index, counted from 0 (Layer 1 of the papers is 0), several indices, a range, "all", or text such as
            "0,3" or "0-5,8".
        scope: "token" (independent of batch, padding, chunks and cache), "sequence" or "call", see `redistribute`.
        noise: `Noise(seed)`, `Noise.fresh()`, `Noise.midpoint()` or a tensor of uniforms shaped as each call's values.
        site: "gate", the output of the activation, or "product", the input of `down`.
        experts: in layers that are mixtures of experts: "routed", those that the router chooses; "shared", the dense
            MLPs beside them, through which all tokens go; "all". In dense layers only "all" has a meaning.

    Returns:
        An `Attachment`: `detach()`, `paused()`, `update()`, `report()`, `reset()`, `save(path)`; also a context
        manager. `attached(model)` finds it again.

    Raises:
        UnsupportedModelError: the model or a layer has no gated MLP that can be recognised, for the site "product" no
            recognisable `down`, or it is a mixture of which a part cannot be reached or does not exist.
        AlreadyAttachedError: ARM is already attached at one of the sites.
        ArgumentError: not a model, a layer out of range, or an unknown policy, scope, noise, site or kind of experts;
            for routed experts also any scope but "token", and a tensor as noise.

    After any of these errors the model is unchanged. A note on stderr names settings of the policy that another one
    replaces, once; `strength=0`, which turns ARM off, is not one of them.
    """
    check_model(model)
    origin, policy = policy_origin(policy), as_policy(policy)
    check_policy(policy, scope)
    noise, sites = source(noise), find_all_sites(model, layer_indices(layers), site, experts)
    check_routed(sites, scope, noise)
    attachment = Attachment(model, sites, policy, scope, noise, experts, origin)
    for sentence in without_effect(policy) if policy.strength else ():
        _note_once(sentence)
    return attachment


@cache
def _note_once(sentence: str) -> None:
    """Notes a sentence once in a process, because an evaluation attaches ARM for every batch."""
    from armlet.presentation.terminal import note

    note(sentence)
