"""A tiny model of any class of transformers, from its default configuration with small numbers in it.

Sizes are recognised by the names of their keys, with one number for each meaning, so that sizes that must agree do. What
this does not know stands in `shrinking_exceptions.py`.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
import transformers as hf
from torch import nn

from shrinking_exceptions import EXCEPTIONS

VOCABULARY, HIDDEN, HEADS, GROUPS, HEAD, WIDTH, LAYERS = 128, 32, 4, 2, 8, 48, 4
EXPERTS, CHOICES, EXPERT_WIDTH, SHARED_WIDTH = 4, 2, 20, 24
LARGEST = 8_000_000  # parameters; a larger model was not shrunk, and would take seconds

SIZES: list[tuple[str, int]] = [
    (r".*vocab_size(_per_layer_input)?|vocab_size_.*|vocab_offset", VOCABULARY),
    (r"(num_)?(mtp|nextn)_.*", 0),
    (r"(n|num)_(nextn|mtp).*", 0),
    (r"kv_lora_rank|q_lora_rank|o_lora_rank|lora_rank", 16),
    (r"qk_rope_head_dim|qk_nope_head_dim|v_head_dim|(.*_)?head_dim|d_kv|kv_channels|d_head|dim_head|rotary_dim|attention_head_size", HEAD),
    (r"(mamba_)?(n|num)_?groups|mamba_ngroups|n_group|topk_group|num_expert_groups?", 1),
    (r"mamba_d_head|mamba_headdim", HEAD),
    (r"mamba_d_ssm", 2 * HIDDEN),
    (r"mamba_n_heads|mamba_num_heads", 2 * HIDDEN // HEAD),
    (r".*(d_state|state_size|state_dim)", 8),
    (r".*(dt_rank|step_rank)", 4),
    (r"(.*_)?chunk_size", 16),
    (r"(swa_|decoder_)?(num_key_value_heads|num_kv_heads|kv_n_heads|num_query_groups|num_global_key_value_heads)", GROUPS),
    (r"linear_num_key_heads", GROUPS),
    (r"index_topk|index_topk_blocks", 4),
    (r"(.*_)?(heads|n_head|num_head)", HEADS),
    (r"(first_k|first_num)_dense.*|num_dense_layers|moe_layer_start_index|num_shared_experts|n_shared_experts|moe_num_shared_experts", 1),
    (r"num_layers_per_stack", 1),
    (r"(.*_)?(num|n)_(.*_)?(layers?|blocks)|(.*_)?layers|depth", LAYERS),
    (r".*per_tok(en)?|.*top_?k(_experts)?|moe_k", CHOICES),
    (r"(.*_)?(num|n)_(.*_)?experts|zero_expert_num", EXPERTS),
    (r"shared.*intermediate_size|moe_shared.*", SHARED_WIDTH),
    (r"moe_intermediate_size|expert_ffn_.*|moe_ffn_.*|expert_intermediate_size", EXPERT_WIDTH),
    (r".*(intermediate_size|ffn_dim|ffn_hidden_size|intermediate_size_mlp|mlp_dim|d_ff|dim_ff|d_inner|dff|n_inner)", WIDTH),
    (r"hidden_size_per_layer_input|laurel_rank|router_hidden_size", 8),
    (r"(.*_)?(hidden_size|hidden_dim|d_model|n_embd|emb_dim|embed_dim|embedding_size|embedding_dim|embed_proj_dim|projection_dim|lru_width|output_dim|input_dim|out_dim|in_dim|input_size|output_size|dim_model|adapter_dim|decoder_dim)", HIDDEN),
    (r"original_max_position_embeddings", 64),
    (r"(.*_)?(max_position_embeddings|n_positions|max_seq_len|max_sequence_length|n_ctx|max_source_positions|max_target_positions|seq_length|seq_len|model_max_length|context_length)", 128),
    (r"(.*_)?sliding_window(_size)?|attention_window_size|window_size|local_attention", 16),
    (r"(.*_)?(image_size|img_size|crop_size|resolution)", 32),
    (r"patch_size", 8),
    (r"num_(image_tokens|query_tokens|latents)|(.*_)?n_latents|mm_tokens_per_image|.*soft_tokens_per_image", 4),
    (r"num_mel_bins|feature_size", 16),
    (r"codebook_size|num_embeddings|num_embeds|codebook_dim", 64),
    (r"(.*_)?(base_channels|conv_channels|filters|channels_out|latent_channels|conv_size|downsample_hidden_size)", 32),
    (r"num_position_embeddings|num_patches", 16),
]  # fmt: skip
"""Each pattern of a key → the most that a number under such a key becomes; the first that matches counts."""

PATTERNS = [(re.compile(pattern), size) for pattern, size in SIZES]
DERIVED = ("per_layer_config", "qk_head_dim", "dtype", "architectures", "transformers_version", "_name_or_path")
TOKEN = re.compile(r".*(_id|_ids|_token_index|_idx)")
LAYER_INDICES = re.compile(r".*(layers|idxs?|index(es)?|indices|layer_ids)")


def tiny_model(model_type: str, class_name: str) -> nn.Module:
    """A float32 model in eval mode, with weights that depend on nothing but their names' order."""
    model_class = getattr(hf, class_name)
    config = tiny_config(model_type)
    wanted = model_class.config_class
    if not isinstance(config, wanted) and isinstance(text := config.get_text_config(), wanted):
        config = text
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
    config_class = hf.CONFIG_MAPPING[model_type]
    exceptions = EXCEPTIONS.get(model_type, {})
    start = exceptions.get("start", {})  # what the class needs to be made at all
    settings = _small(config_class(**start).to_dict())
    settings = _merged(settings, {key: value for key, value in exceptions.items() if key != "start"})
    return config_class(**{key: value for key, value in settings.items() if key != "model_type"})


def _small(settings: Mapping[str, Any]) -> dict[str, Any]:
    layers = next((settings[key] for key in ("num_hidden_layers", "n_layer", "n_layers", "num_layers") if isinstance(settings.get(key), int)), 0)
    latent = isinstance(settings.get("kv_lora_rank"), int)
    small: dict[str, Any] = {}
    special = VOCABULARY - 1
    for key, value in settings.items():
        if key in DERIVED or (latent and key == "head_dim"):
            continue
        if key == "head_dim" and value is None and "num_attention_heads" in settings:
            small[key] = HEAD
        elif isinstance(value, bool) or value is None:
            small[key] = value
        elif isinstance(value, Mapping):
            small[key] = _rope(value) if "rope" in str(key) else _small(value)
        elif TOKEN.fullmatch(str(key)) and isinstance(value, int) and value >= 4:
            small[key], special = special, special - 1
        elif isinstance(value, int):
            small[key] = HEADS if latent and key == "num_key_value_heads" else _size(str(key), value)
        elif isinstance(value, list | tuple):
            small[key] = _few(str(key), list(value), layers)
        else:
            small[key] = value
    return small


def _size(key: str, value: int) -> int:
    for pattern, size in PATTERNS:
        if pattern.fullmatch(key):
            return min(size, value)
    return value


def _few(key: str, values: list[Any], layers: int) -> list[Any]:
    if layers > LAYERS and len(values) == layers and not all(isinstance(value, int) and value == index for index, value in enumerate(values)):
        kinds = list(dict.fromkeys(map(str, values)))
        first = {kind: next(value for value in values if str(value) == kind) for kind in kinds}
        few = [first[kinds[index % len(kinds)]] for index in range(LAYERS)]
        return [_size(key, value) if isinstance(value, int) and not isinstance(value, bool) else value for value in few]
    whole = bool(values) and all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    if whole and LAYER_INDICES.fullmatch(key) and max(values) >= LAYERS:
        return [index for index in range(LAYERS) if index in values] or [1]
    if whole and TOKEN.fullmatch(key):
        return [min(value, VOCABULARY - 1) for value in values]
    return [_size(key, value) for value in values] if whole and len(values) <= 4 else values


def _rope(settings: Mapping[str, Any]) -> dict[str, Any]:
    rope = {key: _rope(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
    known = {"original_max_position_embeddings": 64, "short_factor": [1.0] * (HEAD // 2), "long_factor": [1.0] * (HEAD // 2)}
    rope |= {key: value for key, value in known.items() if rope.get(key)}
    if rope.get("mrope_section"):
        half = int(HEAD * rope.get("partial_rotary_factor", 1)) // 2
        rope["mrope_section"] = [half - 2 * (half // 4), half // 4, half // 4]
    return rope


def _merged(settings: dict[str, Any], exceptions: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in exceptions.items():
        nested = isinstance(value, Mapping) and isinstance(settings.get(key), dict)
        settings[key] = _merged(settings[key], value) if nested else value
    return settings
