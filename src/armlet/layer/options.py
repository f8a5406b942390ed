"""The differences between the decoder layers of model families, read from a configuration and a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from armlet.attachment.sites import UnsupportedModelError
from armlet.redistribution.errors import ArgumentError, description


@dataclass(frozen=True)
class Options:
    """The sizes of a layer, and how its family differs from Llama, whose options are the defaults."""

    d_model: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    attention_scale: float
    frequencies: tuple[float, ...]  # RoPE's ω for each rotated pair; () is NoPE (SmolLM3)
    rope_scale: float = 1.0  # scale of cosine and sine (YaRN)
    interleaved: bool = False  # pairs are neighbours (Cohere), not halves of a head
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: Literal["none", "head", "heads", "projection"] = "none"  # heads: separate weights for each head (Cohere)
    pre_norm: bool = True
    post_norm: bool = False
    centered: bool = False  # LayerNorm instead of RMSNorm
    norm_bias: bool = False
    norm_offset: float = 0.0  # 1 in Gemma, which stores W − 1
    parallel: bool = False  # attention and MLP both read RMSNorm_1
    softcap: float | None = None  # smooth bound of attention scores
    window: int | None = None  # number of tokens that attention reaches, including the token itself
    activation: Literal["SiLU", "GELU"] = "SiLU"  # GELU: the tanh approximation
    residual_scale: float = 1.0
    embedding_scale: float = 1.0
    layer: int = 0  # the layer's index in the model, from 0


GEMMA: dict[str, object] = {"post_norm": True, "norm_offset": 1.0}

FAMILIES: dict[str, dict[str, object]] = {
    "cohere": {"centered": True, "parallel": True, "interleaved": True},
    "gemma2": GEMMA,
    "gemma3_text": GEMMA | {"qk_norm": "head"},
    "granite": {},
    "llama": {},
    "mistral": {},
    "olmo2": {"pre_norm": False, "post_norm": True, "qk_norm": "projection"},
    "phi3": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": "head"},
    "smollm3": {},
    "stablelm": {"centered": True, "norm_bias": True},
}
"""`model_type` of a configuration → the options that its family always has and its configuration does not state."""

TENSORS: dict[str, str] = {
    "RMSNorm_1": "input_layernorm",
    "Q": "self_attn.q_proj",
    "K": "self_attn.k_proj",
    "V": "self_attn.v_proj",
    "RMSNorm_Q": "self_attn.q_norm",
    "RMSNorm_K": "self_attn.k_norm",
    "Output": "self_attn.o_proj",
    "RMSNorm_2": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
"""Part of `Layer1` → its name in a checkpoint, without ".weight" or ".bias"."""

POST_NORM_TENSORS: dict[str, str] = {
    "RMSNorm_Output": "post_attention_layernorm",
    "RMSNorm_2": "pre_feedforward_layernorm",
    "RMSNorm_down": "post_feedforward_layernorm",
}
"""The names that differ with `post_norm`, where "post_attention_layernorm" really follows attention."""

FUSED: dict[str, tuple[str, ...]] = {
    "self_attn.qkv_proj.weight": ("Q", "K", "V"),
    "mlp.gate_up_proj.weight": ("gate", "up"),
}
"""Name in a checkpoint → the parts whose weights are its rows, in order (Phi-3)."""

ACTIVATION_NAMES = {"silu": "SiLU", "swish": "SiLU", "gelu_pytorch_tanh": "GELU"}
LISTED = ("gemma2", "gemma3_text", "qwen2", "qwen3", "smollm3")  # the configuration lists the kind of each layer
SLIDING = ("mistral", "phi3")  # every layer has the configuration's window; None is no window
ROPE_TYPES = ("default", "linear", "llama3", "yarn")


def read_options(config: Any, layer: int, option: str = "layer") -> Options:
    """The options of one layer, counted from 0, from a Hugging Face configuration or its part for text.

    Raises UnsupportedModelError if `Layer1` does not cover the family or an option; ArgumentError, which names the
    command's `option`, without such a layer.
    """
    if not hasattr(config, "get_text_config"):
        raise ArgumentError(f"Layer1: expected a Hugging Face model's configuration, found {description(config)}")
    text = config.get_text_config()
    _check_covered(text, layer, option)
    sizes: dict[str, int] = {
        "d_model": text.hidden_size,
        "width": text.intermediate_size,
        "heads": text.num_attention_heads,
        "kv_heads": text.num_key_value_heads,
        "head_dim": getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
    }
    if min(sizes.values()) < 1:
        raise UnsupportedModelError(f"Layer1: {text.model_type} cannot have sizes {sizes}; download the model again")
    kind = text.layer_types[layer] if text.model_type in LISTED else None
    sliding = kind == "sliding_attention" or text.model_type in SLIDING
    stated = _stated(text, sizes["head_dim"]) | {"window": text.sliding_window if sliding else None, "layer": layer}
    stated["frequencies"], stated["rope_scale"] = _rope(text, kind, layer, sizes["head_dim"])
    options: dict[str, Any] = sizes | stated | FAMILIES[text.model_type]
    return Options(**options)


def _check_covered(text: Any, layer: int, option: str) -> None:
    if text.model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"Layer1 does not cover {text.model_type!r}, only {', '.join(FAMILIES)}; attach() supports others, too"
        )
    whole = hasattr(layer, "__index__") and not isinstance(layer, bool)
    if not whole or layer not in range(text.num_hidden_layers):
        last = text.num_hidden_layers - 1
        raise ArgumentError(f"{option}: {text.model_type} has layers 0 to {last}, found {description(layer)}")
    if getattr(text, "qk_layernorm", False) or getattr(text, "use_bidirectional_attention", False):
        raise UnsupportedModelError(
            f"Layer1 does not cover {text.model_type} with qk_layernorm or use_bidirectional_attention"
        )


def _rope(text: Any, kind: str | None, layer: int, head_dim: int) -> tuple[tuple[float, ...], float]:
    """Returns the frequencies of RoPE and the scale of cosine and sine."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if not getattr(text, "no_rope_layers", [1] * (layer + 1))[layer]:  # SmolLM3
        return (), 1.0
    nested = kind in text.rope_parameters  # each kind of attention has its own (Gemma 3)
    parameters = text.rope_parameters[kind] if nested else text.rope_parameters
    name = parameters["rope_type"]
    if name not in ROPE_TYPES:
        raise UnsupportedModelError(
            f"Layer1 does not cover RoPE of type {name!r}, only {', '.join(ROPE_TYPES)}: its frequencies depend "
            "on the length of the text"
        )
    if name != "default":
        frequencies, scale = ROPE_INIT_FUNCTIONS[name](text, layer_type=kind if nested else None)
    else:
        rotary = int(head_dim * parameters.get("partial_rotary_factor", 1.0))
        frequencies, scale = 1.0 / parameters["rope_theta"] ** (torch.arange(0, rotary, 2) / rotary), 1.0
    return tuple(frequencies.tolist()), scale


def _stated(text: Any, head_dim: int) -> dict[str, Any]:
    """The options, except sizes, window and RoPE, that a configuration states under its family's names."""
    get, gemma = partial(getattr, text), text.model_type.startswith("gemma")
    scale = get("query_pre_attn_scalar", head_dim) ** -0.5  # Gemma
    activation = get("hidden_activation", None) or text.hidden_act
    if activation not in ACTIVATION_NAMES:
        raise UnsupportedModelError(
            f"Layer1 does not cover the activation {activation!r}, only {', '.join(ACTIVATION_NAMES)}"
        )
    return {
        "attention_scale": get("attention_multiplier", scale),  # Granite
        "softcap": text.attn_logit_softcapping if text.model_type == "gemma2" else None,  # Gemma 3 ignores its own
        "qkv_bias": get("attention_bias", False) or get("use_qkv_bias", False),
        "output_bias": get("attention_bias", False),
        "qk_norm": "heads" if get("use_qk_norm", False) else "none",
        "embedding_scale": text.hidden_size**0.5 if gemma else get("embedding_multiplier", 1.0),  # Granite
        "residual_scale": get("residual_multiplier", 1.0),  # Granite
        "activation": ACTIVATION_NAMES[activation],
        "eps": text.rms_norm_eps if hasattr(text, "rms_norm_eps") else text.layer_norm_eps,
        "mlp_bias": get("mlp_bias", False),
        "parallel": get("use_parallel_residual", False),  # StableLM
    }


def rename(options: Options, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a checkpoint's tensors to the names of `Layer1`, and splits fused ones without copying.

    The keys of `tensors` are the names after "model.layers.N."; `expected`, with keys such as "Q.weight", has the names
    and shapes to return. Raises ArgumentError if a tensor is missing, unknown or has a wrong shape.
    """
    names = TENSORS | (POST_NORM_TENSORS if options.post_norm else {})
    stored_names = {name: f"{names[part]}.{kind}" for name in expected for part, kind in [name.split(".")]}
    single = dict(tensors)
    for fused in FUSED.keys() & tensors.keys():
        rows = [len(expected[f"{part}.weight"]) for part in FUSED[fused]]
        if sum(rows) == len(single[fused]):
            pieces = zip(FUSED[fused], single.pop(fused).split(rows), strict=True)
            single |= {f"{TENSORS[part]}.weight": piece for part, piece in pieces}
    missing, unknown = stored_names.values() - single.keys(), single.keys() - stored_names.values()
    if missing or unknown:
        raise ArgumentError(f"Layer1: of its tensors, {sorted(missing)} are missing and {sorted(unknown)} unknown")
    for name, stored in stored_names.items():
        if single[stored].shape != expected[name].shape:
            shapes = f"{list(expected[name].shape)}, found {list(single[stored].shape)}"
            raise ArgumentError(f"Layer1: expected {stored} of shape {shapes}")
    return {name: single[stored] for name, stored in stored_names.items()}
