"""What the tiny models of `shrinking.py` need beside small sizes, by model type."""

from collections.abc import Callable
from typing import Any

import torch

PLAIN_ROPE = {"rope_type": "default", "rope_theta": 1e4}
MROPE: dict[str, Any] = {"rope_parameters": PLAIN_ROPE | {"mrope_section": [2, 1, 1]}}
DOTS3 = {"head_dim": 16, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_q_lora_rank": 12}
DOTS3 |= {"swa_kv_lora_rank": 20, "swa_head_dim": 16, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8}
ERNIE_ROPE: dict[str, Any] = {"rope_parameters": PLAIN_ROPE | {"mrope_section": [1, 1, 2]}}
GLM_MOE_ROPE = {"rope_parameters": MROPE["rope_parameters"] | {"partial_rotary_factor": 1.0}}
COMPASS = {
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "rope_parameters": {"sliding_attention": PLAIN_ROPE, "full_attention": PLAIN_ROPE},
}
LOOP = {"loop_layer_index_start": 1, "loop_layer_index_end": 3, "n_layers_per_attn_res_block": 1}
NO_EXTRA_EMBEDDING = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0, "num_kv_shared_layers": 4}
ALTERNATING = {"layer_types": ["linear_attention", "full_attention"] * 2}
VOCABULARY_MAP = {"vocabulary_map": {"<image>": 127, "<|extra_200|>": 126}}
QSA = {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8}
QWEN4 = QSA | {"indexer_compress_ratio": 2, "hc_lowrank": 4, "ple_embed_dim": 32, "ngram_vocab_size_base": 100}
QWEN4 |= {"make_ngram_vocab_size_divisible_by": 2, "split_ngram_parts": 2}

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "apertus1p5": {
        "audio_config": {"codebook_dim": 32, "codebook_size": 16},
        "vision_config": {"codebook_size": 16},
        "image_token_offset": 64,
        "audio_token_offset": 80,
    },
    "bamba": {"attn_layer_indices": [1, 3], "mamba_n_heads": 8},
    "blenderbot": {"encoder_layers": 4},
    "blt": {
        "encoder_hash_byte_group_vocab": 64,
        "patch_in_forward": False,
        "global_config": {"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 8},
    },
    "chameleon": VOCABULARY_MAP,
    "cohere_compass": {"text_config": COMPASS},
    "cohere_compass_text": COMPASS,
    "dbrx": {"attn_config": {"rope_theta": 1e4, "clip_qkv": 8.0}},
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense", "sparse"] * 2, "num_experts_per_tok": 2}},
    "diffusion_gemma": {"text_config": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 20}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots3_note": {"text_config": DOTS3},
    "dots3_note_text": DOTS3,
    "dory": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "n_input_layers": 1,
        "n_output_layers": 1,
        "n_recurrent_layers": 2,
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "emu3": VOCABULARY_MAP,
    "ernie4_5_vl_moe": {"text_config": ERNIE_ROPE},
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 8}},
    "gemma3n": {"text_config": {"num_kv_shared_layers": 0}},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gemma4_assistant": {
        "start": {"text_config": {"model_type": "gemma4_text"} | NO_EXTRA_EMBEDDING | {"num_kv_shared_layers": 30}}
    },
    "glm46v": {"text_config": MROPE},
    "glm4v": {"text_config": MROPE},
    "glm4v_moe": {"text_config": GLM_MOE_ROPE},
    "glm5_next": {"text_config": {"index_topk": 16}},
    "glm_ocr": {"text_config": MROPE},
    "glmga": {"text_config": MROPE},
    "granite4_vision": {
        "vision_config": {"hidden_size": 64},
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[0, 1]],
        "spatial_target_layers": [1],
    },
    "granitemoehybrid": ALTERNATING,
    "hrm_text": {"num_hidden_layers": 16},
    "hunyuan_vl": {"text_config": MROPE},
    "inkling2_loop": {"text_config": LOOP},
    "inkling2_loop_text": LOOP,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_offset": 1},
    "kyutai_speech_to_text": {"codec_config": {"upsample_groups": 32}},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {"num_layers": 2, "num_hidden_layers": 4, "head_dim": 8},
    "mamba2": {"num_heads": 8},
    "molmo2": {"adapter_config": {"vision_feature_layer": [3, 1]}},
    "muse_spark": {"audio_config": {"hidden_sizes": [8, 8, 8, 8]}},
    "nemotron": {"num_key_value_heads": 2},
    "paddleocr_vl": {"text_config": MROPE},
    "qwen2_5_omni": {"enable_audio_output": False},
    "qwen2_5_omni_thinker": {"text_config": MROPE, "vision_start_token_id": 126},
    "qwen2_5_vl": {"text_config": MROPE},
    "qwen2_vl": {"text_config": MROPE},
    "qwen3_omni_moe": {"enable_audio_output": False},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 126},
    "qwen4_exp": {"text_config": QWEN4},
    "qwen4_exp_text": QWEN4,
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 16]},
    "step3p7": {"text_config": {"sliding_window": 16}},
    "vibevoice_asr": {
        "acoustic_tokenizer_chunk_size": 3200,
        "acoustic_tokenizer_encoder_config": {"num_filters": 1},
        "semantic_tokenizer_encoder_config": {"num_filters": 1},
    },
    "xlstm": {"num_blocks": 4, "hidden_size": 64, "embedding_dim": 64, "qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"attention_hidden_size": 64, "attention_head_dim": 16, "attn_layer_period": 2, "attn_layer_offset": 1},
    "zamba2": {"n_mamba_heads": 8, "attention_hidden_size": 64, "attention_head_dim": 16},
}


def _idefics(config: Any) -> dict[str, torch.Tensor]:
    images = torch.randn(2, 1, 4, config.vision_config.embed_dim, generator=torch.Generator().manual_seed(0))
    return {"image_encoder_embeddings": images, "image_attention_mask": torch.ones(2, 9, 1, dtype=torch.int64)}


def _voxtral_realtime(config: Any) -> dict[str, torch.Tensor]:
    shape = (2, 9 * config.downsample_factor, config.audio_config.hidden_size)
    return {"encoder_inputs_embeds": torch.randn(shape, generator=torch.Generator().manual_seed(0))}


def _pi0(config: Any) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, config.chunk_size, config.max_action_dim, generator=generator)
    images = {
        "pixel_values": torch.randn(2, 1, 3, 32, 32, generator=generator),
        "pixel_attention_mask": torch.ones(2, 1).bool(),
    }
    return {"state": torch.zeros(2, config.max_state_dim), "noise": noise, "timestep": torch.full((2,), 0.5), **images}


INPUTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "blt": lambda _config: {"use_cache": False},
    "idefics": _idefics,
    "pi0": _pi0,
    "voxtral_realtime": _voxtral_realtime,
}
"""What a model needs beside ids and a mask, by model type."""

NEEDS = {
    "fast_vlm": "needs timm",
    "gemma3n": "needs timm",
    "gemma4_assistant": "drafts for another model, from whose states it starts",
    "gemma4_unified_assistant": "drafts for another model, from whose states it starts",
    "kyutai_speech_to_text": "its tokens have an axis of codebooks",
    "llama4": "cannot run in transformers 5.24, which reads an output that no model has",
    "perception_lm": "needs timm",
    "qwen2_5_omni": "has no forward of its own; its part model.thinker works",
    "qwen3_omni_moe": "has no forward of its own; its part model.thinker works",
}
"""Why a model cannot be built or run here, by model type."""
