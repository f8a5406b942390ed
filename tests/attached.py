"""What the tests of attached models share: policies, prompts with padding, and what attaching shows and could leave."""

from contextlib import contextmanager

import pytest
import torch

from armlet import ARM, Cut, Inward, Outward, Transport, redistribute
from armlet.attachment.sites import SITES
from families import prompt

POLICIES = [Outward(), Inward(knee=0.9), Transport()]
each_policy = pytest.mark.parametrize("policy", [*POLICIES, Cut()], ids=lambda policy: policy.name)
each_site = pytest.mark.parametrize("site", SITES)
each_cache = pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}], ids=["dynamic", "static"])


def other_site(site):
    """A site that `site` is not."""
    return SITES[SITES.index(site) - 1]


@contextmanager
def redistributed_by_hook(model, policy, noise, site):
    """Layer 0 of a model from transformers, with a plain hook that redistributes at the site."""
    mlp = model.get_decoder().layers[0].mlp
    if site == "product":
        handle = mlp.down_proj.register_forward_pre_hook(lambda _, args: redistribute(args[0], policy, noise=noise))
    elif site == "up":
        linear = getattr(mlp, "up_proj", None) or mlp.gate_up_proj
        handle = linear.register_forward_hook(lambda _, _args, out: _with_up(out, mlp, policy, noise))
    else:
        activation = next(child for name, child in mlp.named_children() if name in ("act_fn", "activation_fn"))
        handle = activation.register_forward_hook(lambda _, _args, out: redistribute(out, policy, noise=noise))
    try:
        yield
    finally:
        handle.remove()


def _with_up(output, mlp, policy, noise):
    """The output of up, or of gate and up, redistributed: up is the second half (Phi-3's code)."""
    width = mlp.down_proj.in_features
    up = redistribute(output[..., -width:].contiguous(), policy, noise=noise)
    return torch.cat((output[..., :-width], up), -1)


@contextmanager
def seen(model):
    """What reaches each ARM of an attached model: a list of (layer, positions, mask), batches expanded."""
    calls, handles = [], []

    def note(arm, args):
        a, positions, mask = args
        mask = torch.ones(a.shape[:2], dtype=torch.bool) if mask is None else mask
        calls.append((arm.layer, positions.expand(a.shape[:2]).clone(), mask.clone()))

    for module in model.modules():
        if isinstance(module, ARM):
            handles.append(module.register_forward_pre_hook(note))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def anatomy(model):
    """All that attaching could leave behind."""
    hooks = [
        (name, kind, len(getattr(module, kind)))
        for name, module in model.named_modules()
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called", "_backward_hooks")
    ]
    return str(model), list(model.state_dict()), [name for name, _ in model.named_buffers()], hooks


def padded(side):
    """Prompts of 3 and 6 tokens, padded to 6 on one side."""
    short, long = prompt(3, seed=1), prompt(6, seed=2)
    filler = torch.zeros(1, 3, dtype=torch.int64)
    ids = torch.cat((torch.cat((filler, short) if side == "left" else (short, filler), 1), long))
    return ids, (ids != 0).long()
