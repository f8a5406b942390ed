"""A model without its clamps, but with the placements of `presets.trained`, computes what it does with its clamps."""

import copy
import warnings
from math import inf

import pytest
import torch

from armlet import attach, presets
from armlet.attachment.expert_rows import EAGER, ROW_ORDERS
from clamped import CLASSES, LIMIT_NAMES, SUPPORTED, clamped
from families import prompt

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="an older transformers has no such models")

each_model = pytest.mark.parametrize("model_type", CLASSES)
each_implementation = pytest.mark.parametrize("implementation", ROW_ORDERS)


@pytest.fixture(autouse=True)
def _quiet():
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of models
        yield


def tiny_clamped(model_type, implementation=EAGER):
    return clamped(model_type, implementation) or pytest.skip("its experts have one implementation")


def without_clamps(model):
    """A copy without limits."""
    freed = copy.deepcopy(model)
    for module in freed.modules():
        for name in LIMIT_NAMES:
            if hasattr(module, name):
                setattr(module, name, inf)
    return freed


def logits(model):
    return model(prompt(9, batch=2)).logits


@each_implementation
@each_model
def test_placements_compute_what_the_clamps_of_a_model_do(model_type, implementation):
    model = tiny_clamped(model_type, implementation)
    expected, freed = logits(model), without_clamps(model)
    assert not torch.allclose(logits(freed), expected, atol=1e-3)
    with attach(freed, presets.trained(model.config)):
        assert torch.equal(logits(freed), expected)


@each_model
def test_both_sites_are_needed(model_type):
    model = tiny_clamped(model_type)
    expected, freed = logits(model), without_clamps(model)
    for site in ("gate", "up"):
        with attach(freed, [p for p in presets.trained(model.config) if p["site"] == site]):
            assert not torch.allclose(logits(freed), expected, atol=1e-3)


@each_model
def test_a_model_with_its_clamps_stays_as_it_is(model_type):
    model = tiny_clamped(model_type)
    expected = logits(model)
    with attach(model, presets.trained(model.config)):
        assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("model_type", ["deepseek_v4", "glm5_next", "hy_v4", "step3p7"])
def test_bits_are_equal_in_bfloat16_for_limits_that_it_can_represent(model_type):
    model = tiny_clamped(model_type).bfloat16()
    expected, freed = logits(model), without_clamps(model)
    assert not torch.equal(logits(freed), expected)
    with attach(freed, presets.trained(model.config)):
        assert torch.equal(logits(freed), expected)
