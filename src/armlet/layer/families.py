"""What each family's code in transformers computes, and which keys of the configuration it reads; it ignores others.

A configuration in use often has keys that its family ignores, or that mean something in another family only. So an
option is read from a key only where the family's own modeling code reads this key.
"""

from collections.abc import Callable, Mapping
from math import log
from typing import Any

TextConfig = Any
"""A configuration for text: a Hugging Face model's, or its part; which attributes it has depends on the family."""

Read = Callable[[TextConfig, int], object]
"""The value of an option, from a configuration for text and a layer's index."""

Family = dict[str, object]
"""The name of an option of `Options` → its value in every layer, or how to read it."""


def key(name: str) -> Read:
    """Reads the configuration's `name`."""
    return lambda text, _layer: getattr(text, name)


def kind(text: TextConfig, layer: int) -> str:
    """The layer's entry in `layer_types`; raises ValueError for another kind of attention than causal.

    A sliding layer without a window, which transformers refuses, is refused here, too.
    """
    name = text.layer_types[layer]
    if name == "sliding_attention" and not text.sliding_window:
        raise ValueError(f"layer_types[{layer}] is {name!r}, without sliding_window")
    if name not in ("full_attention", "sliding_attention"):
        raise ValueError(f"layer_types[{layer}] is {name!r}, neither full_attention nor sliding_attention")
    return name


def _listed_window(text: TextConfig, layer: int) -> object:
    return text.sliding_window if kind(text, layer) == "sliding_attention" else None


def _head_dim(text: TextConfig, _layer: int) -> int:
    return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads


def _equal_head_dim(text: TextConfig, _layer: int) -> int:
    return text.hidden_size // text.num_attention_heads


def _rotated_share(text: TextConfig, _layer: int) -> float:
    return text.rope_parameters.get("partial_rotary_factor", 1.0)


def _gemma_scale(text: TextConfig, _layer: int) -> float:
    return text.query_pre_attn_scalar**-0.5


def _gemma_embedding_scale(text: TextConfig, _layer: int) -> float:
    return text.hidden_size**0.5


def _latent_head_dim(text: TextConfig, _layer: int) -> int:
    return text.qk_nope_head_dim + text.qk_rope_head_dim


def _latent_scale(text: TextConfig, layer: int) -> float:
    """1 / √head_dim, times the square of YaRN's scale by `mscale_all_dim`."""
    rope, scale = text.rope_parameters, _latent_head_dim(text, layer) ** -0.5
    mscale = rope.get("mscale_all_dim", 0) if rope["rope_type"] != "default" else 0
    return scale * (0.1 * mscale * log(rope["factor"]) + 1) ** 2 if mscale and rope["factor"] > 1 else scale


def _qk_norm(name: str) -> Read:
    return lambda text, _layer: name if text.use_qk_norm else "none"


def _swiglu(text: TextConfig, _layer: int) -> tuple[float, float]:
    """α and the limit, which older versions of transformers do not read from the configuration."""
    read = hasattr(type(text), "swiglu_alpha")
    return (text.swiglu_alpha, text.swiglu_limit) if read else (1.702, 7.0)


def _in_every_step(text: TextConfig, layer: int) -> bool:
    dense = layer in text.mlp_only_layers or not text.num_experts
    return not dense and (layer + 1) % text.decoder_sparse_step == 0


def _after_the_first(text: TextConfig, layer: int) -> bool:
    return layer >= text.first_k_dense_replace


def _shared_width(text: TextConfig, _layer: int) -> int:
    return text.moe_intermediate_size * text.n_shared_experts


COMMON: Family = {
    "d_model": key("hidden_size"),
    "width": key("intermediate_size"),
    "heads": key("num_attention_heads"),
    "kv_heads": key("num_key_value_heads"),
    "head_dim": _head_dim,
    "eps": key("rms_norm_eps"),
    "activation": key("hidden_act"),
}
ATTENTION_BIAS: Family = {"qkv_bias": key("attention_bias"), "output_bias": key("attention_bias")}
MLP_BIAS: Family = {"mlp_bias": key("mlp_bias")}
WINDOW: Family = {"window": key("sliding_window")}  # in every layer; None is no window
LISTED_WINDOW: Family = {"window": _listed_window}  # where the configuration lists the layer as sliding
PARTIAL: Family = {"rotated_share": _rotated_share}
HEAD_NORM: Family = {"qk_norm": "head"}
SMALL_POST_NORM: Family = {"pre_norm": False, "post_norm": True}

GEMMA: Family = ATTENTION_BIAS | {"norm_offset": 1.0, "embedding_scale": _gemma_embedding_scale}
GEMMA_2: Family = (
    GEMMA | LISTED_WINDOW | {"post_norm": True, "attention_scale": _gemma_scale, "activation": key("hidden_activation")}
)
COHERE: Family = ATTENTION_BIAS | {
    "centered": True,
    "parallel": True,
    "interleaved": True,
    "eps": key("layer_norm_eps"),
}
QWEN_VL: Family = LISTED_WINDOW | {"qkv_bias": True, "head_dim": _equal_head_dim}

SOFTMAX_ROUTER: Family = {
    "experts": key("num_local_experts"),
    "per_token": key("num_experts_per_tok"),
}
QWEN_ROUTER: Family = SOFTMAX_ROUTER | {
    "present": _in_every_step,
    "experts": key("num_experts"),
    "width": key("moe_intermediate_size"),
    "normalized": key("norm_topk_prob"),
}
SIGMOID_ROUTER: Family = SOFTMAX_ROUTER | {
    "present": _after_the_first,
    "width": key("moe_intermediate_size"),
    "score": "sigmoid",
    "normalized": key("norm_topk_prob"),
    "groups": key("n_group"),
    "groups_per_token": key("topk_group"),
    "scale": key("routed_scaling_factor"),
    "shared_width": _shared_width,
}

FAMILIES: dict[str, Mapping[str, object]] = {
    "cohere": COHERE | {"qk_norm": _qk_norm("heads")},
    "cohere2": COHERE | LISTED_WINDOW | {"rope": lambda text, layer: kind(text, layer) == "sliding_attention"},
    "deepseek_v3": {
        "output_bias": key("attention_bias"),
        "kv_heads": key("num_attention_heads"),
        "head_dim": _latent_head_dim,
        "rope_head_dim": key("qk_rope_head_dim"),
        "attention_scale": _latent_scale,
        "interleaved": key("rope_interleave"),
        "mixture": SIGMOID_ROUTER,
        "latent": {
            "query_rank": key("q_lora_rank"),
            "rank": key("kv_lora_rank"),
            "rotated": key("qk_rope_head_dim"),
            "value_dim": key("v_head_dim"),
            "bias": key("attention_bias"),
        },
    },
    "dots1": ATTENTION_BIAS | HEAD_NORM | LISTED_WINDOW | {"mixture": SIGMOID_ROUTER},
    "ernie4_5": {"interleaved": True} | {f"{part}_bias": key("use_bias") for part in ("qkv", "output", "mlp")},
    "exaone4": HEAD_NORM
    | SMALL_POST_NORM
    | LISTED_WINDOW
    | {"rope": lambda text, layer: text.sliding_window is None or kind(text, layer) == "sliding_attention"},
    "gemma": GEMMA,
    "gemma2": GEMMA_2 | {"softcap": key("attn_logit_softcapping")},
    "gemma3_text": GEMMA_2 | HEAD_NORM,  # its code ignores attn_logit_softcapping
    "glm4": PARTIAL | {"qkv_bias": key("attention_bias"), "interleaved": True, "post_norm": True},
    "glm4_moe": PARTIAL | {"qkv_bias": key("attention_bias"), "qk_norm": _qk_norm("head"), "mixture": SIGMOID_ROUTER},
    "gpt_oss": ATTENTION_BIAS
    | LISTED_WINDOW
    | {
        "sinks": True,
        "activation": "silu",
        "mixture": SOFTMAX_ROUTER | {"normalized": True, "bias": True},
        "swiglu": _swiglu,
    },
    "granite": ATTENTION_BIAS
    | MLP_BIAS
    | {
        "attention_scale": key("attention_multiplier"),
        "embedding_scale": key("embedding_multiplier"),
        "residual_scale": key("residual_multiplier"),
    },
    "llama": ATTENTION_BIAS | MLP_BIAS,
    "ministral": LISTED_WINDOW,
    "mistral": WINDOW,
    "mixtral": WINDOW | {"mixture": SOFTMAX_ROUTER | {"normalized": True}},
    "olmo2": ATTENTION_BIAS | SMALL_POST_NORM | {"qk_norm": "projection"},
    "olmoe": ATTENTION_BIAS
    | {
        "qk_norm": "projection",
        "clip": key("clip_qkv"),
        "mixture": SOFTMAX_ROUTER | {"normalized": key("norm_topk_prob")},
    },
    "phi3": WINDOW | PARTIAL,
    "qwen2": LISTED_WINDOW | {"qkv_bias": True},
    "qwen2_moe": LISTED_WINDOW
    | {
        "qkv_bias": key("qkv_bias"),
        "mixture": QWEN_ROUTER | {"shared_width": key("shared_expert_intermediate_size"), "shared_weighted": True},
    },
    "qwen2_vl_text": QWEN_VL,
    "qwen2_5_vl_text": QWEN_VL,
    "qwen3": ATTENTION_BIAS | HEAD_NORM | LISTED_WINDOW,
    "qwen3_moe": ATTENTION_BIAS | HEAD_NORM | WINDOW | {"mixture": QWEN_ROUTER},
    "qwen3_vl_text": ATTENTION_BIAS | HEAD_NORM,
    "smollm3": ATTENTION_BIAS
    | MLP_BIAS
    | LISTED_WINDOW
    | {"rope": lambda text, layer: bool(text.no_rope_layers[layer])},
    "stablelm": PARTIAL
    | {
        "centered": True,
        "norm_bias": True,
        "eps": key("layer_norm_eps"),
        "head_dim": _equal_head_dim,
        "qkv_bias": key("use_qkv_bias"),
        "parallel": key("use_parallel_residual"),
    },
}
"""`model_type` of a configuration for text → the family; what it lacks is as in `COMMON`, or a default of `Options`."""

REFUSED_KEYS = {
    "stablelm": ("qk_layernorm",),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), ("use_bidirectional_attention",)),
}
"""`model_type` → the keys that its code reads and that `Layer1` does not cover if they are true."""
