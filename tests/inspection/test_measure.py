"""What `inspect` reports is what `redistribute` and `attach` do, by paths that share nothing with it but them."""

import json
import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from armlet import Cut, Inward, Layer1, Noise, Outward, Transport, attach, redistribute
from armlet.inspection.measure import activated_gates, inspect_gates
from armlet.inspection.records import GateSample
from armlet.inspection.synthetic import synthetic
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.outward import near_zero_halfwidth
from armlet.redistribution.policies import detail
from armlet.statistics.shape import MEASURES, count_modes, difference, measure
from families import tiny
from tiny_checkpoints import words

POLICIES = [Outward(), Inward(knee=0.9), Transport()]
PROMPTS = ["w1 w2 w3 w4 w5", "w9", "w30 w20 w10"]


@cache
def model_of(family="llama"):
    model = tiny(family)
    model.set_attn_implementation("eager")  # as Layer1 has it
    return model


def gates(*lengths, width=48, seed=0):
    """Gate-like values `[length, width]`, one for each length."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.functional.silu(2 * torch.randn(length, width, generator=generator)) for length in lengths]


def inspected(values, policies=POLICIES, *, layer=0, **how):
    measured = inspect_gates(GateSample(values, layer=layer), policies, **how).to_dict()
    return {name: value for name, value in measured.items() if name != "prompts"}


def slow(values, policy, *, scope="token", seed=0, layer=0):
    """Measures after, and the share of values that changed: prompt by prompt through `redistribute`."""
    after = []
    for a in values:
        noise = Noise(seed).uniforms(a.shape, torch.arange(len(a)), Noise(seed).keys(a.shape[1], layer))
        after.append(redistribute(a, policy, scope=scope, noise=noise))
    before, after = torch.cat(list(values)), torch.cat(after)
    return measure(after, halfwidth=near_zero_halfwidth(before)), (before != after).double().mean().item()


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("scope", ["token", "sequence", "call"])
@pytest.mark.parametrize("layer", [0, 2])
def test_numbers_are_those_of_redistribute_prompt_by_prompt(policy, scope, layer):
    values = gates(5, 1, 30)
    found = inspected(values, [policy], scope=scope, seed=3, layer=layer)
    before = torch.cat(values)
    measured = measure(before, halfwidth=near_zero_halfwidth(before))
    after, changed = slow(values, policy, scope=scope, seed=3, layer=layer)
    assert (found["tokens"], found["width"], found["passed"]) == (36, 48, 0)
    assert found["before"] == measured
    (effect,) = found["policies"]
    assert effect["after"] == after
    assert effect["difference"] == difference(measured, after)
    # A draw, or a rank's place, that is the value it replaces: none here.
    assert effect["share_moved"] == changed > 0
    assert list(found["before"]) == list(effect["after"]) == list(effect["difference"]) == list(MEASURES)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("scope", ["token", "sequence", "call"])
@pytest.mark.parametrize("layer", [0, 2])
def test_share_moved_is_what_attach_reports(policy, scope, layer):
    model, tokenizer = model_of(), words()
    found = inspected(activated_list(model, tokenizer, layer), [policy], scope=scope, seed=3, layer=layer)
    with attach(model, policy, layers=layer, scope=scope, noise=Noise(3)) as attachment, torch.no_grad():
        for prompt in PROMPTS:
            model(**tokenizer(prompt, return_tensors="pt"))
        report = attachment.report()[layer]
    assert found["tokens"] == report["tokens"]
    assert found["policies"][0]["share_moved"] == pytest.approx(report["moved"] / (report["tokens"] * 48), rel=1e-12)


def activated_list(model, tokenizer, layer):
    ids = [tokenizer(prompt, return_tensors="pt")["input_ids"] for prompt in PROMPTS]
    return list(activated_gates((Layer1.from_model(model, at) for at in range(layer + 1)), ids, layer))


def project_llama(mlp, x):
    return mlp.gate_proj(x)


def project_phi3(mlp, x):
    return mlp.gate_up_proj(x).chunk(2, dim=-1)[0]


CURVES = {
    "llama": (project_llama, torch.nn.functional.silu),
    "qwen2": (project_llama, torch.nn.functional.silu),
    "gemma3": (project_llama, lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
    "phi3": (project_phi3, torch.nn.functional.silu),
}


@pytest.mark.parametrize("family", CURVES)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_activated_gates_are_the_activation_of_the_mlps_own_input(family, layer):
    model, tokenizer, inputs = model_of(family), words(), []
    project, curve = CURVES[family]
    found = activated_list(model, tokenizer, layer)
    mlp = model.get_decoder().layers[layer].mlp
    handle = mlp.register_forward_pre_hook(lambda _mlp, args: inputs.append(args[0]))
    with torch.no_grad():
        for prompt, gate in zip(PROMPTS, found, strict=True):
            model(**tokenizer(prompt, return_tensors="pt"))
            # The limit that Layer1 keeps against Hugging Face's own layer.
            torch.testing.assert_close(gate, curve(project(mlp, inputs[-1]))[0], atol=1e-5, rtol=0)
            assert gate.shape == (len(prompt.split()), 48)
    handle.remove()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activated_gates_keep_the_models_dtype(dtype):
    assert {gate.dtype for gate in activated_list(tiny().to(dtype), words(), 0)} == {dtype}


def test_every_prompt_ticks_in_every_layer_and_a_gate_comes_as_soon_as_it_is_known():
    layers, ids = [Layer1.from_model(model_of(), at) for at in range(3)], [torch.tensor([[5, 6]]), torch.tensor([[7]])]
    ticks = []
    gates_of = activated_gates(layers, ids, 2, lambda: ticks.append(None))
    next(gates_of)
    assert len(ticks) == 4  # of two prompts in the two layers below
    assert len(list(gates_of)) == 1
    assert len(ticks) == 6


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_token_with_nan_or_inf_is_left_out_and_counted(value):
    first, second = gates(6, 4)
    # The last token of a prompt: those before it keep their positions, and with them their noise.
    spoilt = torch.cat([first, torch.full((1, 48), 2.0)])
    spoilt[-1, 7] = value
    assert inspected([spoilt, second]) == inspected([first, second]) | {"passed": 1}


def test_values_of_a_dtype_count_as_they_are_in_float32():
    (a,) = gates(8)
    assert inspected([a.bfloat16()], [Inward()])["before"] == inspected([a.bfloat16().float()], [Inward()])["before"]
    # 1e300 is finite in float64, and infinite in the float32 in which statistics are taken.
    wide = a.double()
    wide[-1, 0] = 1e300
    assert inspected([wide], [Inward()])["passed"] == 1


@pytest.mark.parametrize("scope", ["sequence", "call"])
def test_a_prompt_with_nan_is_left_out_whole_where_it_is_one_scope(scope):
    first, second, third = gates(6, 4, 3)
    second[0, 0] = math.nan
    expected = inspected([first, third], scope=scope) | {"passed": 4}
    assert inspected([first, second, third], scope=scope) == expected


@pytest.mark.parametrize(("scope", "unit"), [("token", "token"), ("sequence", "prompt"), ("call", "prompt")])
def test_nothing_but_nan_is_refused_with_a_way_out(scope, unit):
    message = f"every {unit} contains NaN or Inf; try another dtype, such as float32"
    with pytest.raises(ArgumentError, match=message):
        inspect_gates(GateSample([torch.full((2, 8), math.nan)]), POLICIES, scope=scope)


def test_seed_and_layer_change_the_draws_and_nothing_else():
    values = gates(5)
    base, seed, layer = inspected(values), inspected(values, seed=1), inspected(values, layer=1)
    for other in (seed, layer):
        assert other["before"] == base["before"]
        assert other["policies"][0]["after"] != base["policies"][0]["after"]
        assert other["policies"][0]["share_moved"] == base["policies"][0]["share_moved"]
        assert other["policies"][1:] == base["policies"][1:]


def test_every_panel_has_the_values_before_and_its_policys_after():
    values = gates(5, 2)
    inspection = inspect_gates(GateSample(values), POLICIES)
    for policy, effect in zip(POLICIES, inspection.effects, strict=True):
        after = torch.cat([redistribute(a, policy) for a in values])
        assert effect.policy == policy
        assert effect.panel.name == type(policy).__name__
        np.testing.assert_array_equal(effect.panel.before, torch.cat(values).flatten())
        np.testing.assert_array_equal(effect.panel.after, after.flatten())
        np.testing.assert_array_equal(effect.panel.moved, (after != torch.cat(values)).flatten())


def test_inspecting_changes_neither_the_values_nor_the_global_generator():
    values, state = gates(5, 2), torch.get_rng_state()
    kept = [a.clone() for a in values]
    inspect_gates(GateSample(values), POLICIES)
    assert all(torch.equal(a, b) for a, b in zip(values, kept, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_not_finite_is_null_in_json():
    found = inspected([torch.eye(2, 9)], [Inward()])  # mostly zeros: max over median is infinite
    assert found["before"]["max_over_median"] is None
    assert found["policies"][0]["difference"]["max_over_median"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_to_dict_has_the_policys_name_and_settings():
    (effect,) = inspected(gates(2), [Outward(band=0.2, share=(0.1, 0.3))])["policies"]
    assert effect["policy"] == "outward"
    assert (effect["band"], effect["share"], effect["strength"]) == (0.2, (0.1, 0.3), 1.0)


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (Outward(), "band 0.13, ceiling 0.995"),
        (Outward(proportion=0.25, strength=0.5), "ceiling 0.995, proportion 0.25, strength 0.5"),
        (Inward(), "knee 0.99, curve log"),
        (Inward(curve="clip"), "knee 0.99, curve clip"),
        (Transport(spread=0.5), "spread 0.5"),
        (Cut(), "band 0.13"),
        (Cut(threshold=0.1), "threshold 0.1"),
        (Transport(strength=0.5), "spread 1.0, strength 0.5"),
    ],
)
def test_detail_names_the_main_settings_and_whatever_is_not_the_default(policy, text):
    assert detail(policy) == text


@pytest.mark.parametrize("seed", range(3))
def test_transport_makes_one_mode_at_zero_of_five_and_stays_on_the_axis(seed):
    (effect,) = inspect_gates(GateSample([synthetic("modes", seed=seed)]), [Transport()]).effects
    before, after = effect.panel.before, effect.panel.after
    assert count_modes(before.astype(np.float64)) == 5
    assert effect.after["modes"] == 1
    assert after.std() < before.std()
    assert np.abs(after).max() < 4
    heights, edges = np.histogram(after, np.linspace(-4, 4, 41))
    highest = heights.argmax()
    # Bins of 0.2, one of which ends at 0: the highest is one of the two that touch it.
    assert edges[highest] - 1e-9 <= 0 <= edges[highest + 1] + 1e-9
    centred = np.histogram(after, np.linspace(-4.1, 4.1, 42))[0]
    assert centred.argmax() == 20  # and of bins round 0 it is the middle one


@pytest.mark.parametrize("seed", range(3))
def test_inward_lowers_kurtosis_maximum_and_spread_of_heavy_tails(seed):
    inspection = inspect_gates(GateSample([synthetic("heavy-tail", seed=seed)]), [Inward()])
    change = difference(inspection.before, inspection.effects[0].after)
    assert change["kurtosis"] < 0
    assert change["max_over_median"] < 0
    assert change["std"] < 0
    assert change["near_zero"] == 0


@pytest.mark.slow
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 5))
def test_in_token_scope_prompts_do_not_matter_to_policies_without_noise(lengths, seed):
    values, policies = gates(*lengths, seed=seed), [Inward(knee=0.9), Transport()]
    assert inspected(values, policies) == inspected([torch.cat(values)], policies)


@pytest.mark.parametrize(("values", "policies"), [([], POLICIES), (gates(2), [])])
def test_nothing_to_inspect_is_refused(values, policies):
    with pytest.raises(ArgumentError, match="at least one prompt and one policy"):
        inspect_gates(GateSample(values), policies)
