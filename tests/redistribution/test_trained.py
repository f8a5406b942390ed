"""`trained` reads the clamps of a model from its configuration; tests/attachment/test_trained.py runs them."""

import json
import re
import warnings
from math import exp, inf
from pathlib import Path

import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version
from torch.nn import functional as F

from armlet import Inward, presets, redistribute
from armlet.errors import ArgumentError
from shrinking import tiny_config

EVERYWHERE = {"gpt_oss": 1.702, "minimax_m3_vl": 1.702, "deepseek_v4": 1.0, "glm5_next": 1.0}
"""Model types with one limit in all layers → the gain of the sigmoid."""
ROUTED_ONLY = ("hy_v4", "hy_v4_vl")
DENSE, SPARSE = "dense", "sparse"

newest = pytest.mark.skipif(
    Version(hf.__version__) < Version("5.24"), reason="an older transformers has no such model, or no such settings"
)


def clamped(model_type, **changes):
    """A tiny configuration with changes to its text part."""
    config = tiny_config(model_type)
    for key, value in changes.items():
        setattr(config.get_text_config(), key, value)
    return config


def content(config):
    """What a config.json has."""
    return json.loads(json.dumps(config.to_dict()))


def gate(limit):
    return Inward(limit=limit, side="above", curve="clip")


def up(limit):
    return Inward(limit=limit, curve="clip")


def step(**changes):
    """The text part of a config.json of Step-3.7."""
    layers = {"num_hidden_layers": 4, "mlp_layer_types": [DENSE, SPARSE, SPARSE, SPARSE]}
    return {"model_type": "step3p5", **layers, "swiglu_limits": None, "swiglu_limits_shared": None} | changes


# --- which clamps, where --------------------------------------------------------------------------------------------


@newest
@pytest.mark.parametrize("model_type", EVERYWHERE)
def test_one_limit_acts_on_gate_and_up_of_all_layers_and_experts(model_type):
    config = clamped(model_type, swiglu_limit=0.7)
    at_gate, at_up = presets.trained(config)
    layers = list(range(config.get_text_config().num_hidden_layers))
    limit = at_gate["policy"].limit
    assert limit == pytest.approx(0.7 / (1 + exp(-EVERYWHERE[model_type] * 0.7)), rel=2e-7)
    assert at_gate == {"policy": gate(limit), "layers": layers, "site": "gate"}
    assert at_up == {"policy": up(0.7), "layers": layers, "site": "up"}


@newest
@pytest.mark.parametrize("model_type", ROUTED_ONLY)
def test_dense_layers_and_shared_experts_of_hy_v4_have_no_clamp(model_type):
    config = clamped(model_type, swiglu_limit=2.0, mlp_layer_types=[DENSE, SPARSE, DENSE, SPARSE])
    assert presets.trained(config) == [
        {"policy": gate(F.silu(torch.tensor(2.0)).item()), "layers": [1, 3], "site": "gate", "experts": "routed"},
        {"policy": up(2.0), "layers": [1, 3], "site": "up", "experts": "routed"},
    ]


@newest
def test_step_clamps_by_layer_after_the_activation():
    kinds = [DENSE, SPARSE, SPARSE, SPARSE]
    config = clamped("step3p7", mlp_layer_types=kinds)
    text = config.get_text_config()
    text.swiglu_limits, text.swiglu_limits_shared = [7.0, 7.0, 0.0, None], [16.0, 16.0, 0, None]
    assert presets.trained(config) == [
        {"policy": gate(16.0), "layers": [0], "site": "gate"},  # a dense layer has the limit of the shared experts
        {"policy": up(16.0), "layers": [0], "site": "up"},
        {"policy": gate(7.0), "layers": [1], "site": "gate", "experts": "routed"},
        {"policy": up(7.0), "layers": [1], "site": "up", "experts": "routed"},
        {"policy": gate(16.0), "layers": [1], "site": "gate", "experts": "shared"},
        {"policy": up(16.0), "layers": [1], "site": "up", "experts": "shared"},
    ]


def test_layers_with_the_same_limit_share_a_placement():
    placements = presets.trained(step(swiglu_limits=[0, 7.0, 7.0, 5.0], swiglu_limits_shared=[7.0, 7.0, 7.0, 0]))
    assert [(p["policy"].limit, p["layers"], p.get("experts")) for p in placements if p["site"] == "up"] == [
        (7.0, [0, 1, 2], None),
        (5.0, [3], "routed"),
    ]


@newest
@pytest.mark.parametrize("model_type", [*EVERYWHERE, *ROUTED_ONLY, "step3p7"])
def test_a_file_gives_the_placements_of_its_configuration(model_type):
    changes = {"swiglu_limits": [0, 1.0, 2.0, 0], "swiglu_limits_shared": [3.0] * 4} if model_type == "step3p7" else {}
    config = clamped(model_type, **changes)
    placements = presets.trained(config)
    assert placements
    assert presets.trained(content(config)) == placements
    assert presets.trained(content(config.get_text_config())) == placements
    without_type = content(config)
    if "text_config" in without_type:
        del without_type["text_config"]["model_type"]
    assert presets.trained(without_type) == placements


@newest
def test_settings_at_the_top_of_a_text_only_glm_file_count():
    text = content(clamped("glm5_next", swiglu_limit=3.0).get_text_config())
    assert presets.trained(text | {"model_type": "glm5_next"}) == presets.trained(text)


@newest
def test_a_step_file_in_its_own_format_is_read_as_transformers_reads_it():
    lists = {"swiglu_limits": [0, 0, 0, 7, 0, 9], "swiglu_limits_shared": [0, 0, 5, 0, 16, 16]}
    text = {"num_hidden_layers": 5, "num_nextn_predict_layers": 1, "moe_layers_enum": "3, 4", **lists}
    placements = presets.trained({"model_type": "step3p7", "text_config": {"model_type": "step_remote", **text}})
    assert placements == presets.trained(hf.Step3p7Config(text_config=dict(text)))
    assert placements == presets.trained({"model_type": "step3p5", **text, "moe_layers_enum": [3, 4]})
    assert [(p["layers"], p.get("experts")) for p in placements if p["site"] == "up"] == [
        ([2], None),
        ([3], "routed"),
        ([4], "shared"),
    ]


# --- no clamps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        hf.LlamaConfig(),
        hf.Qwen3MoeConfig(),
        hf.Qwen2VLConfig(),
        {"model_type": "llama", "swiglu_limit": None, "swiglu_limits": [0, None], "use_swiglu_ffn": True},
        {"model_type": "mamba2", "time_step_limit": [0.0, 1.0], "quantization_config": {"quant_method": "fp8"}},
        step(),
        step(swiglu_limits=[0.0, None, 0, 0], swiglu_limits_shared=[]),
        {"model_type": "deepseek_v4", "num_hidden_layers": 2, "swiglu_limit": inf, "hidden_act": "silu"},
    ],
)
def test_a_model_without_clamps_has_no_placements(config):
    assert presets.trained(config) == []


@newest
@pytest.mark.slow
def test_no_other_model_of_transformers_is_known_to_clamp():
    outcomes: dict[str, set[str]] = {"placements": set(), "refused": set(), "none": set()}
    for model_type in hf.CONFIG_MAPPING:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                config = hf.CONFIG_MAPPING[model_type]()
            except Exception:  # it needs the configurations of its parts
                continue
        try:
            outcomes["placements" if presets.trained(config) else "none"].add(model_type)
        except ArgumentError:
            outcomes["refused"].add(model_type)
    clamping = {*EVERYWHERE, *ROUTED_ONLY}
    assert outcomes["placements"] >= clamping
    assert {name.removesuffix("_text") for name in outcomes["placements"]} == clamping
    softcapped = {"inkling2", "inkling2_loop", "inkling2_text", "inkling2_loop_text"}
    ambiguous = {"musicgen", "musicgen_melody"}  # two text models
    assert outcomes["refused"] - ambiguous == {"openai_privacy_filter", "glm5_next_vision", *softcapped}
    assert len(outcomes["none"]) > 400


def test_the_page_names_the_lines_of_all_clamps():
    if not hf.__version__.startswith("5.24."):
        pytest.skip("the page is that of transformers 5.24")
    models = Path(hf.__file__).parent / "models"
    page = (Path(__file__).parents[2] / "docs" / "reference" / "bounds.md").read_text(encoding="utf-8")
    sources = re.findall(r"`(\w+/modeling_\w+\.py):(\d+)`", page)
    for path, line in sources:
        assert re.search(
            r"(gate|up) = .*\.clamp\(|softcap\(gate\)", (models / path).read_text().splitlines()[int(line) - 1]
        )
    clamps = [
        (str(path.relative_to(models)), str(number))
        for path in models.glob("*/modeling_*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"^\s*(gate|up) = .*\.clamp\(|softcap\(gate\)", line)
    ]
    assert sorted(sources) == sorted(clamps)


# --- refusals -------------------------------------------------------------------------------------------------------

DEEPSEEK = {"model_type": "deepseek_v4", "num_hidden_layers": 2, "swiglu_limit": 10.0, "hidden_act": "silu"}
GPT = {"model_type": "gpt_oss", "num_hidden_layers": 2, "swiglu_limit": 7.0, "swiglu_alpha": 1.702}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "new", "swiglu_limit": 7.0}, "swiglu_limit=7.0 looks like.* model type 'new'"),
        ({"model_type": "new", "swiglu_alpha": 1.7}, "swiglu_alpha=1.7 looks like"),
        ({"model_type": "new", "swiglu_limits": [0, 3.0]}, r"swiglu_limits=\[0, 3.0\] looks like"),
        ({"model_type": "new", "llm_config": {"act_clamp_limit": 3}}, "llm_config.act_clamp_limit=3 looks like"),
        ({"model_type": "step3p7", "swiglu_limits": [3.0]}, "swiglu_limits=.* model type 'step3p7'"),
        ({"model_type": "new", "text_config": {"model_type": "newer", "mlp_up_softcap": 9}}, "mlp_up_softcap.*'newer'"),
        (GPT | {"swiglu_limits": [1.0, 2.0]}, "swiglu_limits=.* looks like"),
        (
            DEEPSEEK | {"per_layer_config": {"1": {"swiglu_limit": 3.0}}},
            "per_layer_config.1.swiglu_limit=3.0 looks like",
        ),
        ({"swiglu_limit": 7.0}, "has no model_type"),
        ({"model_type": "gpt_oss", "num_hidden_layers": 2, "swiglu_limit": 7.0}, "has no swiglu_alpha"),
        ({"model_type": "gpt_oss", "num_hidden_layers": 2}, "has no swiglu_limit"),
        ({"model_type": "gpt_oss", "swiglu_limit": 7.0}, "has no num_hidden_layers"),
        ({"model_type": "hy_v4", "num_hidden_layers": 2, "swiglu_limit": 7.0}, "has no mlp_layer_types"),
        ({"model_type": "step3p5", "num_hidden_layers": 2, "swiglu_limits": None}, "has no swiglu_limits_shared"),
        (DEEPSEEK | {"num_hidden_layers": "2"}, "num_hidden_layers must be an integer .*'2'"),
        (DEEPSEEK | {"swiglu_limit": 0}, "swiglu_limit must be a number above 0, found 0"),
        (DEEPSEEK | {"swiglu_limit": -3.0}, "swiglu_limit must be a number above 0, found -3.0"),
        (DEEPSEEK | {"swiglu_limit": None}, "swiglu_limit must be a number above 0, found None"),
        (DEEPSEEK | {"swiglu_limit": True}, "swiglu_limit must be a number above 0, found True"),
        (DEEPSEEK | {"swiglu_limit": 1e40}, "swiglu_limit must be a number that float32 can have"),
        (DEEPSEEK | {"swiglu_limit": 10**400}, "swiglu_limit must be a number that float32 can have"),
        (GPT | {"swiglu_alpha": inf}, "swiglu_alpha must be a finite number"),
        (GPT | {"blocks": [{"swiglu_limit": 3}]}, "blocks.swiglu_limit=3 looks like a limit"),
        ({"model_type": "llama", "MLP_Clip": 3}, "MLP_Clip=3 looks like a limit"),
        ({"model_type": "some_vl", "swiglu_limit": 7.0, "text_config": {"model_type": "llama"}}, "limit=7.0 looks"),
        (DEEPSEEK | {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        (GPT | {"swiglu_alpha": 0}, "swiglu_alpha must be a number above 0"),
        (step(swiglu_limits=[0, -1.0, 0, 0]), r"swiglu_limits\[1\] must be a number above 0"),
        (
            step(swiglu_limits=[0, 7.0, 0, 0], mlp_layer_types=[DENSE, "moe", SPARSE, SPARSE]),
            "dense or sparse, found 'moe'",
        ),
        *(
            (
                step(swiglu_limits=[0, 0, 7.0, 0], mlp_layer_types=None, moe_layers_enum=indices),
                "moe_layers_enum must be indices of the 4 layers",
            )
            for indices in ("1-2", "a,b", "7,8", 5)
        ),
        (step(swiglu_limits=[0, 7.0, 0, 0], num_nextn_predict_layers="a"), "num_nextn_predict_layers must be a count"),
        (step(swiglu_limits=[7.0]), "swiglu_limits must have one entry for each of the 4 layers"),
        (step(swiglu_limits=7.0), "swiglu_limits must have one entry for each of the 4 layers"),
        (step(swiglu_limits=[0, 7.0, 0, 0], mlp_layer_types=[SPARSE]), "mlp_layer_types must have one entry"),
        ("gpt_oss", "config must be a configuration of transformers, or a dict.*'gpt_oss'"),
        (None, "config must be a configuration of transformers, or a dict"),
    ],
)
def test_what_is_not_known_is_refused(config, message):
    with pytest.raises(ArgumentError, match=message):
        presets.trained(config)


def test_a_configuration_that_contains_itself_is_refused():
    config = {"model_type": "some", "part": {}}
    config["part"]["whole"] = config
    with pytest.raises(ArgumentError, match="the configuration contains itself"):
        presets.trained(config)


# --- the identity: a clamp before the activation is a clip after it --------------------------------------------------


def silu(gates):
    return F.silu(gates)


def scaled_silu(gates):
    """As gpt-oss and MiniMax-M3 compute it, each step in the dtype of the gate."""
    return gates * torch.sigmoid(gates * 1.702)


def policies(limit, model_type):
    """The policies at gate and up for a limit."""
    config = {"model_type": model_type, "num_hidden_layers": 1, "hidden_act": "silu", "swiglu_alpha": 1.702}
    keys = {"deepseek_v4": ("model_type", "num_hidden_layers", "hidden_act"), "gpt_oss": tuple(config)}[model_type]
    placements = presets.trained({key: config[key] for key in keys} | {"swiglu_limit": limit})
    return [placement["policy"] for placement in placements]


FORMULAS = [("deepseek_v4", silu), ("gpt_oss", scaled_silu)]
each_formula = pytest.mark.parametrize(("model_type", "activation"), FORMULAS)
float32 = st.floats(2**-10, 2**10, width=32)


@each_formula
@given(limit=float32, scale=float32, seed=st.integers(0, 2**32))
def test_a_clip_of_the_activated_gate_has_the_bits_of_the_clamped_gate(model_type, activation, limit, scale, seed):
    gates = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(seed)) * scale  # whole vectors
    bits = torch.tensor(limit).view(torch.int32) + torch.arange(-32, 32, dtype=torch.int32)
    gates[0, 0] = bits.view(torch.float32)  # the neighbours of the limit
    at_gate, at_up = policies(limit, model_type)
    assert torch.equal(redistribute(activation(gates), at_gate), activation(gates.clamp(max=limit)))
    assert torch.equal(redistribute(gates, at_up), gates.clamp(-limit, limit))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("model_type", "activation", "limit"),
    [("deepseek_v4", silu, 10.0), ("deepseek_v4", silu, 7.0), ("gpt_oss", scaled_silu, 7.0)],
)
def test_published_limits_have_those_bits_for_all_values_of_half_precision(model_type, activation, limit, dtype):
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    gates = values[values.isfinite()]
    gates = gates[: len(gates) // 64 * 64].view(1, -1, 64)
    assert (gates > limit).any()
    at_gate, at_up = policies(limit, model_type)
    assert torch.equal(redistribute(activation(gates), at_gate), activation(gates.clamp(max=limit)))
    assert torch.equal(redistribute(gates, at_up), gates.clamp(-limit, limit))


def test_another_limit_can_differ_in_the_last_bit_in_bfloat16():
    gates = torch.full((1, 1, 64), 2.0, dtype=torch.bfloat16)
    limits = torch.linspace(0.5, 4, 64).bfloat16().tolist()
    differences = [
        (redistribute(scaled_silu(gates), policies(limit, "gpt_oss")[0]) - scaled_silu(gates.clamp(max=limit))).abs()
        for limit in limits
    ]
    worst = max(difference.max().item() for difference in differences)
    assert 0 < worst <= 2**-6


@each_formula
def test_the_limit_is_of_the_activated_gate(model_type, activation):
    gates = torch.full((1, 1, 64), 9.0)
    at_gate, at_up = policies(2.0, model_type)
    assert not torch.equal(redistribute(activation(gates), at_up), activation(gates.clamp(max=2.0)))
    assert at_gate.limit < at_up.limit == 2.0
