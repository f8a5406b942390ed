"""A tiny model of any class of transformers, from its default configuration with small numbers in it.

Sizes are recognised by the names of their keys, with one number for each meaning, so that sizes that must agree do.
What this does not know is in `shrinking_exceptions.py`.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
import transformers as hf
from torch import nn

from shrinking_exceptions import EXCEPTIONS

VOCABULARY, HIDDEN, HEADS, HEAD, LAYERS = 128, 32, 4, 8, 4
LARGEST = 10_000_000  # parameters; a larger model was not shrunk, and would take seconds

SIZES = {
    "vocab_size vocab_size_per_layer_input vocab_offset": VOCABULARY,
    "num_nextn_predict_layers mtp_num_hidden_layers mtp_num_layers num_mtp_layers num_mtp_modules": 0,
    "kv_lora_rank": 20,
    # Unlike other sizes: by chance, linears of attention would look like gate, up and down.
    "q_lora_rank o_lora_rank lora_rank": 12,
    "head_dim d_kv kv_channels d_head dim_head rotary_dim attention_head_size headdim": HEAD,
    "n_groups ngroups n_group topk_group num_expert_group num_expert_groups num_groups": 1,
    "mamba_d_ssm hidden_size_global": 2 * HIDDEN,
    "mamba_n_heads mamba_num_heads": 2 * HIDDEN // HEAD,
    "d_state state_size": 8,
    "dt_rank step_rank index_topk index_topk_blocks num_image_tokens num_query_tokens num_latents n_latents": 4,
    "mm_tokens_per_image soft_tokens_per_image": 4,
    "num_key_value_heads num_kv_heads kv_n_heads num_query_groups linear_num_key_heads": HEADS // 2,
    "num_global_key_value_heads": HEADS // 2,
    "heads n_head num_head": HEADS,
    "first_k_dense_replace first_num_dense num_dense_layers moe_layer_start_index num_layers_per_stack": 1,
    "shared_experts": 1,
    "layers n_layer depth num_blocks n_blocks": LAYERS,
    "per_tok per_token topk top_k top_k_experts moe_k": 2,
    "experts expert_num": 4,
    "shared_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size share_expert_dim": 24,
    "moe_intermediate_size expert_ffn_hidden_size expert_intermediate_size moe_ffn_hidden_size": 20,
    "intermediate_size ffn_dim ffn_hidden_size intermediate_size_mlp mlp_dim d_ff dim_ff d_inner dff n_inner": 48,
    "hidden_size_per_layer_input laurel_rank router_hidden_size": 8,
    "hidden_size hidden_dim d_model n_embd emb_dim embed_dim embedding_size embedding_dim embed_proj_dim": HIDDEN,
    "projection_dim lru_width output_dim input_dim in_dim out_dim input_size output_size decoder_dim": HIDDEN,
    "base_channels conv_channels filters latent_channels downsample_hidden_size": HIDDEN,
    "original_max_position_embeddings codebook_size num_embeddings num_embeds codebook_dim": 64,
    "max_position_embeddings n_positions max_seq_len max_sequence_length n_ctx max_source_positions": 128,
    "max_target_positions seq_length seq_len model_max_length context_length": 128,
    "sliding_window sliding_window_size window_size local_attention chunk_size num_mel_bins feature_size": 16,
    "num_position_embeddings num_patches": 16,
    "image_size img_size crop_size resolution": 32,
    "patch_size": 8,
}
"""The last words of a key → the most that a number under such a key becomes; the first that matches counts."""

ENDINGS = [(ending, size) for endings, size in SIZES.items() for ending in endings.split()]
COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
DERIVED = (
    "per_layer_config",
    "hybrid_layer_ids",
    "qk_head_dim",
    "dtype",
    "architectures",
    "transformers_version",
    "_name_or_path",
)
TOKEN = re.compile(r".*(_id|_ids|_token_index|_idx)")
LAYER_INDICES = re.compile(r".*(layers|idxs?|index(es)?|indices|layer_ids)")


def tiny_model(model_type: str, class_name: str) -> nn.Module:
    """A float32 model in eval mode, always with the same weights; the global generator is put back.

    Raises whatever the configuration and the model raise, and ValueError for a model that stayed large.
    """
    model_class, config = getattr(hf, class_name), tiny_config(model_type)
    wanted = model_class.config_class
    if not isinstance(config, wanted):  # the text part of a model type with several classes
        config = next((part for part in vars(config).values() if isinstance(part, wanted)), config)
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in model_class(config).parameters())
    if count > LARGEST:
        raise ValueError(f"{count:,} parameters: shrinking.py does not know some of its sizes")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1 and parameter.is_floating_point():
                    parameter.normal_(0, 0.2)
                elif not parameter.isfinite().all():
                    parameter.fill_(1)
    return model.float().eval()


def tiny_config(model_type: str) -> Any:
    """The default configuration of a model type, small."""
    config_class, exceptions = hf.CONFIG_MAPPING[model_type], dict(EXCEPTIONS.get(model_type, {}))
    default = config_class(**exceptions.pop("start", {}))  # what the class needs to be made at all
    settings = merged(small(default.to_dict()), exceptions)
    return config_class(**{key: value for key, value in settings.items() if key != "model_type"})


def small(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with small numbers, and with few entries in lists that have one for each layer."""
    layers = next((settings[key] for key in COUNTS if isinstance(settings.get(key), int)), 0)
    latent, special = isinstance(settings.get("kv_lora_rank"), int), VOCABULARY - 1
    result: dict[str, Any] = {}
    for key, value in settings.items():
        if key in DERIVED or (latent and key == "head_dim"):
            continue
        if isinstance(value, Mapping):
            value = small_rope(value) if "rope" in str(key) else small(value)
        elif isinstance(value, list | tuple):
            value = few(str(key), list(value), layers)
        elif is_whole(value) and TOKEN.fullmatch(str(key)) and value > 3:
            value, special = special, special - 1
        elif is_whole(value):
            value = HEADS if latent and key == "num_key_value_heads" else size(str(key), value)
        elif value is None and key == "head_dim" and "num_attention_heads" in settings:
            value = HEAD
        result[key] = value
    return result


def size(key: str, value: int) -> int:
    """The small size under a key."""
    return next((min(known, value) for ending, known in ENDINGS if f"_{key}".endswith(f"_{ending}")), value)


def few(key: str, values: list[Any], layers: int) -> list[Any]:
    """A list for `LAYERS` layers, in which the kinds of layers take turns, or layer indices below `LAYERS`."""
    whole = bool(values) and all(map(is_whole, values))
    if layers > LAYERS and len(values) == layers and values != list(range(layers)):
        kinds = [value for index, value in enumerate(values) if value not in values[:index]]
        values = [kinds[index % len(kinds)] for index in range(LAYERS)]
    elif whole and LAYER_INDICES.fullmatch(key) and max(values) >= LAYERS:
        return [index for index in range(LAYERS) if index in values] or [1]
    elif whole and TOKEN.fullmatch(key):
        return [min(value, VOCABULARY - 1) for value in values]
    return [size(key, value) if is_whole(value) and len(values) <= LAYERS else value for value in values]


def small_rope(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of RoPE, for heads of `HEAD` channels."""
    rope: dict[str, Any] = {
        key: small_rope(value) if isinstance(value, Mapping) else value for key, value in settings.items()
    }
    known = dict.fromkeys(("short_factor", "long_factor"), (1.0,) * (HEAD // 2))
    known |= {"original_max_position_embeddings": 64}
    rope |= {key: list(value) if isinstance(value, tuple) else value for key, value in known.items() if rope.get(key)}
    if rope.get("mrope_section"):
        half = int(HEAD * rope.get("partial_rotary_factor", 1)) // 2
        rope["mrope_section"] = [half - 2 * (half // 4), half // 4, half // 4]
    return rope


def merged(settings: dict[str, Any], exceptions: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with other values for some, also inside of configurations of parts."""
    for key, value in exceptions.items():
        nested = isinstance(value, Mapping) and isinstance(settings.get(key), dict)
        settings[key] = merged(settings[key], value) if nested else value
    return settings


def is_whole(value: object) -> bool:
    """Whether a value is an integer, and not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool)
