"""What the tiny models of `shrinking.py` need beside small sizes, by model type."""

from typing import Any

MROPE: dict[str, Any] = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
NO_EXTRA_EMBEDDING = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0, "num_kv_shared_layers": 4}
ALTERNATING = {"layer_types": ["linear_attention", "full_attention"] * 2}
VOCABULARY_MAP = {"vocabulary_map": {"<image>": 127, "<|extra_200|>": 126}}
QSA = {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8}
QWEN4 = QSA | {"indexer_compress_ratio": 2, "hc_lowrank": 4, "ple_embed_dim": 32, "ngram_vocab_size_base": 100}
QWEN4 |= {"make_ngram_vocab_size_divisible_by": 2, "split_ngram_parts": 2}

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1, 3], "mamba_n_heads": 8},
    "blenderbot": {"encoder_layers": 4},
    "blt": {
        "encoder_hash_byte_group_vocab": 64,
        "patch_in_forward": False,
    },
    "chameleon": VOCABULARY_MAP,
    "cohere_compass": {"text_config": {"layer_types": ["sliding_attention", "full_attention"] * 2}},
    "dbrx": {"attn_config": {"rope_theta": 1e4}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dory": {"n_input_layers": 1, "n_output_layers": 1, "n_recurrent_layers": 2},
    "dots1": {"n_routed_experts": 4},
    "emu3": VOCABULARY_MAP,
    "ernie4_5_vl_moe": {"text_config": MROPE},
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 8}},
    "gemma3n": {"text_config": {"num_kv_shared_layers": 0}},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gemma4_assistant": {"start": {"text_config": {"model_type": "gemma4_text"} | NO_EXTRA_EMBEDDING | {"num_kv_shared_layers": 30}}},
    "glm46v": {"text_config": MROPE},
    "glm4v": {"text_config": MROPE},
    "glm4v_moe": {"text_config": MROPE},
    "glm5_next": {"text_config": {"index_topk": 16}},
    "glm_ocr": {"text_config": MROPE},
    "glmga": {"text_config": MROPE},
    "granite4_vision": {"deepstack_layer_map": [[0, 1]], "spatial_target_layers": [1]},
    "granitemoehybrid": ALTERNATING,
    "hrm_text": {"num_hidden_layers": 16},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {"num_layers": 2, "num_hidden_layers": 4, "head_dim": 8},
    "mamba2": {"num_heads": 8},
    "molmo2": {"adapter_config": {"vision_feature_layer": [3, 1]}},
    "nemotron": {"num_key_value_heads": 2},
    "paddleocr_vl": {"text_config": MROPE},
    "qwen2_5_omni": {"enable_audio_output": False},
    "qwen2_5_vl": {"text_config": MROPE},
    "qwen2_vl": {"text_config": MROPE},
    "qwen3_omni_moe": {"enable_audio_output": False},
    "qwen4_exp": {"text_config": QWEN4},
    "qwen4_exp_text": QWEN4,
    "reformer": {"is_decoder": True},
    "xlstm": {"num_blocks": 4},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"attention_hidden_size": 64, "attention_head_dim": 16, "attn_layer_period": 2, "attn_layer_offset": 1},
    "zamba2": {"n_mamba_heads": 8},
}
