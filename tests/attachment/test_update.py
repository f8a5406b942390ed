"""A handle says what runs: after `update`, outputs, repr and file are those of a fresh attach with the new policy."""

import threading

import pytest
import torch

from armlet import ARM, Inward, Noise, Outward, Transport, attach, load_config
from armlet.attachment.handle import DetachedError
from armlet.attachment.module import ReadOnlyError
from armlet.evaluation.conditions.placebos import placebo
from armlet.redistribution.errors import ArgumentError
from attached import each_site, padded
from families import go_on, prompt, tiny

UPDATES = [
    (("inward:knee=0.7",), {}, Inward(knee=0.7)),
    ((Transport(spread=0.5),), {}, Transport(spread=0.5)),
    ((), {"band": 1.5, "strength": 0.5}, Outward(band=1.5, strength=0.5)),
    (("outward:band=0.5",), {"share": (0.1, 0.4)}, Outward(band=0.5, share=(0.1, 0.4))),
]
each_update = pytest.mark.parametrize(
    ("arguments", "settings", "policy"), UPDATES, ids=["text", "policy", "own", "both"]
)
SETUP = {"layers": [0, 2], "noise": Noise(4)}


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def outputs(model):
    """Logits of a padded batch, and of a prompt and three tokens that follow one by one."""
    ids, attention_mask = padded("left")
    logits = [model(ids, attention_mask=attention_mask).logits]
    out = None
    for chunk in prompt(8).split([5, 1, 1, 1], dim=1):
        out = go_on(model, chunk, out)
        logits.append(out.logits)
    return logits


def same(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@each_site
@each_update
def test_an_update_gives_what_a_fresh_attach_gives_bit_for_bit(arguments, settings, policy, site, tmp_path):
    model = tiny()
    with attach(model, policy, site=site, **SETUP) as fresh:
        expected, shown, counts = outputs(model), repr(fresh), fresh.report()
    with attach(model, Outward(), site=site, **SETUP) as arm:
        before = outputs(model)
        arm.update(*arguments, **settings)
        arm.reset()
        assert same(outputs(model), expected)
        assert not same(before, expected)
        assert (repr(arm), arm.policy, arm.report()) == (shown, policy, counts)
        assert str(model).count(repr(policy)) == 2
        assert load_config(arm.save(tmp_path))["policy"] == policy


def test_an_update_during_a_pause_acts_after_it():
    model = tiny()
    baseline = outputs(model)
    with attach(model, "inward:knee=0.5", **SETUP):
        expected = outputs(model)
    arm = attach(model, Outward(), **SETUP)
    with arm.paused():
        arm.update("inward", knee=0.5)
        assert same(outputs(model), baseline)
    assert same(outputs(model), expected)


def test_an_update_of_one_attachment_leaves_another_and_a_shared_activation_alone():
    model = tiny()
    shared = model.model.layers[0].mlp.act_fn
    for layer in model.model.layers:
        layer.mlp.act_fn = shared
    with attach(model, Inward(knee=0.5), layers=1), attach(model, Transport(), layers=0, noise=Noise(1)):
        expected = outputs(model)
    with (
        attach(model, Inward(knee=0.5), layers=1) as first,
        attach(model, Outward(), layers=0, noise=Noise(1)) as other,
    ):
        other.update(Transport())
        assert same(outputs(model), expected)
        assert (first.policy, other.policy) == (Inward(knee=0.5), Transport())
    assert all(layer.mlp.act_fn is shared for layer in model.model.layers)


def test_a_layer_outside_its_decoder_is_updated_too():
    model, x = tiny(), torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))
    with attach(model, Transport()):
        expected = model.model.layers[0].mlp(x)
    with attach(model, Outward()) as arm:
        arm.update(Transport())
        assert torch.equal(model.model.layers[0].mlp(x), expected)


def test_a_forward_that_runs_during_an_update_keeps_its_policy_in_all_layers():
    model, ids = tiny(), prompt(5)
    arm = attach(model, Outward(), layers="all")
    expected, logits, arrived, go = model(ids).logits, [], threading.Event(), threading.Event()

    def stop(*_):
        if threading.current_thread() is thread:
            arrived.set()
            assert go.wait(60)

    def run():
        with torch.no_grad():  # gradient mode is a thread's own
            logits.append(model(ids).logits)

    thread = threading.Thread(target=run)
    model.model.layers[1].register_forward_pre_hook(stop)
    thread.start()
    assert arrived.wait(60)
    arm.update(Inward(knee=0.5))
    assert not torch.equal(model(ids).logits, expected)
    go.set()
    thread.join(60)
    assert torch.equal(logits[0], expected)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((), {}, "found neither"),
        ((), {"knee": 0.5}, "outward: unknown knee; expected band"),
        ((), {"band": 0.2, "layers": 1}, "update: layers cannot change: detach"),
        ((), {"band": -1}, "band must be"),
        (("inward",), {"band": 0.1}, "inward: unknown band"),
        (("sideways",), {}, "found 'sideways'"),
        ((Outward,), {}, "policy: expected"),
        ((3,), {}, "policy: expected"),
    ],
)
def test_a_refused_update_changes_nothing(arguments, settings, message):
    model = tiny()
    with attach(model, Outward(), **SETUP) as arm:
        before, expected = repr(arm), outputs(model)
        with pytest.raises(ArgumentError, match=message):
            arm.update(*arguments, **settings)
        assert repr(arm) == before
        assert same(outputs(model), expected)


def test_a_policy_of_the_users_own_is_updated_by_its_fields():
    with attach(tiny(), placebo("matched", Outward())) as arm:
        with pytest.raises(ArgumentError, match="unknown band"):
            arm.update(band=1)
        assert arm.policy == placebo("matched", Outward())


def test_a_detached_attachment_is_not_updated():
    arm = attach(tiny(), Outward())
    arm.detach()
    with pytest.raises(DetachedError, match=r"call attach\(\) again"):
        arm.update(strength=0)
    assert arm.policy == Outward()


@pytest.mark.parametrize("name", ["policy", "layers", "scope", "noise", "site", "strength", "anything"])
def test_setting_an_attribute_is_refused_and_names_the_way(name):
    with attach(tiny(), Outward()) as arm:
        before = repr(arm)
        with pytest.raises(ReadOnlyError, match=rf"{name} cannot be set: arm\.update"):
            setattr(arm, name, Inward())
        assert repr(arm) == before
        arm.layers.append(1)  # a copy
        assert arm.layers == [0]


@pytest.mark.parametrize("name", ["policy", "width", "layer", "scope", "noise"])
def test_an_argument_of_the_module_is_read_only(name):
    arm = ARM(Outward(), width=8)
    with pytest.raises(ReadOnlyError, match=f"ARM: {name} is read-only: make a new ARM"):
        setattr(arm, name, getattr(ARM(Inward(), width=16, layer=1, scope="call", noise=Noise(1)), name))
    assert str(arm) == str(ARM(Outward(), width=8))


def test_a_reset_sets_the_counts_of_all_layers_to_zero():
    model = tiny()
    with attach(model, Outward(), layers="all") as arm:
        outputs(model)
        once = arm.report()
        arm.reset()
        assert all(counts["calls"] == counts["tokens"] == counts["moved"] == 0 for counts in arm.report().values())
        outputs(model)
        assert arm.report() == once


@pytest.mark.parametrize("layers", ["0,2", "2,0-0", (0, 2), range(0, 3, 2), iter([2, 0])], ids=str)
def test_text_attaches_what_objects_attach(layers):
    model = tiny()
    with attach(model, Outward(band=0.2, share=(0.1, 0.2)), **SETUP):
        expected = outputs(model)
    with attach(model, "outward:band=0.2,share=0.1/0.2", layers=layers, noise=Noise(4)) as arm:
        assert arm.layers == [0, 2]
        assert same(outputs(model), expected)


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
@each_site
def test_a_compiled_model_follows_an_update(site):
    model, ids = tiny(), prompt(6, batch=2)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    expected = []
    for policy in (Inward(knee=0.5), Inward(knee=0.5, strength=0.5), Outward()):
        with attach(model, policy, site=site, **SETUP):
            expected.append(compiled(ids).logits)
    torch.compiler.reset()
    with attach(model, Outward(), site=site, **SETUP) as arm:
        assert torch.equal(compiled(ids).logits, expected[2])
        arm.update("inward:knee=0.5")
        assert torch.equal(compiled(ids).logits, expected[0])
        arm.update(strength=0.5)
        assert torch.equal(compiled(ids).logits, expected[1])
        arm.update(Outward())
        assert torch.equal(compiled(ids).logits, expected[2])
        assert arm.report()[2]["calls"] == 4
        arm.reset()
        compiled(ids)
        assert arm.report()[2]["calls"] == 1
