"""Attaches ARM to a model."""

from collections.abc import Iterable
from functools import cache

from torch import Tensor, nn

from armlet.attachment.attached import check_model
from armlet.attachment.config import layer_indices
from armlet.attachment.handle import Attachment
from armlet.attachment.sites import GATE, find_sites
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
) -> Attachment:
    """Attaches ARM to a causal LM with gated MLPs, after the gate's activation or after the product with `up`.

    ARM reads the positions and the padding mask from each call, in `generate()` and in a plain forward call. Weights,
    state-dict keys and classes stay unchanged.

    Two calls can attach ARM at both sites of a layer. Keyed noise depends on seed and layer but not on the site: use
    two seeds, or both sites draw the same numbers.

    Args:
        model: any Hugging Face causal LM with gated MLPs.
        policy: `Outward`, `Inward` or `Transport`, or text as on the command line, such as "outward:band=0.2".
        layers: an index, counted from 0 (Layer 1 of the papers is 0), several indices, a range, "all", or text such as
            "0,3" or "0-5,8".
        scope: "token" (independent of batch, padding, chunks and cache), "sequence" or "call", see `redistribute`.
        noise: `Noise(seed)`, `Noise.fresh()`, `Noise.midpoint()` or a tensor of uniforms shaped as each call's values.
        site: "gate", the output of the activation, or "product", the input of `down`.

    Returns:
        An `Attachment`: `detach()`, `paused()`, `update()`, `report()`, `reset()`, `save(path)`; also a context
        manager. `attached(model)` finds it again.

    Raises:
        UnsupportedModelError: the model or a layer has no gated MLP that can be recognised, or for the site "product"
            no recognisable `down`.
        AlreadyAttachedError: ARM is already attached at one of the sites.
        ArgumentError: not a model, a layer out of range, or an unknown policy, scope, noise or site.

    After any of these errors the model is unchanged. A note on stderr names settings of the policy that another one
    replaces, once; `strength=0`, which turns ARM off, is not one of them.
    """
    check_model(model)
    policy = as_policy(policy)
    check_policy(policy, scope)
    attachment = Attachment(model, find_sites(model, layer_indices(layers), site), policy, scope, source(noise))
    for sentence in without_effect(policy) if policy.strength else ():
        _note_once(sentence)
    return attachment


@cache
def _note_once(sentence: str) -> None:
    """Notes a sentence once in a process, because an evaluation attaches ARM for every batch."""
    from armlet.presentation.terminal import note

    note(sentence)
