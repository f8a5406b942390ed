"""`conform` finds each clamp that the code that runs leaves out, and has no complaint about a model as it is."""

import warnings
from math import inf, nan

import pytest
import torch

from armlet import attach
from armlet.attachment.expert_rows import EAGER, ROW_ORDERS
from armlet.bounds import conform
from armlet.bounds.conform_forced import NotForcedError, forced
from armlet.bounds.conform_parts import find_parts
from armlet.errors import AlreadyAttachedError, ArgumentError
from clamped import (
    CLASSES,
    LIMIT,
    STEP_LIMITS,
    SUPPORTED,
    clamped,
    free_expert,
    free_site_of_experts,
    free_site_of_mlp,
    set_limit,
)
from families import FAMILIES, MIXTURES, ROUTED_FAMILIES, prompt, tiny
from tiny_checkpoints import words

needs_models = pytest.mark.skipif(not SUPPORTED, reason="an older transformers has no such models")
each_model = pytest.mark.parametrize("model_type", CLASSES)
slow = pytest.mark.slow
each_implementation = pytest.mark.parametrize(
    "implementation", [pytest.param(name, marks=() if name == EAGER else slow) for name in ROW_ORDERS]
)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=slow)], ids=str)
each_site = pytest.mark.parametrize("site", ["gate", "up"])


@pytest.fixture(autouse=True)
def _quiet():
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of models
        yield


def tiny_clamped(model_type, implementation=EAGER, **changes):
    model = clamped(model_type, implementation, **changes)
    return model or pytest.skip("its experts have one implementation")


def checked(model):
    return conform(model, words(), prompt="w5 w6 w7 w8 w9")


def parts_of(model, kind):
    """The clamped modules of a kind, by layer."""
    parts = find_parts(model, model.config)
    return {part.layer: part.module for part in parts if part.kind == kind and part.clamp}


def complaints(result):
    """Layer, kind, site and experts of each clamp that is not applied."""
    return [
        (part.layer, part.kind, verdict.site, verdict.missing)
        for part in result.parts
        for verdict in part.verdicts
        if verdict.missing
    ]


def both(layer, kind, experts=(0,)):
    return [(layer, kind, site, experts) for site in ("gate", "up")]


# --- models as they are ---------------------------------------------------------------------------------------------


@needs_models
@each_dtype
@each_implementation
@each_model
def test_a_model_with_its_clamps_conforms(model_type, implementation, dtype):
    model = tiny_clamped(model_type, implementation, dtype=dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = checked(model)
    assert (result.conforms, result.warnings(), complaints(result)) == (True, [], [])
    assert {part.status for part in result.parts if part.clamp} == {"yes"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@needs_models
@each_model
def test_every_clamp_of_the_configuration_is_checked(model_type):
    model = tiny_clamped(model_type)
    limits = {(part.layer, part.kind): part.clamp.limit for part in checked(model).parts if part.clamp}
    if model_type == "step3p7":
        routed, shared = STEP_LIMITS["swiglu_limits"], STEP_LIMITS["swiglu_limits_shared"]
        expected = {(0, "dense"): shared[0], (1, "shared"): shared[1], (2, "shared"): shared[2]}
        expected |= {(layer, "routed"): routed[layer] for layer in (1, 2, 3)}
    elif model_type.startswith("hy_v4"):
        expected = {(layer, "routed"): LIMIT for layer in (1, 2, 3)}
    else:
        dense = model_type == "glm5_next"
        layers = range(dense, 4)
        kinds = ("routed",) if model_type == "gpt_oss" else ("routed", "shared")
        expected = {(layer, kind): LIMIT for layer in layers for kind in kinds} | (
            {(0, "dense"): LIMIT} if dense else {}
        )
    assert limits == expected


@slow
@pytest.mark.parametrize("limit", [7.0, 10.0, 16.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("model_type", ["gpt_oss", "glm5_next"])
@needs_models
def test_published_limits_conform_in_every_dtype(model_type, dtype, limit):
    assert checked(tiny_clamped(model_type, dtype=dtype, limit=limit)).conforms


@pytest.mark.parametrize(
    "family",
    [*(pytest.param((name, FAMILIES), id=name) for name in FAMILIES)]
    + [pytest.param((name, MIXTURES), id=f"mixture-{name}", marks=slow) for name in MIXTURES if name != "gpt_oss"]
    + [pytest.param((name, ROUTED_FAMILIES), id=f"routed-{name}") for name in ("phimoe", "aria", "llama4", "longcat")],
)
def test_a_model_without_clamps_gets_a_table_of_values_and_no_complaint(family):
    name, families = family
    result = checked(tiny(name, families=families))
    assert (result.conforms, result.warnings()) == (True, [])
    assert result.sentences() == ["the configuration names no clamp, and none is checked"]
    assert {part.status for part in result.parts} == {None}
    unreadable = ("llama4", "longcat")  # their experts do not show where up is
    assert not SUPPORTED or name in unreadable or all(part.largest.get("up", 0) > 0 for part in result.parts)
    assert any(part.largest.get("gate", 0) > 0 for part in result.parts)


@needs_models
@pytest.mark.parametrize("missing", [(), (1,)])
def test_a_kernel_that_takes_only_contiguous_weights_is_tried_too(missing):
    model = tiny_clamped("deepseek_v4")
    experts = parts_of(model, "routed")[0]
    for expert in missing:
        free_expert(experts, expert)
    forward = experts.forward

    def kernel(*arguments):
        if not experts.gate_up_proj.is_contiguous():
            raise RuntimeError("strides should be multiple of 16 bytes")
        return forward(*arguments)

    experts.forward = kernel
    assert complaints(checked(model)) == (both(0, "routed", missing) if missing else [])


# --- clamps that were taken out -------------------------------------------------------------------------------------


@needs_models
@each_dtype
@each_implementation
@each_model
def test_one_expert_of_one_layer_without_its_clamp_is_named(model_type, implementation, dtype):
    model = tiny_clamped(model_type, implementation, dtype=dtype)
    free_expert(parts_of(model, "routed")[2], 1)
    result = checked(model)
    assert not result.conforms
    assert complaints(result) == both(2, "routed", (1,))
    assert all(verdict.applied is None for part in result.parts for verdict in part.verdicts if verdict.missing)


@needs_models
@each_implementation
@each_site
@each_model
def test_only_one_of_the_two_clamps_of_experts_is_missed(model_type, site, implementation):
    model = tiny_clamped(model_type, implementation)
    experts = parts_of(model, "routed")[3]
    free_site_of_experts(experts, site, interleaved=model_type == "gpt_oss")
    assert complaints(checked(model)) == [(3, "routed", site, tuple(range(experts.num_experts)))]


@needs_models
@each_dtype
@pytest.mark.parametrize(
    ("model_type", "kind"),
    [
        ("minimax_m3_vl_text", "shared"),
        ("deepseek_v4", "shared"),
        ("glm5_next", "shared"),
        ("glm5_next", "dense"),
        ("step3p7", "shared"),
        ("step3p7", "dense"),
    ],
)
def test_a_dense_or_shared_mlp_without_its_clamp_is_named(model_type, kind, dtype):
    model = tiny_clamped(model_type, dtype=dtype)
    layer, mlp = list(parts_of(model, kind).items())[-1]
    set_limit(mlp, inf)
    assert complaints(checked(model)) == both(layer, kind)


@needs_models
@each_site
@pytest.mark.parametrize("model_type", ["minimax_m3_vl_text", "deepseek_v4", "glm5_next", "step3p7"])
def test_only_one_of_the_two_clamps_of_an_mlp_is_missed(model_type, site):
    model = tiny_clamped(model_type)
    layer, mlp = next(iter(parts_of(model, "shared").items()))
    free_site_of_mlp(mlp, site)
    assert complaints(checked(model)) == [(layer, "shared", site, (0,))]


@needs_models
@each_dtype
@pytest.mark.parametrize("factor", [2.0, *(pytest.param(factor, marks=slow) for factor in (0.5, 1.1, 20.0))])
@each_model
def test_another_limit_is_found_and_measured(model_type, factor, dtype):
    model = tiny_clamped(model_type, dtype=dtype)
    layer, experts = next(iter(parts_of(model, "routed").items()))
    before = set_limit(experts, inf)
    set_limit(experts, before * factor)
    result = checked(model)
    assert complaints(result) == both(layer, "routed", tuple(range(experts.num_experts)))
    up = next(verdict for part in result.parts for verdict in part.verdicts if verdict.missing and verdict.site == "up")
    assert up.applied == pytest.approx(before * factor, rel=0.005 if dtype == torch.float32 else 0.02)
    assert f"a clamp at {up.applied:.3g}" in result.sentences()[0]


@needs_models
@each_implementation
def test_a_class_whose_code_has_no_clamp_is_found_in_every_layer(monkeypatch, implementation):
    model = tiny_clamped("gpt_oss", implementation)

    def without_clamp(self, gate_up):
        gate, up = gate_up[..., ::2], gate_up[..., 1::2]
        return (up + 1) * gate * torch.sigmoid(gate * self.alpha)

    monkeypatch.setattr(type(parts_of(model, "routed")[0]), "_apply_gate", without_clamp)
    result = checked(model)
    assert [part.status for part in result.parts] == ["NO"] * 4
    assert result.sentences()[0].startswith("DOES NOT CONFORM: 4 of 4 MLPs do not apply their clamp: layer 0, routed")


@needs_models
def test_up_that_is_clamped_on_one_side_only_is_missed():
    model = tiny_clamped("glm5_next")
    mlp = parts_of(model, "dense")[0]
    limit = set_limit(mlp, inf)
    mlp.up_proj.register_forward_hook(lambda _module, _inputs, output: output.clamp(max=limit))
    mlp.gate_proj.register_forward_hook(lambda _module, _inputs, output: output.clamp(max=limit))
    assert complaints(checked(model)) == [(0, "dense", "up", (0,))]


# --- what cannot be verified is never called conforming -------------------------------------------------------------


@needs_models
@pytest.mark.parametrize("weight", [0.0, nan])
def test_weights_of_down_hide_no_clamp(weight):
    model = tiny_clamped("deepseek_v4")
    parts_of(model, "routed")[1].down_proj[2] = weight
    parts_of(model, "shared")[2].down_proj.weight.fill_(weight)
    assert checked(model).conforms is True
    set_limit(parts_of(model, "shared")[2], inf)
    assert complaints(checked(model)) == [(2, "shared", "gate", (0,)), (2, "shared", "up", (0,))]


@needs_models
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_large_bias_of_down_is_no_false_alarm(dtype):
    model = tiny_clamped("gpt_oss", dtype=dtype)
    for experts in parts_of(model, "routed").values():
        experts.down_proj_bias *= 1000
    assert checked(model).conforms is True


@needs_models
@pytest.mark.parametrize("factor", [0.4, 0.1])
def test_a_limit_much_too_small_is_found(factor):
    model = tiny_clamped("glm5_next", limit=7.0)
    set_limit(parts_of(model, "dense")[0], 7 * factor)
    result = checked(model)
    assert complaints(result) == [(0, "dense", "gate", (0,)), (0, "dense", "up", (0,))]
    assert [round(verdict.applied, 1) for verdict in result.parts[0].verdicts] == [round(7 * factor, 1)] * 2


@needs_models
@pytest.mark.parametrize("bounds", [{"max": 0.6}, {"min": -0.6}], ids=str)
def test_up_that_is_clamped_too_early_on_one_side_is_found(bounds):
    model = tiny_clamped("glm5_next")
    bounds = {name: value * LIMIT for name, value in bounds.items()}
    parts_of(model, "dense")[0].up_proj.register_forward_hook(lambda _module, _inputs, output: output.clamp(**bounds))
    assert complaints(checked(model)) == [(0, "dense", "up", (0,))]


@needs_models
def test_columns_of_the_gate_that_are_clamped_too_early_are_found():
    model = tiny_clamped("glm5_next")

    def early(_module, _inputs, output):
        half = output.shape[-1] // 2
        return torch.cat((output[..., :half].clamp(max=LIMIT / 10), output[..., half:]), -1)

    parts_of(model, "dense")[0].gate_proj.register_forward_hook(early)
    result = checked(model)
    assert complaints(result) == [(0, "dense", "gate", (0,))]
    assert result.parts[0].verdicts[0].applied == pytest.approx(LIMIT / 10, rel=0.01)


@needs_models
def test_a_clamp_that_is_missing_for_single_rows_is_found(monkeypatch):
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

    clamped_gate = GptOssExperts._apply_gate

    def apply_gate(self, gate_up):
        if gate_up.shape[0] > 1:
            return clamped_gate(self, gate_up)
        gate, up = gate_up[..., ::2], gate_up[..., 1::2]
        return (up + 1) * gate * torch.sigmoid(gate * self.alpha)

    monkeypatch.setattr(GptOssExperts, "_apply_gate", apply_gate)
    assert checked(tiny_clamped("gpt_oss")).conforms is False


@needs_models
def test_code_whose_values_are_no_numbers_is_not_verified():
    model = tiny_clamped("glm5_next")
    mlp = parts_of(model, "shared")[2]
    mlp.down_proj.register_forward_pre_hook(lambda _module, inputs: (inputs[0] * nan,), prepend=True)
    mlp.act_fn.register_forward_hook(lambda _module, _inputs, output: output * nan)
    result = checked(model)
    assert result.conforms is None
    assert next(part for part in result.parts if (part.layer, part.kind) == (2, "shared")).status == "not verified"


@needs_models
def test_a_module_that_the_model_does_not_run_is_not_verified():
    model = tiny_clamped("gpt_oss")
    block = model.model.layers[1].mlp
    block.forward = lambda hidden: (hidden, None)  # a kernel for the whole block
    result = checked(model)
    assert [part.status for part in result.parts] == ["yes", "not verified", "yes", "yes"]
    assert "did not run" in result.warnings()[0]


@needs_models
def test_quantised_experts_are_not_verified():
    model = tiny_clamped("deepseek_v4")
    experts = parts_of(model, "routed")[1]
    experts.gate_up_proj = torch.nn.Parameter(experts.gate_up_proj.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(NotForcedError, match="quantised weights"):
        forced(experts, torch.float32)


@needs_models
def test_code_that_ignores_its_linears_is_not_verified():
    model = tiny_clamped("glm5_next")
    mlp = parts_of(model, "dense")[0]
    weights = [mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight]

    def fused(hidden):
        gate, up = (torch.nn.functional.linear(hidden, weight) for weight in weights[:2])
        return torch.nn.functional.linear(torch.nn.functional.silu(gate) * up, weights[2])

    mlp.forward = fused
    result = checked(model)
    assert result.conforms is None
    assert "does not call each of its linears" in result.warnings()[0]


# --- what is measured on the prompts --------------------------------------------------------------------------------


@needs_models
@each_implementation
@each_model
def test_largest_values_are_those_of_the_linears(model_type, implementation):
    model = tiny_clamped(model_type, implementation)
    tokens = words()("w5 w6 w7 w8 w9", return_tensors="pt").input_ids
    gates, ups = {}, {}
    for layer, mlp in (parts_of(model, "shared") | parts_of(model, "dense")).items():
        if hasattr(mlp, "gate_proj"):
            mlp.gate_proj.register_forward_hook(lambda _m, _i, output, layer=layer: gates.update({layer: output}))
            mlp.up_proj.register_forward_hook(lambda _m, _i, output, layer=layer: ups.update({layer: output}))
    model(tokens)
    expected = {layer: (gates[layer].clone(), ups[layer].clone()) for layer in gates}
    parts = {part.layer: part for part in checked(model).parts if part.kind != "routed" and part.clamp}
    for layer, (gate, up) in expected.items():
        part = parts[layer]
        assert part.largest["linear gate"] == gate.abs().max().item()
        assert part.largest["up"] == up.abs().max().item()
        assert part.shares["up"] == pytest.approx((up.abs() > part.clamp.limit).double().mean().item())
        assert part.shares["gate"] == pytest.approx((gate > part.clamp.gate).double().mean().item())


@needs_models
@each_implementation
def test_values_of_routed_experts_are_those_of_their_linears(monkeypatch, implementation):
    model = tiny_clamped("gpt_oss", implementation)
    experts, rows = parts_of(model, "routed")[2], []
    apply = type(experts)._apply_gate

    def record(self, gate_up):
        rows.append(gate_up) if self is experts else None
        return apply(self, gate_up)

    with monkeypatch.context() as patch:
        patch.setattr(type(experts), "_apply_gate", record)
        model(words()("w5 w6 w7 w8 w9", return_tensors="pt").input_ids)
    values = torch.cat(rows)
    gate, up = values[:, ::2], values[:, 1::2]
    part = checked(model).parts[2]
    # The linears are computed again, one expert after the other, which may round otherwise.
    assert part.largest["linear gate"] == pytest.approx(gate.abs().max().item(), rel=1e-5)
    assert part.largest["up"] == pytest.approx(up.abs().max().item(), rel=1e-5)
    assert part.largest["product"] == pytest.approx(apply(experts, values).abs().max().item(), rel=1e-5)
    shares = {"gate": (gate > LIMIT).double().mean().item(), "up": (up.abs() > LIMIT).double().mean().item()}
    assert part.shares == pytest.approx(shares)


# --- what is refused, and what comes back ---------------------------------------------------------------------------


@needs_models
def test_a_model_with_arm_attached_is_refused():
    model = tiny_clamped("gpt_oss")
    with attach(model, "inward"), pytest.raises(AlreadyAttachedError, match="conform"):
        checked(model)


def test_a_limit_that_is_not_known_is_an_error_with_its_name():
    model = tiny("llama")
    model.config.mlp_clamp = 3.0
    with pytest.raises(ArgumentError, match="mlp_clamp"):
        checked(model)


@needs_models
def test_hooks_and_weights_are_as_before_also_after_an_error():
    model = tiny_clamped("gpt_oss")
    experts = parts_of(model, "routed")[0]
    weight, ids = experts.gate_up_proj, prompt(5)
    expected = model(ids).logits
    experts.forward = lambda *_: (_ for _ in ()).throw(RuntimeError("no kernel"))
    with pytest.raises(RuntimeError, match="no kernel"):
        checked(model)
    del experts.forward
    assert experts.gate_up_proj is weight
    assert torch.equal(model(ids).logits, expected)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@needs_models
@pytest.mark.parametrize("calls", [1, 2])
def test_ctrl_c_keeps_what_the_model_ran_and_nothing_else(calls):
    model, runs = tiny_clamped("gpt_oss"), []

    def interrupt(*_):
        runs.append(None)
        if len(runs) == calls:
            raise KeyboardInterrupt

    model.model.embed_tokens.register_forward_hook(interrupt)
    if calls == 1:
        with pytest.raises(KeyboardInterrupt):
            checked(model)
    else:
        result = checked(model)
        assert (result.interrupted, result.conforms) == (True, True)
        assert all(part.largest["linear gate"] > 0 for part in result.parts)
    assert not any(module._forward_pre_hooks for module in model.modules())


@needs_models
def test_the_result_is_complete_as_json_table_and_figure(tmp_path):
    model = tiny_clamped("step3p7")
    set_limit(parts_of(model, "shared")[1], inf)
    result = checked(model)
    content = result.to_dict()
    assert (content["conforms"], content["engine"]) == (False, "transformers")
    (part,) = [part for part in content["layers"] if part["applied"] == "NO"]
    assert (part["layer"], part["part"], part["limit"]) == (1, "shared", 0.25)
    assert part["sites"]["gate"]["missing"] == (0,)
    assert "NO: gate and up" in repr(result)
    assert {path.name for path in result.save(tmp_path)} == {"conform.png", "conform.svg", "conform.json"}
