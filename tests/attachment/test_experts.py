"""ARM in mixtures of experts: a row for each token in each expert, the same in every implementation of transformers."""

import copy
import pickle
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from armlet import Inward, Noise, Outward, Transport, attach, load_config, redistribute
from armlet.attachment import mixtures
from armlet.attachment.attached import detach
from armlet.attachment.call_tracker import NotFiredError
from armlet.attachment.config import ConfigError, parse_config
from armlet.attachment.expert_rows import ROW_ORDERS
from armlet.attachment.sites import SITES, UnsupportedModelError, mixture_block
from armlet.errors import AlreadyAttachedError
from armlet.redistribution.errors import ArgumentError, ArmletError
from attached import anatomy, each_policy, other_site, padded
from families import FAMILIES, ROUTED_FAMILIES, prompt, tiny

IMPLEMENTATIONS = tuple(ROW_ORDERS)
each_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
FAST = ("mixtral", "gpt_oss")
each_family = pytest.mark.parametrize(
    "family", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in ROUTED_FAMILIES]
)
mixtral_fast = pytest.mark.parametrize(
    "family", [name if name == "mixtral" else pytest.param(name, marks=pytest.mark.slow) for name in ROUTED_FAMILIES]
)
UNDECORATED = ("llama4", "longcat")  # one implementation, whose name is ignored
OWN_GATE = ("gpt_oss", "minimax_m3")  # eager uses `_apply_gate`
TRANSPOSED = ("gpt_oss", "aria")
FEW = Outward(band=0.5)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def mixture(family="mixtral", implementation="grouped_mm", **changes):
    model = tiny(family, families=ROUTED_FAMILIES, **changes)
    if family not in UNDECORATED:
        if not model._can_set_experts_implementation():
            pytest.skip("this version of transformers has one implementation for it")
        model.set_experts_implementation(implementation)
    return model


def experts_of(model, layer):
    return mixture_block(model.model.layers[layer]).experts


# --- the oracle: token by token, expert by expert -------------------------------------------------------------------


def factors(family, experts, x, expert, move_up=lambda up: up):
    """The activated gate and what it is multiplied with, of a token `[d_model]` in an expert."""
    weight = experts.gate_up_proj[expert]
    gate_up = (weight.T if family in TRANSPOSED else weight) @ x
    if family == "gpt_oss":
        gate_up = gate_up + experts.gate_up_proj_bias[expert]
        gate, up = gate_up[::2].clamp(max=experts.limit), move_up(gate_up[1::2]).clamp(-experts.limit, experts.limit)
        return gate * torch.sigmoid(experts.alpha * gate), up + 1
    gate, up = gate_up.chunk(2)
    up = move_up(up)
    if family == "minimax_m3":
        limit = experts.swiglu_limit
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        return gate * torch.sigmoid(experts.swiglu_alpha * gate), up + 1
    return (F.gelu(gate, approximate="tanh") if family == "gemma4" else F.silu(gate)), up


def uniforms(noise, layer, expert, experts, width, position):
    base, step, stride = (row.tolist() for row in noise.keys(experts * width, layer))
    channels = range(expert * width, (expert + 1) * width)
    words = [(base[c] + position * step[c] + noise.stream * stride[c]) % 2**32 for c in channels]
    return torch.tensor([(word >> 8) / 2**24 for word in words])


def expected_output(family, experts, hidden, routing, weights, *, move, move_up=lambda up, **_where: up):
    """The experts' output, with `move(activated, up, token, expert)` as the product, of redistributed `up`."""
    output = torch.zeros_like(hidden)
    count = experts.down_proj.shape[0]
    for token, x in enumerate(hidden):
        for expert, weight in zip(routing[token].tolist(), weights[token], strict=True):
            if expert >= count:  # an expert that returns its input
                output[token] += weight * x
                continue
            activated, other = factors(family, experts, x, expert, partial(move_up, token=token, expert=expert))
            product = move(activated, other, token, expert)
            down = experts.down_proj[expert]
            out = (down.T if family in TRANSPOSED else down) @ product
            if family == "gpt_oss":
                out = out + experts.down_proj_bias[expert]
            output[token] += weight * out
    return output


@contextmanager
def computed_slowly(model, family, policy, noise, *, site="gate", layers=(0, 1), positions=None):
    """The routed experts of some layers are replaced by the oracle."""
    handles = []

    def replace(layer, experts):
        width = experts.down_proj.numel() // len(experts.down_proj) // model.config.hidden_size

        def moved(values, token, expert):
            position = token % LENGTH if positions is None else positions[token]
            u = uniforms(noise, layer, expert, len(experts.down_proj), width, position)
            return redistribute(values, policy, noise=u)

        def move(activated, other, token, expert):
            gate = moved(activated, token, expert) if site == "gate" else activated
            return moved(gate * other, token, expert) if site == "product" else gate * other

        def hook(_module, args, kwargs, _output):
            if family == "llama4":
                return llama4(experts, args[0], move)
            ups = {"move_up": moved} if site == "up" else {}
            return expected_output(family, experts, *args, *kwargs.values(), move=move, **ups)

        handles.append(experts.register_forward_hook(hook, with_kwargs=True))

    for layer in layers:
        replace(layer, experts_of(model, layer))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def llama4(experts, hidden, move):
    """All experts on all tokens, those that are not routed there as zeros."""
    count = len(experts.gate_up_proj)
    output = torch.zeros_like(hidden)
    for row, x in enumerate(hidden):
        expert, token = divmod(row, len(hidden) // count)
        if x.any():
            gate, up = (x @ experts.gate_up_proj[expert]).chunk(2)
            output[row] = move(F.silu(gate), up, token, expert) @ experts.down_proj[expert]
    return output


LENGTH = 5


@each_family
@each_implementation
def test_the_policy_sees_each_expert_s_activated_gate_of_each_token(family, implementation):
    model, ids, noise = mixture(family, implementation), prompt(LENGTH, batch=2), Noise(3, 7)
    baseline = model(ids).logits
    with computed_slowly(model, family, Outward(strength=0), noise):
        rounding = (model(ids).logits - baseline).abs().max()
    with computed_slowly(model, family, FEW, noise):
        expected = model(ids).logits
    with attach(model, FEW, layers=[0, 1], noise=noise, experts="routed"):
        treated = model(ids).logits
    # The oracle multiplies vectors, the model matrices: the order of their sums differs, here and in the baseline.
    assert (treated - expected).abs().max() <= 4 * rounding.clamp(min=2e-6)
    assert not torch.allclose(treated, baseline, atol=1e-3)
    assert torch.equal(model(ids).logits, baseline)


@each_family
@each_implementation
@pytest.mark.parametrize("site", ["up", "product"])
def test_up_and_product_of_each_expert_are_treated_where_they_can_be_reached(family, implementation, site):
    model, ids, noise = mixture(family, implementation), prompt(LENGTH, batch=2), Noise(3)
    if family in UNDECORATED or (implementation == "eager" and family not in OWN_GATE):
        with pytest.raises(UnsupportedModelError, match=f"a row of the {site} belongs to"):
            attach(model, FEW, site=site, experts="routed")
        return
    baseline = model(ids).logits
    with computed_slowly(model, family, FEW, noise, site=site):
        expected = model(ids).logits
    assert not torch.allclose(expected, baseline, atol=1e-3)
    with attach(model, FEW, layers=[0, 1], noise=noise, experts="routed", site=site):
        assert torch.allclose(model(ids).logits, expected, atol=2e-5)
    assert torch.equal(model(ids).logits, baseline)


# --- the same in every implementation, alone, padded and decoded ----------------------------------------------------


def each_way(model, ids, attached):
    """Logits in each implementation, `[implementations, ...]`."""
    results = []
    for implementation in IMPLEMENTATIONS:
        model.set_experts_implementation(implementation)
        with attached():
            results.append(model(ids).logits.float())
    return torch.stack(results)


def spread(logits):
    return (logits - logits[0]).abs().max()


@pytest.mark.parametrize(
    "family",
    ["mixtral", *(pytest.param(name, marks=pytest.mark.slow) for name in ROUTED_FAMILIES if name != "mixtral")],
)
@each_policy
def test_the_implementations_agree_as_they_do_without_arm(family, policy):
    if family in UNDECORATED:
        pytest.skip("has one implementation")
    model, ids = mixture(family), prompt(9, batch=2)
    untreated = spread(each_way(model, ids, nullcontext))
    # Of 3,072 shared gates (MiniMax), rounding changes the sign of one near 0, and Transport then moves all of them.
    experts = "routed" if (family, policy.name) == ("minimax_m3", "transport") else "all"
    treated = spread(each_way(model, ids, lambda: attach(model, policy, layers="all", experts=experts)))
    assert treated <= 4 * untreated.clamp(min=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "gpt_oss", "gemma4"])
def test_the_implementations_agree_in_bfloat16_as_they_do_without_arm(family):
    # One layer: a router after a treated layer may choose other experts for a difference of one rounding.
    model, ids = mixture(family, num_hidden_layers=1).bfloat16(), prompt(9, batch=2)
    untreated = spread(each_way(model, ids, nullcontext))
    # A policy without jumps: with one, a value at the threshold may move in one implementation alone.
    treated = spread(each_way(model, ids, lambda: attach(model, Inward(knee=0.5), layers="all")))
    assert treated <= 4 * untreated


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "family",
    ["mixtral", *(pytest.param(name, marks=pytest.mark.slow) for name in ROUTED_FAMILIES if name != "mixtral")],
)
def test_a_padded_prompt_gets_the_draws_that_it_gets_alone(family, side):
    model = mixture(family)
    ids, mask = padded(side)
    valid = mask[0].bool()
    inputs = {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    with attach(model, FEW, layers="all") as attachment:
        alone = model(ids[:1, valid]).logits
        attachment.reset()
        together = model(ids, **inputs).logits[:1, valid]
        tokens = attachment.report()[0]["tokens"]
        attachment.reset()
        model(ids[1:])
        model(ids[:1, valid])
        assert tokens == attachment.report()[0]["tokens"]
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    "family",
    ["mixtral", *(pytest.param(name, marks=pytest.mark.slow) for name in ROUTED_FAMILIES if name != "mixtral")],
)
@each_implementation
def test_a_token_gets_the_same_draws_decoded_and_prefilled(family, implementation):
    model, ids = mixture(family, implementation), prompt(5)
    with attach(model, FEW, layers="all"):
        options = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
        generated = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        whole = model(generated.sequences).logits[:, 4:-1]
    assert torch.allclose(torch.stack(generated.logits, 1), whole, atol=2e-5)


# --- what is attached, and what is left -----------------------------------------------------------------------------


@each_family
@pytest.mark.parametrize("site", SITES)
def test_off_is_exact_and_nothing_is_left(family, site):
    if site != "gate" and family in UNDECORATED:
        pytest.skip("its up and product cannot be reached")
    model, ids = mixture(family), prompt(LENGTH)
    before, baseline = anatomy(model), model(ids).logits
    with attach(model, FEW, layers=[0, 1], site=site) as attachment:
        treated = model(ids).logits
        assert list(model.state_dict()) == before[1]
        with attachment.paused():
            assert anatomy(model) == before
            assert torch.equal(model(ids).logits, baseline)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(ids).logits, treated)
            detach(twin)
            assert torch.equal(twin(ids).logits, baseline)
            assert anatomy(twin) == before
        assert torch.equal(model(ids).logits, treated)
    assert torch.equal(model(ids).logits, baseline)
    assert anatomy(model) == before
    assert "_apply_gate" not in vars(experts_of(model, 0))


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", pytest.param("lfm2_moe", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("first", "second"), [*permutations(SITES, 2)])
def test_two_sites_of_experts_are_independent(family, first, second):
    model, ids = mixture(family), prompt(LENGTH)
    before = anatomy(model)
    with attach(model, FEW, site=second):
        second_alone = model(ids).logits
    outer = attach(model, FEW, site=first)
    with attach(model, FEW, site=second):
        both = model(ids).logits
        outer.detach()
        assert torch.equal(model(ids).logits, second_alone)
    assert not torch.equal(both, second_alone)
    assert anatomy(model) == before


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
@pytest.mark.parametrize("site", SITES)
def test_a_site_of_experts_has_one_arm(family, site):
    model = mixture(family)
    with attach(model, FEW, site=site), attach(model, FEW, site=other_site(site)):
        before = anatomy(model)
        with pytest.raises(AlreadyAttachedError, match=f"layer 0 already has ARM at the site {site}"):
            attach(model, FEW, site=site)
        assert anatomy(model) == before
    assert "_apply_gate" not in vars(experts_of(model, 0))


def test_a_model_moved_to_another_dtype_takes_the_arm_of_its_experts_along():
    for family in FAST:
        model, ids = mixture(family), prompt(LENGTH)
        with attach(model, FEW) as attachment:
            model.bfloat16()(ids)
            assert attachment.report()[0]["tokens"] == 2 * LENGTH


@each_implementation
def test_the_report_counts_a_token_once_in_each_expert_that_it_goes_through(implementation):
    model, ids = mixture("qwen2_moe", implementation), prompt(9)
    width, shared_width = 16, 24
    reports = {}
    for experts in ("routed", "shared", "all"):
        with attach(model, Inward(knee=0.5), experts=experts) as attachment:
            assert attachment.experts == experts
            model(ids)
            reports[experts] = attachment.report()[0]
    routed, shared, both = reports["routed"], reports["shared"], reports["all"]
    assert (routed["calls"], routed["tokens"]) == (1, 18)
    assert (shared["calls"], shared["tokens"]) == (1, 9)
    assert (both["calls"], both["tokens"]) == (1, 27)
    assert both["moved"] == routed["moved"] + shared["moved"]
    assert both["share_moved"] == both["moved"] / (18 * width + 9 * shared_width)


@pytest.mark.slow
def test_experts_beside_a_dense_mlp_are_all_treated():
    model, ids = mixture("gemma4"), prompt(9)
    results, tokens = {}, {}
    for experts in ("routed", "shared", "all"):
        with attach(model, FEW, experts=experts) as attachment:
            results[experts] = model(ids).logits
            tokens[experts] = attachment.report()[0]["tokens"]
    assert tokens == {"routed": 18, "shared": 9, "all": 27}
    with attach(model, FEW, experts="routed"), attach(model, FEW, experts="shared"):
        assert torch.equal(model(ids).logits, results["all"])


def test_a_forward_call_counts_once_however_often_the_activation_runs():
    model = mixture(implementation="eager")
    with attach(model, FEW) as attachment:
        for _ in range(3):
            model(prompt(9))
        assert attachment.report()[0]["calls"] == 3


@dataclass(frozen=True)
class ClampAbove:
    """Step-3.7's clamp, by hand: all values above a limit become the limit."""

    limit: float
    strength: float = 1.0
    name: ClassVar[str] = "clamp"

    def move(self, rows, _draw):
        return rows.values.clamp(max=self.limit), rows.values > self.limit


@each_implementation
def test_clamping_the_activated_gate_is_gpt_oss_s_own_formula_with_another_limit(implementation):
    model, ids, limit = mixture("gpt_oss", implementation), prompt(9, batch=2), 0.5
    experts = experts_of(model, 0)
    experts.gate_up_proj[..., 1::2] *= 0.01  # up is never clamped, so that the limit is that of the gate alone
    experts.gate_up_proj[..., ::2] *= 10
    baseline, own_limit = model(ids).logits, experts.limit
    experts.limit = limit
    expected = model(ids).logits
    experts.limit = own_limit
    with attach(model, ClampAbove(limit * torch.sigmoid(torch.tensor(limit * experts.alpha)).item())) as attachment:
        clamped = model(ids).logits
        assert attachment.report()[0]["moved"] > 20
    assert torch.allclose(clamped, expected, atol=1e-6)
    assert (clamped - baseline).abs().max() > 1e-3


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["sequence", "call"])
def test_a_scope_of_several_rows_is_refused_for_routed_experts(scope):
    for experts in ("all", "routed"):
        with pytest.raises(ArgumentError, match=f"scope 'token'; found '{scope}'"):
            attach(mixture("qwen2_moe"), FEW, scope=scope, experts=experts)
    attach(mixture("qwen2_moe"), FEW, scope=scope, experts="shared").detach()


def test_a_tensor_of_uniforms_is_refused_for_routed_experts():
    with pytest.raises(ArgumentError, match="no tensor of uniforms fits"):
        attach(mixture(), FEW, noise=torch.rand(1, 9, 48))


@pytest.mark.parametrize(
    ("family", "experts", "message"),
    [
        ("llama", "routed", "layer 0: has no experts"),
        ("llama", "shared", "layer 0: has no experts"),
        ("deepseek_v3", "routed", "layer 0: has no experts"),
        ("mixtral", "shared", "layer 0: has no shared experts"),
    ],
)
def test_experts_that_a_layer_does_not_have_are_refused(family, experts, message):
    with pytest.raises(UnsupportedModelError, match=message):
        attach(tiny(family, families=FAMILIES | ROUTED_FAMILIES), FEW, experts=experts)


@pytest.mark.parametrize("experts", ["none", "", None, 1, ["all"]])
def test_unknown_experts_are_refused_in_one_line(experts):
    with pytest.raises(ArgumentError, match=r"^experts: expected all, routed or shared, found ") as caught:
        attach(tiny(), FEW, experts=experts)
    assert "\n" not in str(caught.value)


def test_experts_in_a_list_of_modules_are_refused():
    model = mixture()
    model.model.layers[1].mlp.experts = nn.ModuleList(copy.deepcopy(tiny().model.layers[0].mlp) for _ in range(4))
    attach(model, FEW).detach()
    for experts in ("all", "routed", "shared"):
        with pytest.raises(UnsupportedModelError, match="MixtralForCausalLM, layer 1"):
            attach(model, FEW, layers=1, experts=experts)


def test_a_layer_with_an_mlp_that_cannot_be_recognised_is_refused_whole():
    model = mixture("qwen2_moe")
    model.model.layers[0].mlp.shared_expert.act_fn = None
    for experts in ("all", "shared"):
        with pytest.raises(UnsupportedModelError, match=r"Qwen2MoeMLP .* runs beside the experts"):
            attach(model, FEW, experts=experts)
    attach(model, FEW, experts="routed").detach()


def test_experts_whose_rows_come_in_another_order_are_refused(monkeypatch):
    model = mixture()
    experts = type(experts_of(model, 0))
    forward = experts.forward

    def backwards(self, hidden, routing, weights):
        return forward(self, hidden.flip(0), routing.flip(0), weights.flip(0)).flip(0)

    monkeypatch.setattr(experts, "forward", backwards)
    with pytest.raises(UnsupportedModelError, match="MixtralExperts"):
        attach(model, FEW)


def test_experts_spread_over_devices_are_refused():
    model = mixture()
    experts_of(model, 0)._is_expert_parallel = True
    with pytest.raises(UnsupportedModelError, match="its experts spread over devices"):
        attach(model, FEW)


def test_an_implementation_that_cannot_be_reached_is_refused_when_it_is_chosen_later():
    model = mixture()
    with attach(model, FEW, site="product"):
        model.set_experts_implementation("eager")
        with pytest.raises(UnsupportedModelError, match="'grouped_mm' or 'batched_mm'"):
            model(prompt(3))
        model.set_experts_implementation("batched_mm")
        model(prompt(3))


def test_a_pass_that_leaves_rows_out_is_an_error(monkeypatch):
    model = mixture(implementation="eager")
    monkeypatch.setattr(mixtures, "reached", lambda *_: frozenset(IMPLEMENTATIONS))  # eager ignores the method
    with attach(model, FEW, site="product"), pytest.raises(NotFiredError, match="computed 18 rows, but ARM treated 0"):
        model(prompt(9))


def test_experts_that_get_a_part_of_the_tokens_are_an_error(monkeypatch):
    model = mixture()
    block = type(model.model.layers[0].mlp)
    forward = block.forward
    monkeypatch.setattr(block, "forward", lambda self, x: torch.cat([forward(self, part) for part in x.split(2, 1)], 1))
    with attach(model, FEW), pytest.raises(ArmletError, match="got 2 tokens of the decoder's 4"):
        model(prompt(4))


def test_experts_that_run_outside_the_decoder_are_an_error():
    model = mixture()
    with attach(model, FEW), pytest.raises(ArmletError, match="outside the decoder's forward"):
        model.model.layers[0].mlp(torch.randn(1, 3, 32))


# --- armlet.json ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experts", ["all", "routed", "shared"])
def test_which_experts_is_kept_in_the_file(tmp_path, experts):
    model, ids = mixture("qwen2_moe"), prompt(LENGTH)
    with attach(model, FEW, experts=experts) as attachment:
        treated = model(ids).logits
        attachment.save(tmp_path)
    arguments = load_config(tmp_path)
    assert arguments.get("experts", "all") == experts
    assert ("experts" in arguments) == (experts != "all")
    with attach(model, **arguments):
        assert torch.equal(model(ids).logits, treated)


def test_unknown_experts_in_a_file_are_refused():
    with pytest.raises((ArgumentError, ConfigError), match="experts: expected all, routed or shared, found 'some'"):
        parse_config({"policy": "outward", "experts": "some"})


# --- compiled -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize(
    ("family", "implementation", "backend"),
    [("mixtral", "grouped_mm", "inductor"), ("gpt_oss", "batched_mm", "aot_eager"), ("llama4", "", "aot_eager")],
)
def test_a_compiled_mixture_is_treated_without_a_break_in_its_graph(family, implementation, backend):
    model, ids = mixture(family, implementation, num_hidden_layers=1), prompt(9, batch=2)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    baseline = compiled(ids).logits
    with attach(model, Transport()) as attachment:
        treated = model(ids).logits
        report = attachment.report()
        attachment.reset()
        assert torch.allclose(compiled(ids).logits, treated, atol=1e-4)
        assert attachment.report()[0]["tokens"] == report[0]["tokens"]
    assert not torch.allclose(baseline, treated, atol=1e-3)
    assert torch.equal(compiled(ids).logits, baseline)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", ["gpt_oss", "mixtral"])
def test_a_model_in_eval_mode_stays_in_eval_mode(family, site):
    model = tiny(family)
    implementation = "eager" if site == "gate" else "grouped_mm"
    model.set_experts_implementation(implementation)
    with attach(model, Outward(), layers=1, site=site):
        assert not any(module.training for module in model.modules())


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_shared_experts_of_which_there_are_none_are_left_out():
    model = tiny("glm4_moe", n_shared_experts=0)
    with attach(model, Outward(), layers=1) as attachment:
        model(prompt(5))
        assert attachment.report()[1]["tokens"] == 5 * model.config.num_experts_per_tok
    with pytest.raises(UnsupportedModelError, match="layer 1: has no shared experts"):
        attach(model, Outward(), layers=1, experts="shared")
