"""The names of a layer's tensors in checkpoints and in models of transformers, and in `Layer1`."""

import re
from collections.abc import Mapping

from torch import Tensor

from armlet.attachment.sites import UnsupportedModelError
from armlet.layer.options import Options

TENSORS: dict[str, str] = {
    "RMSNorm_1": "input_layernorm",
    "Q": "self_attn.q_proj",
    "K": "self_attn.k_proj",
    "V": "self_attn.v_proj",
    "Q.down": "self_attn.q_a_proj",
    "Q.norm": "self_attn.q_a_layernorm",
    "Q.up": "self_attn.q_b_proj",
    "K.down": "self_attn.kv_a_proj_with_mqa",
    "K.norm": "self_attn.kv_a_layernorm",
    "K.up": "self_attn.kv_b_proj.K",
    "V.down": "self_attn.kv_a_proj_with_mqa.V",
    "V.norm": "self_attn.kv_a_layernorm",
    "V.up": "self_attn.kv_b_proj.V",
    "RMSNorm_Q": "self_attn.q_norm",
    "RMSNorm_K": "self_attn.k_norm",
    "Attention": "self_attn",
    "Output": "self_attn.o_proj",
    "RMSNorm_2": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "router": "mlp.gate",
    "shared.gate": "mlp.shared_expert.gate_proj",
    "shared.up": "mlp.shared_expert.up_proj",
    "shared.down": "mlp.shared_expert.down_proj",
    "shared_weight": "mlp.shared_expert_gate",
}
"""Part of `Layer1` → its name in a checkpoint, without ".weight" or ".bias"."""

POST_NORM_TENSORS: dict[str, str] = {
    "RMSNorm_Output": "post_attention_layernorm",
    "RMSNorm_2": "pre_feedforward_layernorm",
    "RMSNorm_down": "post_feedforward_layernorm",
}
"""The names that differ with `post_norm`, where "post_attention_layernorm" really follows attention."""

FAMILY_TENSORS: dict[str, dict[str, str]] = {
    "glm4": {
        "RMSNorm_Output": "post_self_attn_layernorm",
        "RMSNorm_2": "post_attention_layernorm",
        "RMSNorm_down": "post_mlp_layernorm",
    },
}
"""Family → the names that differ in it."""

RENAMED: dict[str, str] = {
    r"^block_sparse_moe\.": "mlp.",
    r"(?<=experts\.)(\d+)\.w1\.": r"\1.gate_proj.",
    r"(?<=experts\.)(\d+)\.w3\.": r"\1.up_proj.",
    r"(?<=experts\.)(\d+)\.w2\.": r"\1.down_proj.",
    r"^mlp\.shared_experts\.": "mlp.shared_expert.",
    r"^mlp\.router\.": "mlp.gate.",
}
"""Other names of the same tensors in released checkpoints (Mixtral, GLM-4-MoE, gpt-oss)."""

FUSED: dict[str, tuple[str, ...]] = {
    "self_attn.qkv_proj.weight": ("Q", "K", "V"),
    "mlp.gate_up_proj.weight": ("gate", "up"),
}
"""Name in a checkpoint → the parts whose weights are its rows, in order (Phi-3, GLM-4)."""


def rename(options: Options, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a checkpoint's tensors to the names of `Layer1`, and splits fused ones without copying.

    The keys of `tensors` are the names after "model.layers.N."; `expected`, with keys such as "Q.weight", has the names
    and shapes to return. Raises UnsupportedModelError if a tensor is missing, unknown or has a wrong shape.
    """
    stored_names = {name: _stored_name(options, name) for name in expected}
    single = {_usual_name(name): tensor for name, tensor in tensors.items()}
    for fused in FUSED.keys() & single.keys():
        rows = [len(expected[f"{part}.weight"]) for part in FUSED[fused] if f"{part}.weight" in expected]
        if sum(rows) == len(single[fused]):
            pieces = zip(FUSED[fused], single.pop(fused).split(rows), strict=True)
            single |= {f"{TENSORS[part]}.weight": piece for part, piece in pieces}
    single = _split_latent(options, _split_experts(options, single))
    missing, unknown = stored_names.values() - single.keys(), single.keys() - stored_names.values()
    if missing or unknown:
        names = f"{_some(missing)} are missing and {_some(unknown)} unknown"
        raise UnsupportedModelError(f"Layer1: layer {options.layer} is not as its configuration says: {names}")
    for name, stored in stored_names.items():
        if single[stored].shape != expected[name].shape:
            shapes = f"{list(expected[name].shape)}, found {list(single[stored].shape)}"
            raise UnsupportedModelError(f"Layer1: layer {options.layer}: expected {stored} of shape {shapes}")
    return {name: single[stored] for name, stored in stored_names.items()}


def _stored_name(options: Options, name: str) -> str:
    """The checkpoint's name of "Q.weight", or of "gate.3.weight", the gate of an expert."""
    names = TENSORS | (POST_NORM_TENSORS if options.post_norm else {}) | FAMILY_TENSORS.get(options.family, {})
    part, _, kind = name.rpartition(".")
    if part in names:
        return f"{names[part]}.{kind}"
    part, _, expert = part.partition(".")
    return f"mlp.experts.{expert}.{names[part].removeprefix('mlp.')}.{kind}"


def _usual_name(name: str) -> str:
    for pattern, usual in RENAMED.items():
        name = re.sub(pattern, usual, name)
    return name


def _split_experts(options: Options, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Splits the tensors of all experts, `[experts, ...]`, into those of single experts, which are views.

    gpt-oss stores weights transposed, and gate and up as neighbouring columns; other families store gate before up.
    """
    single = dict(tensors)
    for fused in ("gate_up_proj", "down_proj", "gate_up_proj_bias", "down_proj_bias"):
        whole = single.pop(f"mlp.experts.{fused}", None)
        part, _, kind = fused.partition("_proj")
        for expert, tensor in enumerate(() if whole is None else whole):
            neighbours = options.swiglu is not None
            rows = tensor.mT if neighbours and not kind else tensor
            halves = (rows[::2], rows[1::2]) if neighbours else rows.tensor_split(2)
            pieces = dict(zip(("gate", "up"), halves, strict=True)) if part == "gate_up" else {part: rows}
            suffix = "bias" if kind else "weight"
            single |= {f"mlp.experts.{expert}.{name}_proj.{suffix}": piece for name, piece in pieces.items()}
    return single


def _split_latent(options: Options, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Splits the tensors that K and V share in latent attention: the map to the vector for both, and that from it.

    The latter is copied: each head has rows for K and then rows for V.
    """
    single, latent = dict(tensors), options.latent
    both = single.pop("self_attn.kv_b_proj.weight", None)
    if latent is None or both is None or len(both) % options.heads:
        return dict(tensors)
    heads = both.unflatten(0, (options.heads, -1)).split((options.head_dim - latent.rotated, latent.value_dim), dim=1)
    single |= {f"self_attn.kv_b_proj.{part}.weight": rows.flatten(0, 1) for part, rows in zip("KV", heads, strict=True)}
    down = "self_attn.kv_a_proj_with_mqa"
    for kind in ("weight", "bias"):
        if f"{down}.{kind}" in single:
            single[f"{down}.V.{kind}"] = single[f"{down}.{kind}"][: latent.rank]
    return single


def _some(names: set[str]) -> list[str]:
    """The names, at most six: a mixture can have hundreds."""
    shown = sorted(names)
    return shown if len(shown) <= 6 else [*shown[:6], f"… ({len(shown)} in all)"]
