"""Tiny models of every family, made from their configurations alone: nothing is downloaded."""

import torch
import transformers as hf

from armlet.attachment.positions import cache_argument

COMMON = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 63,
}
MIXTURE = {
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}

FAMILIES = {
    "llama": (hf.LlamaConfig, {}),
    "qwen2": (hf.Qwen2Config, {}),
    "qwen3": (hf.Qwen3Config, {"head_dim": 8}),
    "mistral": (hf.MistralConfig, {"sliding_window": None}),
    "gemma2": (hf.Gemma2Config, {"head_dim": 8, "sliding_window": 16}),
    "gemma3": (hf.Gemma3TextConfig, {"head_dim": 8, "sliding_window": 16}),
    "phi3": (hf.Phi3Config, {}),
    "olmo2": (hf.Olmo2Config, {}),
    "granite": (hf.GraniteConfig, {}),
    "cohere": (hf.CohereConfig, {}),
    "stablelm": (hf.StableLmConfig, {}),
    "smollm3": (hf.SmolLM3Config, {}),
    "gemma": (hf.GemmaConfig, {"head_dim": 8}),
    "cohere2": (hf.Cohere2Config, {"sliding_window": 16}),
    "glm4": (hf.Glm4Config, {"head_dim": 8}),
    "exaone4": (hf.Exaone4Config, {"sliding_window": 16, "sliding_window_pattern": 2}),
    "ernie4_5": (hf.Ernie4_5Config, {"head_dim": 8}),
    "ministral": (hf.MinistralConfig, {"head_dim": 8, "sliding_window": 16}),
    "deepseek_v3": (hf.DeepseekV3Config, MIXTURE),
}

EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
ROUTED_EXPERTS = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 16,
    "n_shared_experts": 2,
    "n_group": 4,
    "topk_group": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5,
}
LOCAL_EXPERTS = {"num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": 16}

LATENT = {name: MIXTURE[name] for name in MIXTURE if "rank" in name or "dim" in name}

MIXTURES = {
    "deepseek_v3": (hf.DeepseekV3Config, ROUTED_EXPERTS | LATENT | {"num_key_value_heads": 4}),
    "dots1": (hf.Dots1Config, ROUTED_EXPERTS | {"head_dim": 8, "sliding_window": None}),
    "glm4_moe": (hf.Glm4MoeConfig, ROUTED_EXPERTS | {"head_dim": 8, "use_qk_norm": True}),
    "gpt_oss": (hf.GptOssConfig, LOCAL_EXPERTS | {"head_dim": 8, "swiglu_limit": 1.0}),
    "mixtral": (hf.MixtralConfig, LOCAL_EXPERTS),
    "olmoe": (hf.OlmoeConfig, EXPERTS),
    "qwen2_moe": (hf.Qwen2MoeConfig, EXPERTS | {"shared_expert_intermediate_size": 24, "norm_topk_prob": True}),
    "qwen3_moe": (hf.Qwen3MoeConfig, EXPERTS | {"head_dim": 8, "mlp_only_layers": [0]}),
}
"""Mixtures of experts that `Layer1` covers; layer 1 has experts."""

UNCOVERED = {"deepseek_v2": (hf.DeepseekV2Config, MIXTURE)}
"""A family that `Layer1` does not cover."""

TOWER = {
    "depth": 1,
    "num_hidden_layers": 1,
    "hidden_size": 8,
    "embed_dim": 8,
    "intermediate_size": 8,
    "out_hidden_size": 32,
    "num_heads": 1,
    "num_attention_heads": 1,
    "deepstack_visual_indexes": [0],
}
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}

WITH_TOWERS = {
    "qwen2_vl": (hf.Qwen2VLConfig, MROPE),
    "qwen2_5_vl": (hf.Qwen2_5_VLConfig, MROPE),
    "qwen3_vl": (hf.Qwen3VLConfig, MROPE | {"head_dim": 8}),
}
"""Image-text models, whose text part `Layer1` covers."""

ROUTED = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
NARROW = ROUTED | {"intermediate_size": 16, "head_dim": 8}
ROUTED_FAMILIES = {
    "mixtral": (hf.MixtralConfig, {"num_local_experts": 4, "sliding_window": None}),
    "qwen2_moe": (hf.Qwen2MoeConfig, ROUTED | {"shared_expert_intermediate_size": 24}),
    "qwen3_moe": (hf.Qwen3MoeConfig, ROUTED | {"head_dim": 8}),
    "olmoe": (hf.OlmoeConfig, ROUTED),
    "phimoe": (hf.PhimoeConfig, ROUTED),
    "granitemoeshared": (hf.GraniteMoeSharedConfig, ROUTED | {"shared_intermediate_size": 24}),
    "deepseek_v3_sparse": (hf.DeepseekV3Config, MIXTURE | {"first_k_dense_replace": 0}),
    "glm4_moe": (hf.Glm4MoeConfig, MIXTURE | {"first_k_dense_replace": 0, "head_dim": 8}),
    "aria": (hf.AriaTextConfig, {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1}),
    "lfm2_moe": (hf.Lfm2MoeConfig, ROUTED | {"num_dense_layers": 0, "layer_types": ["full_attention", "conv", "conv"]}),
    "gpt_oss": (hf.GptOssConfig, NARROW),
    "minimax_m3": (hf.MiniMaxM3VLTextConfig, NARROW | {"rotary_dim": 4}),
    "llama4": (hf.Llama4TextConfig, NARROW | {"intermediate_size_mlp": 24, "attention_chunk_size": 64}),
    "longcat": (
        hf.LongcatFlashConfig,
        MIXTURE | {"zero_expert_num": 2, "moe_topk": 2, "expert_ffn_hidden_size": 16, "num_layers": 3, "head_dim": 8},
    ),
    "gemma4": (
        hf.Gemma4TextConfig,
        NARROW
        | {"enable_moe_block": True, "top_k_experts": 2, "hidden_size_per_layer_input": 0, "global_head_dim": 8}
        | {"num_global_key_value_heads": 2, "vocab_size_per_layer_input": 64, "sliding_window": 64},
    ),
}
"""Mixtures of experts, routed in all layers."""
ROUTED_FAMILIES["longcat"][1]["num_hidden_layers"] = 6  # two of each layer's blocks count as a layer


def tiny(family="llama", *, seed=0, families=FAMILIES | MIXTURES | WITH_TOWERS | UNCOVERED, **changes):
    """A float32 model in eval mode whose weights depend on the seed alone; the global generator is put back."""
    config_class, own = families[family]
    text = COMMON | own | changes
    auto, settings = hf.AutoModelForCausalLM, text
    if family in WITH_TOWERS:
        auto, settings = hf.AutoModelForImageTextToText, {"text_config": text, "vision_config": TOWER}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto.from_config(config_class(**settings))
    # Wider than initialised: gates near 0 everywhere would hide what redistribution does.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:  # three dimensions: the weights of all experts
                parameter.mul_(8)
    model.generation_config.eos_token_id = None  # every generation has the length asked for
    return model.eval()


def prompt(length, *, batch=1, seed=0):
    """int64 `[batch, length]` without padding and end."""
    return torch.randint(2, 63, (batch, length), generator=torch.Generator().manual_seed(seed))


def go_on(model, ids, last=None, **inputs):
    """A call that goes on from the cache of the `last` one, by the name that this transformers has for it."""
    return model(ids, use_cache=True, **(cache_argument(model, last) if last else {}), **inputs)
