"""Makes the ARM of a site, and puts it there."""

from functools import partial
from typing import Any

import torch
from torch import nn

from armlet.attachment.call_tracker import CallTracker, Undo
from armlet.attachment.expert_reach import APPLY_GATE
from armlet.attachment.experts import ExpertsArm, ExpertsGate, RedistributedActivation, RoutedExperts
from armlet.attachment.mixtures import ExpertsSite
from armlet.attachment.module import ARM
from armlet.attachment.sites import GATE, UP, ForwardSite, Site
from armlet.attachment.wrappers import (
    RedistributedForward,
    RedistributedInput,
    RedistributedOutput,
    RedistributedUp,
)


def make_arm(site: Site, **arguments: Any) -> ARM:
    """Makes the ARM of a site on the site's device; see `ARM` for the arguments."""
    arguments |= {"width": site.width, "layer": site.layer}
    with torch.inference_mode(False):  # counters must be ordinary tensors even if the caller is in inference mode
        arm = ExpertsArm(experts=site.experts, **arguments) if isinstance(site, ExpertsSite) else ARM(**arguments)
    device = next((p.device for p in site.mlp.parameters() if p.device.type != "meta"), torch.device("cpu"))
    return arm.to(device)


def put_arm(site: Site, arm: ARM, tracker: CallTracker, undo: Undo) -> None:
    """Puts ARM at a site of a model; the steps added to `undo` remove it."""
    if isinstance(site, ExpertsSite) and isinstance(arm, ExpertsArm):
        _put_in_experts(site, arm, tracker, undo)
        return
    if isinstance(site, ForwardSite):
        wrapper = RedistributedForward(site, arm, tracker)
        undo.append(wrapper.take_out)
        wrapper.put_in()
        return
    if site.site == GATE:
        wrapper = RedistributedOutput(site, arm, tracker)
    else:
        wrapper = (RedistributedUp if site.site == UP else RedistributedInput)(site, arm, tracker)
        undo.append(tracker.before_call.clear)
        tracker.before_call.append(wrapper.settle)
    undo.append(wrapper.take_out)
    setattr(site.mlp, site.attribute, wrapper)


def _put_in_experts(site: ExpertsSite, arm: ExpertsArm, tracker: CallTracker, undo: Undo) -> None:
    experts = site.mlp
    if site.attribute == APPLY_GATE:
        wrapper, gate = RoutedExperts(site, arm, tracker), ExpertsGate.of(experts)
        undo.append(partial(gate.take_out, site.site))
        gate.add_module(site.site, wrapper)
    else:
        wrapper = RedistributedActivation(site, arm, tracker)
        undo.append(partial(setattr, experts, site.attribute, wrapper.activation))
        setattr(experts, site.attribute, wrapper)
        if not isinstance(wrapper.activation, nn.Module):  # a function, which cannot take a module's place
            undo.append(partial(delattr, experts, site.attribute))
    undo.append(experts.register_forward_pre_hook(wrapper.route, with_kwargs=True).remove)
    undo.append(experts.register_forward_hook(wrapper.finish).remove)


def has_arm(site: Site) -> bool:
    """Whether ARM is at this site."""
    if isinstance(site, ForwardSite):
        return "arm" in site.mlp._modules
    there = getattr(site.mlp, site.attribute)
    if site.attribute == APPLY_GATE:
        return isinstance(there, ExpertsGate) and hasattr(there, site.site)
    # An adapter may be around ARM until the next call.
    return isinstance(there, nn.Module) and any(isinstance(part, ARM) for part in there.modules())
