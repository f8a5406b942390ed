"""ARM in the place of down: whatever kind of module down is, its names, weights and hooks stay its own."""

import copy
import pickle

import pytest
import torch
from torch import nn

from armlet import Inward, Noise, Outward, Transport, attach, redistribute
from armlet.attachment.call_tracker import NotFiredError
from armlet.attachment.handle import AlreadyAttachedError
from attached import anatomy, each_site, redistributed_by_hook
from families import FAMILIES, prompt, tiny


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def mlp_of(model, layer=0):
    return model.get_decoder().layers[layer].mlp


def hooked(model, policy, noise):
    """Logits of `prompt(9)` where a hook redistributes the input of layer 0's down."""
    with redistributed_by_hook(model, policy, noise, "product"):
        return model(prompt(9)).logits


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
    """A linear without parameters, whose state dict contains what is neither parameter nor buffer."""

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


def test_an_mlp_as_wide_as_the_model_has_its_down_by_name():
    model = tiny(intermediate_size=32)
    expected = hooked(model, Outward(), Noise(0))
    with attach(model, Outward(), site="product"):
        assert torch.equal(model(prompt(9)).logits, expected)


@pytest.mark.parametrize(("site", "linear"), [("up", "up_proj"), ("product", "down_proj")])
def test_a_second_arm_is_refused_while_an_adapter_put_around_the_first_waits_for_its_first_call(site, linear):
    model = tiny()
    with attach(model, Outward(), site=site):
        setattr(mlp_of(model), linear, Adapted(getattr(mlp_of(model), linear)))
        with pytest.raises(AlreadyAttachedError, match=f"layer 0 already has ARM at the site {site}"):
            attach(model, Outward(), site=site)
        treated = model(prompt(9)).logits
    assert not torch.equal(model(prompt(9)).logits, treated)


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


def test_a_layer_that_does_not_call_down_is_an_error():
    model = tiny()
    mlp = mlp_of(model)

    def fused(x):
        return nn.functional.linear(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x), mlp.down_proj.weight)

    mlp.forward = fused
    baseline = model(prompt(4)).logits
    attachment = attach(model, Outward(), site="product")
    with pytest.raises(NotFiredError, match=r"did not run in layers \[0\]"):
        model(prompt(4))
    attachment.detach()
    assert torch.equal(model(prompt(4)).logits, baseline)


# --- names, and off is exact ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [*FAMILIES, Adapted, Quantised], ids=str)
def test_weights_keep_their_names_and_their_order_while_attached(make):
    model = tiny(make) if isinstance(make, str) else wrapped(make)

    def names():
        return [
            [(name, id(weight)) for name, weight in model.named_parameters(remove_duplicate=once)]
            for once in (True, False)
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
        applied = []
        model.apply(applied.append)
        assert down in applied
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


@pytest.mark.parametrize("detach_first", [False, True], ids=["called", "not called"])
def test_an_adapter_that_comes_while_attached_is_treated_as_one_that_was_there(detach_first):
    model, expected = tiny(), wrapped(Adapted)
    attachment = attach(model, Outward(), site="product")
    assert isinstance(mlp_of(model).down_proj, nn.Linear)  # by which PEFT chooses the adapter
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mlp_of(model).down_proj = adapted = Adapted(mlp_of(model).down_proj)
    adapted.load_state_dict(mlp_of(expected).down_proj.state_dict())
    if not detach_first:
        with attach(expected, Outward(), site="product"):
            assert torch.equal(model(prompt(9)).logits, expected(prompt(9)).logits)
    attachment.detach()
    assert mlp_of(model).down_proj is adapted
    assert type(adapted.base_layer) is nn.Linear
    assert torch.equal(model(prompt(9)).logits, expected(prompt(9)).logits)


@pytest.mark.slow
@each_site
def test_offloading_that_comes_while_attached_is_kept(site, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    model = tiny()
    baseline = model(prompt(9)).logits
    attachment = attach(model, Outward(), layers="all", site=site)
    treated = model(prompt(9)).logits
    places = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
    places |= {"model.layers.0": "disk", "model.layers.1": "cpu", "model.layers.2": "disk"}
    accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=tmp_path)
    assert torch.equal(model(prompt(9)).logits, treated)
    with attachment.paused():
        assert torch.equal(model(prompt(9)).logits, baseline)
    assert torch.equal(model(prompt(9)).logits, treated)
    attachment.detach()
    assert mlp_of(model).down_proj.weight.is_meta
    assert torch.equal(model(prompt(9)).logits, baseline)
    accelerate.hooks.remove_hook_from_submodules(model)
    assert torch.equal(mlp_of(model).down_proj.weight, mlp_of(tiny()).down_proj.weight)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copied", "pickled"]
)
@pytest.mark.parametrize(("site", "linear"), [("up", "up_proj"), ("product", "down_proj")])
def test_a_copy_shares_its_weight_with_its_own_linear_alone(duplicate, site, linear):
    model = tiny()
    with attach(model, Outward(), site=site):
        place = getattr(mlp_of(duplicate(model)), linear)
        assert place.weight is place.linear.weight
        assert place.weight is not getattr(mlp_of(model), linear).weight


# --- compilation and training ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
def test_a_compiled_model_with_an_adapter_follows_attach_pause_and_detach():
    model, ids = wrapped(Adapted), prompt(6, batch=2)
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


def test_gradients_reach_down_by_its_own_name():
    model, ids = tiny().train(), prompt(8, batch=2)
    with torch.enable_grad(), attach(model, Transport(), layers="all", site="product"):
        model(ids, labels=ids).loss.backward()
        gradient = dict(model.named_parameters())["model.layers.1.mlp.down_proj.weight"].grad
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
