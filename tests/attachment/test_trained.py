"""A model without its clamps, but with the placements of `presets.trained`, computes what it does with its clamps."""

import copy
import warnings
from math import inf

import pytest
import torch
import transformers as hf
from packaging.version import Version

from armlet import attach, presets
from armlet.attachment.expert_rows import EAGER, ROW_ORDERS
from families import prompt
from shrinking import tiny_config

pytestmark = pytest.mark.skipif(
    Version(hf.__version__) < Version("5.24"), reason="an older transformers has no such models"
)

LIMIT = 0.25  # of gates and ups with a standard deviation of about 1
STEP_LIMITS = {"swiglu_limits": [0.0, 0.25, 0.5, 0.25], "swiglu_limits_shared": [0.25, 0.25, 0.125, 0.0]}
CLASSES = {
    "gpt_oss": hf.GptOssForCausalLM,
    "minimax_m3_vl_text": getattr(hf, "MiniMaxM3VLForCausalLM", None),
    "deepseek_v4": getattr(hf, "DeepseekV4ForCausalLM", None),
    "glm5_next": getattr(hf, "Glm5NextForConditionalGeneration", None),
    "hy_v4": getattr(hf, "HYV4ForCausalLM", None),
    "hy_v4_vl": getattr(hf, "HYV4VLForConditionalGeneration", None),
    "step3p7": getattr(hf, "Step3p7ForConditionalGeneration", None),
}
each_model = pytest.mark.parametrize("model_type", CLASSES)
each_implementation = pytest.mark.parametrize("implementation", ROW_ORDERS)


@pytest.fixture(autouse=True)
def _quiet():
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of models
        yield


def clamped(model_type, implementation=EAGER):
    """A tiny model with small limits."""
    config = tiny_config(model_type)
    text = config.get_text_config()
    for key, value in (STEP_LIMITS if model_type == "step3p7" else {"swiglu_limit": LIMIT}).items():
        setattr(text, key, value)
    if "dense" in text.to_dict().get("mlp_layer_types", ()):
        text.mlp_layer_types = ["dense", "sparse", "sparse", "sparse"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLASSES[model_type](config)
        for parameter in model.parameters():
            parameter.normal_(0, 0.2) if parameter.dim() > 1 else parameter.normal_(1, 0.1)
    if model._can_set_experts_implementation():
        model.set_experts_implementation(implementation)
    elif implementation != EAGER:
        pytest.skip("its experts have one implementation")
    return model.float().eval()


def without_clamps(model):
    """A copy without limits."""
    freed = copy.deepcopy(model)
    for module in freed.modules():
        for name in ("limit", "swiglu_limit"):
            if hasattr(module, name):
                setattr(module, name, inf)
    return freed


def logits(model):
    return model(prompt(9, batch=2)).logits


@each_implementation
@each_model
def test_placements_compute_what_the_clamps_of_a_model_do(model_type, implementation):
    model = clamped(model_type, implementation)
    expected, freed = logits(model), without_clamps(model)
    assert not torch.allclose(logits(freed), expected, atol=1e-3)
    with attach(freed, presets.trained(model.config)):
        assert torch.equal(logits(freed), expected)


@each_model
def test_both_sites_are_needed(model_type):
    model = clamped(model_type)
    expected, freed = logits(model), without_clamps(model)
    for site in ("gate", "up"):
        with attach(freed, [p for p in presets.trained(model.config) if p["site"] == site]):
            assert not torch.allclose(logits(freed), expected, atol=1e-3)


@each_model
def test_a_model_with_its_clamps_stays_as_it_is(model_type):
    model = clamped(model_type)
    expected = logits(model)
    with attach(model, presets.trained(model.config)):
        assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("model_type", ["deepseek_v4", "glm5_next", "hy_v4", "step3p7"])
def test_bits_are_equal_in_bfloat16_for_limits_that_it_can_represent(model_type):
    model = clamped(model_type).bfloat16()
    expected, freed = logits(model), without_clamps(model)
    assert not torch.equal(logits(freed), expected)
    with attach(freed, presets.trained(model.config)):
        assert torch.equal(logits(freed), expected)
