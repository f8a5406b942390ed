"""Tiny models that read images, made from their configurations alone, and prompts with one image."""

from typing import Any

import torch
import transformers as hf

from families import COMMON

IMAGE, START, END = 60, 61, 62
TEXT: dict[str, Any] = COMMON | {"head_dim": 8}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}
QWEN_VISION: dict[str, Any] = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "patch_size": 4}
MROPE: dict[str, Any] = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
QWEN_TOKENS: dict[str, Any] = {"image_token_id": IMAGE, "vision_start_token_id": START, "vision_end_token_id": END}


def _gemma3():
    text = hf.Gemma3TextConfig(**TEXT, sliding_window=16)
    vision = hf.SiglipVisionConfig(**VISION)
    tokens: dict[str, Any] = {"image_token_index": IMAGE, "boi_token_index": START, "eoi_token_index": END}
    config = hf.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **tokens)
    return hf.Gemma3ForConditionalGeneration(config)


def _paligemma():
    text = hf.GemmaConfig(**TEXT)
    sizes: dict[str, Any] = VISION | {"patch_size": 8}
    vision = hf.SiglipVisionConfig(**sizes, vision_use_head=False)
    config = hf.PaliGemmaConfig(
        text_config=text, vision_config=vision, image_token_index=IMAGE, projection_dim=32, hidden_size=32
    )
    return hf.PaliGemmaForConditionalGeneration(config)


def _qwen2_5_vl():
    vision = QWEN_VISION | {"out_hidden_size": 32, "window_size": 16, "fullatt_block_indexes": [1]}
    text = COMMON | MROPE
    config = hf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **QWEN_TOKENS)
    return hf.Qwen2_5_VLForConditionalGeneration(config)


def _qwen3_vl():
    vision = QWEN_VISION | {"out_hidden_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    config = hf.Qwen3VLConfig(text_config=TEXT | MROPE, vision_config=vision, **QWEN_TOKENS)
    return hf.Qwen3VLForConditionalGeneration(config)


BUILDERS = {"gemma3": _gemma3, "paligemma": _paligemma, "qwen2_5_vl": _qwen2_5_vl, "qwen3_vl": _qwen3_vl}


def tiny_multimodal(family):
    """A float32 model in eval mode with an image tower and four image tokens for an image."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BUILDERS[family]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)
    model.generation_config.eos_token_id = None
    return model.eval()


def image_prompt(family, *, left=0, right=0):
    """The arguments of a call: text, an image of four tokens, and text, padded on the left or the right."""
    image = [START, *[IMAGE] * 4, END]
    words = [5, 6, *image, 7, 8, 9]
    ids = torch.tensor([[0] * left + words + [0] * right])
    types = (ids == IMAGE).long()
    mask = torch.tensor([[0] * left + [1] * len(words) + [0] * right])
    inputs = {"input_ids": ids, "attention_mask": mask}
    generator = torch.Generator().manual_seed(1)
    if family.startswith("qwen"):
        pixels = torch.randn(16, 3 * 2 * 4 * 4, generator=generator)
        return inputs | {
            "pixel_values": pixels,
            "image_grid_thw": torch.tensor([[1, 4, 4]]),
            "mm_token_type_ids": types,
        }
    return inputs | {"pixel_values": torch.randn(1, 3, 16, 16, generator=generator), "token_type_ids": types}
