"""`Layer1` reads from a configuration what its family's own code reads, and nothing else."""

import inspect
import json
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from armlet.attachment.sites import UnsupportedModelError
from armlet.layer.decoder import Layer1
from armlet.layer.options import read_options
from families import FAMILIES, MIXTURES, WITH_TOWERS, prompt, tiny

LIMIT = 1e-5
FAMILY_NAMES = [*(family for family in FAMILIES if family != "deepseek_v3"), *MIXTURES, *WITH_TOWERS]

FOREIGN = {
    "alibi": True,
    "attention_bias": True,
    "attention_multiplier": 0.5,
    "attn_logit_softcapping": 0.5,
    "clip_qkv": 0.1,
    "embedding_multiplier": 3.0,
    "hidden_activation": "relu",
    "layer_norm_eps": 0.5,
    "mlp_bias": True,
    "moe_intermediate_size": 8,
    "n_shared_experts": 3,
    "no_rope_layers": [0, 0, 0],
    "norm_topk_prob": True,
    "pretraining_tp": 2,
    "qk_layernorm": True,
    "qkv_bias": False,
    "query_pre_attn_scalar": 16,
    "residual_multiplier": 0.5,
    "rms_norm_eps": 0.5,
    "routed_scaling_factor": 3.0,
    "swiglu_limit": 0.1,
    "use_bias": True,
    "use_bidirectional_attention": True,
    "use_parallel_residual": True,
    "use_qk_norm": True,
    "use_qkv_bias": True,
}
"""Keys that some families read, with values that would change the layer."""


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def foreign_keys(family):
    """Those of `FOREIGN` that do not occur in the code of the family's model and configuration."""
    model = tiny(family)
    classes = type(model), type(model.config.get_text_config())
    code = "".join(inspect.getsource(sys.modules[part.__module__]) for part in classes)
    return {name: value for name, value in FOREIGN.items() if name not in code}


def difference_of_layers(model, index, layer):
    """The largest difference between a layer and Hugging Face's, and between what embed and the model give it."""
    seen, ids = {}, prompt(40, batch=2)
    target = model.get_decoder().layers[index]
    with target.register_forward_hook(lambda _module, args, y: seen.update(x=args[0], y=y)):
        model(input_ids=ids)
    embedded = (layer.embed(ids) - seen["x"]).abs().max().item() if index == 0 else 0.0
    return (layer(seen["x"]) - seen["y"]).abs().max().item(), embedded


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_keys_that_a_family_ignores_change_nothing(family):
    foreign = foreign_keys(family)
    assert len(foreign) >= 15
    model = tiny(family, **foreign)
    model.set_attn_implementation("eager")
    config = model.config.get_text_config()
    assert all(getattr(config, name) == value for name, value in foreign.items())
    assert read_options(config, 1) == read_options(tiny(family).config, 1)
    for index in (0, 1):
        assert max(difference_of_layers(model, index, Layer1.from_model(model, index))) <= LIMIT


LEGACY_ROPE = {
    "none": None,
    "empty": {},
    "default": {"type": "default"},
    "linear": {"type": "linear", "factor": 2.0},
    "yarn": {
        "type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "mscale": 0.7,
        "mscale_all_dim": 1.0,
    },
}


@pytest.mark.parametrize("scaling", LEGACY_ROPE.values(), ids=LEGACY_ROPE)
@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_keys_of_rope_from_before_transformers_5_are_read_as_it_reads_them(family, scaling, tmp_path):
    def change(settings):
        del settings["rope_parameters"]
        settings |= {"rope_theta": 1e5, "rope_scaling": scaling}

    model = rewritten(tmp_path, family, change)
    assert max(difference_of_layers(model, 0, Layer1.from_checkpoint(tmp_path))) <= LIMIT


def rewritten(folder, family, change, auto=AutoModelForCausalLM):
    """Saves a tiny model, lets `change` edit its configuration, and loads what transformers makes of it."""
    tiny(family).save_pretrained(folder)
    file = folder / "config.json"
    settings = json.loads(file.read_text())
    change(settings)
    file.write_text(json.dumps(settings))
    return auto.from_pretrained(folder, attn_implementation="eager")


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_a_flat_configuration_with_the_rope_of_images_is_read_as_transformers_reads_it(family, tmp_path):
    """As in the released checkpoints."""

    def flatten(settings):
        text = settings.pop("text_config")
        del text["model_type"], text["rope_parameters"]
        rope = {"rope_theta": 5e4, "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}}
        settings.update(text | settings | rope)

    model = rewritten(tmp_path, family, flatten, AutoModelForImageTextToText)
    assert max(difference_of_layers(model, 0, Layer1.from_checkpoint(tmp_path))) <= LIMIT


@pytest.mark.parametrize("index", [0, 1])
def test_a_mistral_with_layer_types_is_a_ministral(index, tmp_path):
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    changes = {"head_dim": 8, "layer_types": kinds, "sliding_window": 7}
    model = rewritten(tmp_path, "mistral", lambda settings: settings.update(changes))
    layer = Layer1.from_checkpoint(tmp_path, index)
    assert layer.options.window == (None, 7)[index]
    assert max(difference_of_layers(model, index, layer)) <= LIMIT


def test_a_loaded_mistral_ignores_layer_types():
    model = tiny("mistral", layer_types=["full_attention"] * 3, sliding_window=7)
    assert Layer1.from_model(model).options.window == 7


def test_half_rotated_heads_are_read_by_families_that_rotate_halves_only():
    assert len(read_options(tiny("phi3", partial_rotary_factor=0.5).config, 0).frequencies) == 2
    assert len(read_options(tiny("llama", partial_rotary_factor=0.5).config, 0).frequencies) == 4
    assert read_options(tiny("llama", partial_rotary_factor=0.5).config, 0) == read_options(tiny().config, 0)


LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("llama", {"rope_parameters": {"rope_type": "su", "rope_theta": 1e4}}, "RoPE of type 'su'"),
        ("qwen2", {"rope_parameters": {"rope_type": "mrope", "rope_theta": 1e4}}, "RoPE of type 'mrope'"),
        ("llama", {"rope_parameters": {"factor": 2.0}}, "KeyError: 'rope_type'"),
        ("llama", {"rope_parameters": None}, "TypeError"),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": None}}, "TypeError"),
        ("llama", {"rope_parameters": LINEAR | {"partial_rotary_factor": 0.5}}, "for 4 values of a head, where 8 are"),
        ("stablelm", {"head_dim": 16}, "RoPE has frequencies for 4 values of a head, where 2 are rotated"),
        ("qwen2", {"layer_types": ["chunked_attention"] * 3}, "'chunked_attention', neither full_attention nor"),
        ("qwen3", {"layer_types": ["sliding_attention"] * 3}, "'sliding_attention', without sliding_window"),
        ("qwen2", {"layer_types": ["full_attention"]}, "IndexError"),
        ("mistral", {"sliding_window": 0}, "sliding_window is 0"),
        ("smollm3", {"no_rope_layers": [1]}, "IndexError"),
        ("llama", {"is_causal": False}, "llama with is_causal: false"),
        ("gemma", {"use_bidirectional_attention": True}, "gemma with use_bidirectional_attention"),
        ("mixtral", {"num_experts_per_tok": 7}, "its experts do not fit together"),
        ("glm4_moe", {"n_group": 3}, "its experts do not fit together"),
        ("qwen3_moe", {"decoder_sparse_step": 0, "mlp_only_layers": []}, "ZeroDivisionError"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_refused_in_one_line(family, changes, message):
    config = tiny(family).config
    for name, value in changes.items():
        object.__setattr__(config, name, value)
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        read_options(config, 1)
    assert "\n" not in str(caught.value)
