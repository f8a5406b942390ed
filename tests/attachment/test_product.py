"""ARM at the site "product": it acts on down's input alone, down keeps its names, and all guarantees are the gate's."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

from armlet import Inward, Noise, Outward, Transport, attach, load_config, redistribute
from armlet.attachment.attach import AlreadyAttachedError
from armlet.attachment.positions import NotFiredError
from armlet.evaluation.conditions.placebos import placebo
from attached import POLICIES, anatomy, each_cache, each_policy, padded, seen
from families import FAMILIES, go_on, prompt, tiny


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def mlp_of(model, layer=0):
    return model.get_decoder().layers[layer].mlp


def hooked(model, policy, noise):
    """Logits of `prompt(9)` where a hook redistributes the input of layer 0's down."""
    down = mlp_of(model).down_proj
    handle = down.register_forward_pre_hook(lambda _module, args: redistribute(args[0], policy, noise=noise))
    try:
        return model(prompt(9)).logits
    finally:
        handle.remove()


class Adapted(nn.Module):
    """A linear with an adapter, as PEFT wraps one: other names, children with weights, and a switch of its own."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer, self.enabled = base_layer, True
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.lora = nn.ModuleDict({"default": nn.Linear(base_layer.in_features, base_layer.out_features)})

    def forward(self, x):
        return self.base_layer(x) + (self.lora["default"](x) if self.enabled else 0)


class Quantised(nn.Module):
    """A linear without parameters, whose state dict holds what is neither parameter nor buffer."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.scale = float(linear.weight.abs().max() / 127)
        self.register_buffer("packed", (linear.weight / self.scale).round().to(torch.int8))

    def forward(self, x):
        return nn.functional.linear(x, self.packed * self.scale)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}scale"] = torch.tensor(self.scale)

    def _load_from_state_dict(self, state_dict, prefix, *others):
        self.scale = float(state_dict.pop(f"{prefix}scale"))
        super()._load_from_state_dict(state_dict, prefix, *others)


def wrapped(kind, **options):
    """A tiny model whose layer 0 has such a down."""
    model = tiny(**options)
    torch.manual_seed(0)
    mlp_of(model).down_proj = kind(mlp_of(model).down_proj)
    return model.eval()


# --- where it acts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@each_policy
def test_arm_acts_on_the_input_of_down_of_its_layer_alone(family, policy):
    model = tiny(family)
    baseline, expected = model(prompt(9)).logits, hooked(model, policy, Noise(4))
    with attach(model, policy, noise=Noise(4), site="product") as attachment:
        assert torch.equal(model(prompt(9)).logits, expected)
        report = attachment.report()[0]
    assert not torch.equal(expected, baseline)
    assert (report["calls"], report["tokens"]) == (1, 9)
    assert report["moved"] > 0


def test_an_mlp_as_wide_as_the_model_has_its_down_by_name():
    model = tiny(intermediate_size=32)
    expected = hooked(model, Outward(), Noise(0))
    with attach(model, Outward(), site="product"):
        assert torch.equal(model(prompt(9)).logits, expected)


@pytest.mark.parametrize("kind", [Adapted, Quantised])
def test_a_down_that_is_no_plain_linear_is_treated_as_it_is(kind):
    model = wrapped(kind)
    before, baseline = anatomy(model), model(prompt(9)).logits
    expected = hooked(model, Inward(knee=0.9), Noise(0))
    with attach(model, Inward(knee=0.9), site="product"):
        assert torch.equal(model(prompt(9)).logits, expected)
        assert list(model.state_dict()) == before[1]
    assert torch.equal(model(prompt(9)).logits, baseline)
    assert anatomy(model) == before


def test_gate_and_product_of_one_layer_are_two_sites():
    model = tiny()
    alone = {}
    for site in ("gate", "product"):
        with attach(model, Outward(), site=site):
            alone[site] = model(prompt(9)).logits
    baseline = model(prompt(9)).logits
    for first, second in (("gate", "product"), ("product", "gate")):
        before = anatomy(model)
        one = attach(model, Outward(), site=first)
        other = attach(model, Outward(), site=second)
        both = model(prompt(9)).logits
        assert not any(torch.equal(both, single) for single in alone.values())
        assert one.report()[0]["calls"] == other.report()[0]["calls"] == 1
        with one.paused():
            assert torch.equal(model(prompt(9)).logits, alone[second])
        assert torch.equal(model(prompt(9)).logits, both)
        one.detach()
        assert torch.equal(model(prompt(9)).logits, alone[second])
        other.detach()
        assert torch.equal(model(prompt(9)).logits, baseline)
        assert anatomy(model) == before


def test_a_hook_on_down_from_before_attach_sees_what_arm_leaves_and_a_later_one_what_it_gets():
    model, policy, noise = tiny(), Outward(), Noise(seed=3)
    heard = {}

    def listen(name):
        return lambda _module, args: heard.__setitem__(name, args[0])

    mlp_of(model).down_proj.register_forward_pre_hook(listen("before"))
    with attach(model, policy, noise=noise, site="product"):
        mlp_of(model).down_proj.register_forward_pre_hook(listen("later"))
        model(prompt(9))
    assert torch.equal(heard["before"], redistribute(heard["later"], policy, noise=noise))
    assert not torch.equal(heard["before"], heard["later"])


def test_the_same_site_twice_is_refused_and_attaches_nothing():
    model = tiny()
    with attach(model, Outward(), layers=1, site="product"), attach(model, Outward(), site="gate"):
        before = anatomy(model)
        with pytest.raises(AlreadyAttachedError, match="layer 1 has an ARM already at the site product"):
            attach(model, Inward(), layers="all", site="product")
        assert anatomy(model) == before


def test_a_layer_that_does_not_call_down_is_an_error():
    model = tiny()
    mlp = mlp_of(model)

    def fused(x):
        return nn.functional.linear(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x), mlp.down_proj.weight)

    mlp.forward = fused
    baseline = model(prompt(4)).logits
    attachment = attach(model, Outward(), site="product")
    with pytest.raises(NotFiredError, match="did not fire in layer 0"):
        model(prompt(4))
    attachment.detach()
    assert torch.equal(model(prompt(4)).logits, baseline)


def test_a_layer_that_runs_outside_its_decoder_counts_from_zero():
    mlp = mlp_of(model := tiny())
    x = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))
    expected = mlp.down_proj(redistribute(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x), Outward()))
    with attach(model, Outward(), site="product"):
        assert torch.equal(mlp(x), expected)


@pytest.mark.parametrize("name", ["identity", "draw-only"])
@each_policy
def test_placebos_that_change_nothing_give_the_baseline_bit_for_bit(policy, name):
    model = tiny()
    baseline = model(prompt(7, batch=2)).logits
    with attach(model, placebo(name, policy), layers="all", site="product"):
        assert torch.equal(model(prompt(7, batch=2)).logits, baseline)


@each_policy
def test_the_matched_placebo_moves_as_many_values_as_its_policy(policy):
    model, moved = tiny(), []
    for each in (policy, placebo("matched", policy)):
        with attach(model, each, site="product") as attachment:
            model(prompt(7, batch=2))
            moved.append(attachment.report()[0]["moved"])
    assert moved[0] == moved[1] > 0


# --- names, and off is exact ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_off_is_bit_equal_and_leaves_nothing(family):
    model, ids = tiny(family), prompt(9, batch=2)
    before, baseline, generator = anatomy(model), model(ids).logits, torch.get_rng_state()
    attachment = attach(model, Outward(), site="product")
    treated = model(ids).logits
    with attachment.paused():
        assert torch.equal(model(ids).logits, baseline)
        assert anatomy(model) == before
    assert torch.equal(model(ids).logits, treated)
    attachment.detach()
    assert torch.equal(model(ids).logits, baseline)
    assert anatomy(model) == before
    assert torch.equal(torch.get_rng_state(), generator)
    assert attachment.report()[0]["calls"] == 2


@pytest.mark.parametrize("make", [*FAMILIES, Adapted, Quantised], ids=str)
def test_weights_keep_their_names_and_their_order_while_attached(make):
    model = tiny(make) if isinstance(make, str) else wrapped(make)

    def names():
        return [
            [(name, id(each)) for name, each in model.named_parameters(remove_duplicate=once)] for once in (True, False)
        ] + [list(model.state_dict()), list(mlp_of(model).down_proj.named_parameters(recurse=False))]

    before = names()
    with attach(model, Outward(), site="product"):
        assert names() == before


def test_whoever_walks_the_modules_meets_down_itself():
    model = wrapped(Adapted)
    down = mlp_of(model).down_proj
    with attach(model, Inward(knee=0.5), site="product"):
        assert dict(model.named_modules())["model.layers.0.mlp.down_proj"] is down
        on = model(prompt(5)).logits
        for module in model.modules():  # as PEFT turns its adapters off
            if isinstance(module, Adapted):
                module.enabled = False
        assert not torch.equal(model(prompt(5)).logits, on)
        found = []
        model.apply(lambda module: found.append(module))
        assert down in found
        model.train()
        assert down.training
        assert all(module.training for module in down.modules())
        model.eval()
        assert not down.training


def test_attributes_of_down_are_those_of_its_place():
    model = tiny()
    with attach(model, Outward(), site="product"):
        place = mlp_of(model).down_proj
        assert (place.in_features, place.out_features, place.bias) == (48, 32, None)
        assert model.get_parameter("model.layers.0.mlp.down_proj.weight") is place.weight
        with pytest.raises(AttributeError, match="no_such_name"):
            _ = place.no_such_name
        assert "Linear(in_features=48, out_features=32, bias=False)" in str(place)


def test_what_happens_to_the_weights_while_attached_stays():
    model, other = tiny(), tiny(seed=1)
    attachment = attach(model, Outward(), site="product")
    assert str(model.load_state_dict(other.state_dict())) == "<All keys matched successfully>"
    assert torch.equal(mlp_of(model).down_proj.weight, mlp_of(other).down_proj.weight)
    model.double()
    assert model(prompt(5)).logits.dtype == torch.float64
    twice = nn.Parameter(2 * mlp_of(model).down_proj.weight)
    mlp_of(model, 0).down_proj.weight = twice
    attachment.detach()
    assert mlp_of(model).down_proj.weight is twice


@pytest.mark.parametrize("kind", [Adapted, Quantised])
def test_a_state_dict_that_was_saved_while_attached_is_loaded_while_attached(kind):
    model, other = wrapped(kind), wrapped(kind, seed=1)
    expected = other(prompt(5)).logits
    with attach(other, Outward(), site="product"):
        saved = other.state_dict()
    attachment = attach(model, Outward(), site="product")
    model.load_state_dict(saved)
    attachment.detach()
    assert torch.equal(model(prompt(5)).logits, expected)


def test_a_model_that_is_saved_while_attached_is_the_untouched_one(tmp_path):
    model = tiny()
    baseline = model(prompt(5)).logits
    with attach(model, Outward(), site="product"):
        model.save_pretrained(tmp_path)
    assert torch.equal(type(model).from_pretrained(tmp_path).eval()(prompt(5)).logits, baseline)


def test_an_adapter_that_comes_during_a_pause_is_kept():
    model = tiny()
    attachment = attach(model, Outward(), site="product")
    with attachment.paused():
        mlp_of(model).down_proj = adapted = Adapted(mlp_of(model).down_proj)
    expected = model(prompt(9)).logits
    attachment.detach()
    assert mlp_of(model).down_proj is adapted
    assert torch.equal(hooked(model, Outward(), Noise(0)), expected)


def test_copies_are_attached_and_count_for_themselves():
    model, ids = tiny(), prompt(5)
    with attach(model, Outward(), site="product") as attachment:
        expected = model(ids).logits
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(ids).logits, expected)
            assert mlp_of(twin).down_proj.weight is mlp_of(twin).down_proj.down.weight
            assert mlp_of(twin).down_proj.weight is not mlp_of(model).down_proj.weight
        assert attachment.report()[0]["calls"] == 1


def test_what_was_saved_attaches_again(tmp_path):
    model, ids = tiny(), prompt(6)
    with attach(model, Outward(band=0.5), layers=[0, 1], noise=Noise(3), site="product") as attachment:
        assert attachment.site == "product"
        expected = model(ids).logits
        attachment.save(tmp_path)
    arguments = load_config(tmp_path)
    assert set(arguments) <= set(inspect.signature(attach).parameters)
    with attach(model, **arguments):
        assert torch.equal(model(ids).logits, expected)


# --- positions and padding ------------------------------------------------------------------------------------------


@each_cache
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3", "phi3"])
def test_generate_counts_positions_from_the_first_real_token(family, options):
    model = tiny(family, sliding_window=16)
    ids, attention_mask = padded("left")
    with attach(model, Outward(), layers=[0, 2], site="product"), seen(model) as calls:
        model.generate(ids, attention_mask=attention_mask, max_new_tokens=3, do_sample=False, **options)
    last = [call for call in calls if call[0] == 2]
    _, positions, mask = last[0]
    assert (positions[0, 3:].tolist(), positions[1].tolist()) == ([0, 1, 2], [0, 1, 2, 3, 4, 5])
    assert torch.equal(mask, attention_mask.bool())
    assert [call[1].tolist() for call in last[1:]] == [[[3], [6]], [[4], [7]]]


@pytest.mark.parametrize(
    "options",
    [{"num_beams": 3}, {"do_sample": True, "num_return_sequences": 3}, {"prefill_chunk_size": 4}, {"use_cache": False}],
    ids=str,
)
def test_every_way_of_generating_gives_each_token_its_own_position(options):
    model = tiny()
    torch.manual_seed(0)
    with attach(model, Outward(), site="product"), seen(model) as calls:
        model.generate(prompt(6), max_new_tokens=4, **({"do_sample": False} | options))
    reached = [int(positions.max()) for _, positions, _ in calls]
    assert reached == sorted(reached)
    assert reached[-1] == 8
    for _, positions, _ in calls:
        last = int(positions.max())
        assert torch.equal(positions, torch.arange(last - positions.shape[1] + 1, last + 1).expand_as(positions))


@each_policy
def test_decoding_with_a_cache_is_prefilling(policy):
    model, ids = tiny(), prompt(12)
    with attach(model, policy, site="product"):
        whole = model(ids).logits
        out, parts = None, []
        for chunk in ids.split([5, 4, 1, 1, 1], dim=1):
            out = go_on(model, chunk, out)
            parts.append(out.logits)
    # Matrix products of other shapes round differently; noise of another position would cost 0.1 or so.
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@each_policy
def test_token_scope_ignores_padding_and_batch_mates(policy, side):
    model = tiny()
    ids, attention_mask = padded(side)
    with attach(model, policy, site="product") as attachment:
        together = model(ids, attention_mask=attention_mask).logits
        assert attachment.report()[0]["tokens"] == 9
        alone = [model(row[keep.bool()][None]).logits for row, keep in zip(ids, attention_mask, strict=True)]
    for row, keep, single in zip(together, attention_mask.bool(), alone, strict=True):
        torch.testing.assert_close(row[keep], single[0], rtol=1e-4, atol=1e-4)  # as above


def test_sequence_scope_keeps_prompts_of_a_batch_apart():
    model = tiny()
    ids, attention_mask = padded("left")
    with attach(model, Inward(knee=0.9), scope="sequence", site="product"):
        together = model(ids, attention_mask=attention_mask).logits[0, 3:]
        alone = model(ids[:1, 3:]).logits[0]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)  # as above


# --- compilation and training ---------------------------------------------------------------------------------------


@pytest.fixture
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("kind", [None, Adapted], ids=str)
def test_a_compiled_model_follows_attach_pause_and_detach(kind):
    model, ids = (wrapped(kind) if kind else tiny()), prompt(6, batch=2)
    compiled = torch.compile(model, fullgraph=True)

    def same(reference):
        torch.testing.assert_close(compiled(ids).logits, reference, rtol=1e-4, atol=1e-4)  # another order of sums

    baseline = model(ids).logits
    same(baseline)
    with attach(model, Outward(), layers=[0, 2], site="product") as attachment:
        treated = model(ids).logits
        assert (treated - baseline).abs().max() > 0.01
        same(treated)
        with attachment.paused():
            same(baseline)
        same(treated)
        assert attachment.report()[2]["calls"] == 3
    same(baseline)


@pytest.mark.usefixtures("_fresh_compiler")
def test_generation_with_a_static_cache_and_a_compiled_forward_gives_the_same_text():
    model = tiny()
    ids, attention_mask = padded("left")
    options = {"attention_mask": attention_mask, "max_new_tokens": 5, "do_sample": False}
    with attach(model, Outward(share=(0.2, 0.5)), layers="all", site="product"):
        expected = model.generate(ids, **options)
        model.forward = torch.compile(model.forward)
        assert torch.equal(model.generate(ids, cache_implementation="static", **options), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_half_and_double_precision_models_run(dtype):
    model = tiny().to(dtype)
    for policy in POLICIES:
        with attach(model, policy, site="product"):
            assert model(prompt(5)).logits.isfinite().all()


def test_gradients_reach_down_by_its_own_name():
    model, ids = tiny().train(), prompt(8, batch=2)
    with torch.enable_grad(), attach(model, Transport(), layers="all", site="product"):
        model(ids, labels=ids).loss.backward()
        found = dict(model.named_parameters())["model.layers.1.mlp.down_proj.weight"].grad
    assert found.isfinite().all()
    assert found.abs().max() > 0
