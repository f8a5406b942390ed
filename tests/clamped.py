"""Tiny models with clamps in their gated MLPs, and ways in which an engine may leave them out."""

from contextlib import contextmanager
from math import inf

import torch
import transformers as hf
from packaging.version import Version

from armlet.attachment.expert_rows import EAGER
from shrinking import tiny_config

SUPPORTED = Version(hf.__version__) >= Version("5.24")  # an older transformers has no such models
LIMIT = 0.25  # of gates and ups with a standard deviation of about 1
STEP_LIMITS = {"swiglu_limits": [0.0, 0.25, 0.5, 0.25], "swiglu_limits_shared": [0.25, 0.25, 0.125, 0.0]}
CLASSES = {
    "gpt_oss": hf.GptOssForCausalLM,
    "minimax_m3_vl_text": getattr(hf, "MiniMaxM3VLForCausalLM", None),
    "deepseek_v4": getattr(hf, "DeepseekV4ForCausalLM", None),
    "glm5_next": getattr(hf, "Glm5NextForConditionalGeneration", None),
    "hy_v4": getattr(hf, "HYV4ForCausalLM", None),
    "hy_v4_vl": getattr(hf, "HYV4VLForConditionalGeneration", None),
    "step3p7": getattr(hf, "Step3p7ForConditionalGeneration", None),
}
LIMIT_NAMES = ("limit", "swiglu_limit")  # attributes of MLPs and of experts


def clamped(model_type, implementation=EAGER, *, dtype=torch.float32, limit=LIMIT):
    """A tiny model with small limits; None if its experts do not have this implementation."""
    config = tiny_config(model_type)
    text = config.get_text_config()
    for key, value in (STEP_LIMITS if model_type == "step3p7" else {"swiglu_limit": limit}).items():
        setattr(text, key, value)
    if "dense" in text.to_dict().get("mlp_layer_types", ()):
        text.mlp_layer_types = ["dense", "sparse", "sparse", "sparse"]
    for name in ("moe_intermediate_size", "intermediate_size"):  # grouped kernels need a multiple of 16 bytes
        if isinstance(getattr(text, name, None), int):
            setattr(text, name, 24)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = CLASSES[model_type](config)
        for parameter in model.parameters():
            parameter.normal_(0, 0.2) if parameter.dim() > 1 else parameter.normal_(1, 0.1)
    if model._can_set_experts_implementation():
        model.set_experts_implementation(implementation)
    elif implementation != EAGER:
        return None
    return model.to(dtype).eval()


def set_limit(mlp, limit):
    """Gives an MLP, or all experts of a layer, another limit; inf for none. Returns the limit before."""
    names = [name for name in LIMIT_NAMES if hasattr(mlp, name)]
    before = getattr(mlp, names[0])
    for name in names:
        setattr(mlp, name, limit)
    return before


@contextmanager
def with_limit(mlp, limit):
    before = set_limit(mlp, limit)
    try:
        yield
    finally:
        set_limit(mlp, before)


def free_expert(experts, expert, limit=inf):
    """Replaces the forward of a layer's experts by one in which an expert has another limit."""
    forward = experts.forward

    def patched(hidden, index, weights):
        others = forward(hidden, index, weights * (index != expert))
        with with_limit(experts, limit):
            return others + forward(hidden, index, weights * (index == expert))

    experts.forward = patched


def free_site_of_experts(experts, site, interleaved):
    """Replaces `_apply_gate` of a layer's experts by one that clamps only the other site."""
    apply = experts._apply_gate
    limit = next(getattr(experts, name) for name in LIMIT_NAMES if hasattr(experts, name))

    def patched(gate_up):
        parts = [gate_up[..., ::2], gate_up[..., 1::2]] if interleaved else gate_up.chunk(2, -1)
        gate, up = parts if site == "up" else (parts[0], parts[1].clamp(-limit, limit))
        if site == "up":
            gate = gate.clamp(max=before_activation(experts, limit))
        joined = torch.stack((gate, up), -1).flatten(-2) if interleaved else torch.cat((gate, up), -1)
        with with_limit(experts, inf):
            return apply(joined)

    experts._apply_gate = patched


def before_activation(mlp, limit):
    """The gate at which the clamp begins: Step clamps after SiLU."""
    if "Step" not in type(mlp).__name__:
        return limit
    gates = torch.linspace(limit, limit + 0.3, 100_001, dtype=torch.float64)
    return gates[(torch.nn.functional.silu(gates) < limit).sum()].item()


def free_site_of_mlp(mlp, site):
    """Takes one of the two clamps out of an MLP: the other is then a hook of its linear."""
    limit = set_limit(mlp, inf)
    top, bottom = (before_activation(mlp, limit), -inf) if site == "up" else (limit, -limit)
    if hasattr(mlp, "gate_up_proj"):
        half = 0 if site == "up" else 1

        def cut(_module, _inputs, output):
            parts = list(output.chunk(2, -1))
            parts[half] = parts[half].clamp(bottom, top)
            return torch.cat(parts, -1)

        mlp.gate_up_proj.register_forward_hook(cut)
    else:
        linear = mlp.gate_proj if site == "up" else mlp.up_proj
        linear.register_forward_hook(lambda _module, _inputs, output: output.clamp(bottom, top))
