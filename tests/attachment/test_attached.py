"""What is attached is found again without the handle, in a copy too, and detaching it leaves nothing."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

import armlet
from armlet import Inward, Outward, attach
from armlet.attachment.attached import refuse_attached
from armlet.attachment.call_tracker import NotFiredError
from armlet.attachment.handle import AlreadyAttachedError
from armlet.redistribution.errors import ArgumentError
from attached import anatomy, each_site
from families import prompt, tiny

each_duplicate = pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copied", "pickled"]
)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


class Outer(nn.Module):
    """A module around a model, as PEFT's, with a list of modules of its own before it."""

    def __init__(self, model):
        super().__init__()
        self.adapters = nn.ModuleList([nn.Linear(1, 1)])
        self.model = model


def test_a_cell_that_ran_twice_finds_its_attachment_again():
    model, ids = tiny(), prompt(5)
    before, baseline = anatomy(model), model(ids).logits
    attach(model, Outward())
    gc.collect()
    with pytest.raises(AlreadyAttachedError, match=r"armlet\.detach\(model\)"):
        attach(model, Outward())
    treated = model(ids).logits
    (arm,) = armlet.attached(model)
    assert (arm.policy, arm.layers) == (Outward(), [0])
    arm.update(strength=0)
    assert torch.equal(model(ids).logits, baseline)
    arm.update(strength=1.0)
    assert torch.equal(model(ids).logits, treated)
    assert armlet.detach(model) == 1
    assert torch.equal(model(ids).logits, baseline)
    assert anatomy(model) == before
    assert (armlet.attached(model), armlet.detach(model)) == ([], 0)


def test_attachments_are_found_in_the_order_of_attaching_paused_ones_too():
    model, ids = tiny(), prompt(5)
    before, baseline = anatomy(model), model(ids).logits
    first, second = attach(model, Outward(), layers=2), attach(model, Inward(), layers=0)
    third = attach(model, Outward(), layers=2, site="product")
    with first.paused():
        assert armlet.attached(model) == [first, second, third]
    assert armlet.attached(model) == [first, second, third]
    second.detach()
    assert armlet.attached(model) == [first, third]
    with first.paused():
        assert armlet.detach(model) == 2
    assert anatomy(model) == before
    assert torch.equal(model(ids).logits, baseline)
    assert first.state == second.state == third.state == "detached"


@pytest.mark.parametrize(
    "view",
    [Outer, lambda model: model.model, lambda model: Outer(Outer(model)), lambda model: torch.compile(model)],
    ids=["outer", "decoder", "twice outer", "compiled"],
)
def test_every_module_around_a_decoder_finds_the_same(view):
    model, other = tiny(), tiny()
    arm, stranger = attach(model, Outward()), attach(other, Outward())
    assert armlet.attached(view(model)) == [arm]
    assert armlet.detach(view(model)) == 1
    assert armlet.attached(model) == []
    assert armlet.attached(other) == [stranger]


@pytest.mark.parametrize("detached", [False, True])
def test_nothing_keeps_a_model_alive(detached):
    model = tiny()
    arm = attach(model, Outward())
    if detached:
        arm.detach()
        gc.disable()  # then it goes at once, without a search for cycles
    try:
        gone = weakref.ref(model)
        del model, arm
        assert detached or gc.collect()
        assert gone() is None
    finally:
        gc.enable()


@each_site
@each_duplicate
def test_the_attachment_of_a_copy_acts_on_the_copy_alone(duplicate, site):
    model, ids = tiny(), prompt(5)
    before, baseline = anatomy(model), model(ids).logits
    arm = attach(model, Outward(), layers=[0, 1], site=site)
    treated = model(ids).logits
    twin = duplicate(model)
    gc.collect()
    (theirs,) = armlet.attached(twin)
    assert theirs is not arm
    assert armlet.attached(model) == [arm]
    assert repr(theirs) == repr(arm)
    twin(ids)
    assert (arm.report()[1]["calls"], theirs.report()[1]["calls"]) == (1, 2)
    theirs.update(Inward(knee=0.5))
    assert torch.equal(model(ids).logits, treated)
    with attach(fresh := tiny(), Inward(knee=0.5), layers=[0, 1], site=site):
        assert torch.equal(twin(ids).logits, fresh(ids).logits)
    with theirs.paused():
        assert torch.equal(twin(ids).logits, baseline)
    assert armlet.detach(twin) == 1
    assert torch.equal(twin(ids).logits, baseline)
    assert anatomy(twin) == before
    assert torch.equal(model(ids).logits, treated)
    arm.detach()
    assert anatomy(model) == before


def test_a_shallow_copy_of_a_handle_is_the_handle():
    arm = attach(tiny(), Outward())
    assert copy.copy(arm) is arm


def test_a_handle_is_not_copied_without_its_model_but_with_it_in_any_order():
    arm = attach(model := tiny(), Outward())
    with pytest.raises(ArgumentError, match=r"^Attachment: copy the model, and find .* by armlet.attached\("):
        copy.deepcopy(arm)
    for twin_arm, twin in (copy.deepcopy([arm, model]), copy.deepcopy([model, arm])[::-1]):
        assert armlet.attached(twin) == [twin_arm]
    assert armlet.attached(model) == [arm]


@each_duplicate
def test_a_copy_of_a_paused_or_detached_model_has_nothing_attached(duplicate):
    model, ids = tiny(), prompt(5)
    before, baseline = anatomy(model), model(ids).logits
    arm = attach(model, Outward())
    with arm.paused():
        twin = duplicate(model)
    assert armlet.attached(twin) == []
    assert anatomy(twin) == before
    assert torch.equal(twin(ids).logits, baseline)
    assert armlet.attached(model) == [arm]


def test_a_copy_made_while_a_call_still_runs_with_a_paused_arm_can_be_cleaned():
    model, ids, twins = tiny(), prompt(5), []
    before, baseline = anatomy(model), model(ids).logits
    arm = attach(model, Outward())

    def pause_and_copy(*_):
        with arm.paused():
            twins.append(copy.deepcopy(model))

    hook = model.model.layers[1].register_forward_pre_hook(pause_and_copy)
    model(ids)
    hook.remove()
    (twin,) = twins
    twin.model.layers[1]._forward_pre_hooks.clear()
    assert armlet.attached(twin) == []
    assert armlet.detach(twin) == 0
    assert anatomy(twin) == before
    assert torch.equal(twin(ids).logits, baseline)


def pruned(model):
    """A model that shares the first layer of another one and nothing else."""
    smaller = tiny()
    smaller.model.layers[0] = model.model.layers[0]
    return smaller


@each_site
@pytest.mark.parametrize(
    "part",
    [pruned, lambda model: model.model.layers[0], lambda model: model.model.layers[0].mlp],
    ids=["pruned model", "layer", "MLP"],
)
def test_arm_is_found_in_every_part_of_a_model_where_it_acts_and_in_no_other(part, site):
    model = tiny()
    before = anatomy(model)
    arm, later = attach(model, Outward(), site=site), attach(model, Inward(), layers=1)
    assert armlet.attached(part(model)) == [arm]
    with pytest.raises(AlreadyAttachedError, match=r"Outward.*armlet\.detach\(model\)"):
        refuse_attached(part(model), "evaluate")
    with arm.paused():
        assert armlet.attached(part(model)) == [arm]
        refuse_attached(part(model), "evaluate")
    assert armlet.detach(part(model)) == 1
    assert (arm.state, armlet.attached(part(model)), armlet.attached(model)) == ("detached", [], [later])
    later.detach()
    assert anatomy(model) == before


@each_site
@each_duplicate
def test_arm_in_a_copy_of_one_mlp_is_found_and_detached_there_alone(duplicate, site):
    model = tiny()
    mlp = model.model.layers[0].mlp
    x = torch.randn(1, 3, mlp.up_proj.in_features)
    baseline = mlp(x)
    arm = attach(model, Outward(), site=site)
    twin = duplicate(mlp)
    gc.collect()
    assert torch.equal(twin(x), mlp(x))
    assert not torch.equal(twin(x), baseline)
    assert armlet.attached(model) == [arm] != armlet.attached(twin)
    assert armlet.attached(nn.ModuleList(twin.children())) == armlet.attached(twin)  # without the MLP around ARM
    assert armlet.detach(twin) == 1
    assert torch.equal(twin(x), baseline)
    assert arm.state == "attached"


def test_an_attachment_whose_layer_was_replaced_is_found_because_its_model_refuses_to_run():
    model, ids = tiny(), prompt(5)
    attach(model, Outward())
    model.model.layers[0] = tiny().model.layers[0]
    with pytest.raises(NotFiredError):
        model(ids)
    assert armlet.detach(model) == 1
    model(ids)


def test_a_pause_whose_end_fails_leaves_a_handle_that_says_so():
    model = tiny()
    first = attach(model, Outward())
    pause = first.paused()
    pause.__enter__()
    assert first.state == "paused"
    second = attach(model, Inward())
    with pytest.raises(AlreadyAttachedError):
        pause.__exit__(None, None, None)
    assert first.state == "detached"
    assert armlet.attached(model) == [second]


def test_measuring_is_refused_while_arm_acts_and_not_while_it_is_paused():
    model = tiny()
    refuse_attached(model, "evaluate")
    with attach(model, Outward(), layers=[0, 2]) as arm:
        with pytest.raises(
            AlreadyAttachedError, match=r"evaluate: .*layers \[0, 2\].*armlet\.detach\(model\)"
        ) as caught:
            refuse_attached(Outer(model), "evaluate")
        assert "\n" not in str(caught.value)
        with arm.paused():
            refuse_attached(model, "evaluate")
    refuse_attached(model, "evaluate")


@pytest.mark.parametrize("function", [armlet.attached, armlet.detach, lambda model: refuse_attached(model, "measure")])
def test_what_is_no_model_is_refused(function):
    with pytest.raises(ArgumentError, match="model: expected a model"):
        function("models/smollm2")
