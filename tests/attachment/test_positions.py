"""Positions and padding are read off what the decoder is called with."""

import inspect

import pytest
import torch

from armlet import Outward, attach
from armlet.attachment.call_tracker import NotFiredError
from armlet.attachment.positions import CACHES, REQUIRED_ARGUMENTS, cache_argument, locate
from armlet.attachment.sites import UnsupportedModelError
from armlet.redistribution.errors import ArmletError
from attached import padded, seen
from families import go_on, prompt, tiny


def columns(start, stop):
    return torch.arange(start, stop)


def test_without_any_mask_positions_are_the_columns():
    positions, mask = locate(columns(4, 7), None, None)
    assert positions.tolist() == [[4, 5, 6]]
    assert mask is None


def test_given_position_ids_count_where_nothing_is_padded():
    packed = torch.tensor([[0, 1, 2, 0, 1]])
    positions, _ = locate(columns(0, 5), torch.ones(1, 5), packed)
    assert positions.tolist() == packed.tolist()
    axes = packed.expand(3, 1, 5)
    assert locate(columns(0, 5), None, axes)[0].tolist() == packed.tolist()


def test_padded_sequences_are_counted_by_their_valid_tokens():
    attention_mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    positions, mask = locate(columns(0, 5), attention_mask, torch.arange(5).expand(3, 5))
    assert positions[0, 2:].tolist() == [0, 1, 2]
    assert positions[1, :3].tolist() == [0, 1, 2]
    assert positions[2].tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(mask, attention_mask.bool())


def test_decoding_continues_after_right_padding():
    attention_mask = torch.tensor([[1, 1, 1, 0, 0, 1, 1]])
    # What generate() passes there: it continues from the padding's position, 0.
    positions, mask = locate(columns(6, 7), attention_mask, torch.tensor([[2]]))
    assert positions.tolist() == [[4]]
    assert mask.tolist() == [[True]]


def test_masks_of_static_caches_tell_padding_by_the_diagonal():
    attended = torch.ones(8, 8).tril().bool()[None, None].repeat(2, 1, 1, 1)
    attended[0, :, :, :2] = False  # left padding in the first sequence
    expected = [[False, False, True, True], [True] * 4]
    assert locate(columns(0, 4), attended[:, :, :4], None)[1].tolist() == expected
    additive = torch.where(attended, 0.0, torch.finfo(torch.float32).min)
    assert locate(columns(0, 4), additive[:, :, :4], None)[1].tolist() == expected
    assert locate(columns(5, 6), attended[:, :, 5:6], None)[1].tolist() == [[True], [True]]


def test_a_cache_that_rolls_has_the_new_tokens_last():
    window = torch.ones(1, 1, 2, 4, dtype=torch.bool)
    window[0, 0, 0, 3] = False
    assert locate(columns(9, 11), window, None, window=4)[1].tolist() == [[True, True]]
    assert locate(columns(9, 11), window, None, window=4)[0].tolist() == [[9, 10]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_mask_for_each_pair_of_tokens_counts_as_one_for_each_token_does(side):
    keep = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()
    keep = keep if side == "left" else keep.flip(1)
    pairs = torch.ones(5, 5).tril().bool() & keep[:, None, None, :]
    positions, mask = locate(columns(0, 5), pairs, None)
    assert torch.equal(mask, keep)
    assert torch.equal(positions[keep], locate(columns(0, 5), keep.long(), None)[0][keep])


def test_attention_in_both_directions_is_no_padding():
    both = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    assert locate(columns(0, 4), both, None)[0].tolist() == [[0, 1, 2, 3]]


def test_one_mask_serves_a_batch():
    model, ids = tiny(), prompt(6, batch=2)
    triangle = torch.ones(6, 6).tril().bool()[None, None]
    with torch.no_grad(), attach(model, Outward()):
        assert torch.equal(model(ids, attention_mask=triangle).logits, model(ids).logits)


def test_a_mask_that_leaves_out_the_cache_is_an_error():
    model = tiny()
    with torch.no_grad(), attach(model, Outward()):
        first = go_on(model, prompt(4))
        with pytest.raises(ArmletError, match="attention_mask has 2 columns, but there are 4 cached and 2 new tokens"):
            go_on(model, prompt(2), first, attention_mask=torch.ones(1, 2))


def test_no_call_is_left_after_the_call_also_after_one_that_fails():
    model = tiny()
    with attach(model, Outward()) as attachment:
        tracker = attachment._tracker
        model(prompt(3))
        assert tracker.current_call() is None
        model.model.layers[2].register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(prompt(3))
        assert tracker.current_call() is None


def test_a_site_that_did_not_fire_is_an_error():
    model = tiny()
    mlp = model.model.layers[1].mlp
    with attach(model, Outward(), layers=[0, 1]):
        mlp.forward = lambda x: mlp.down_proj(torch.nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x))
        with pytest.raises(NotFiredError, match=r"ARM did not run in layers \[1\]"):
            model(prompt(3))
        del mlp.forward
        model(prompt(3))


def test_gradient_checkpointing_is_refused_with_what_to_do():
    model = tiny().train()
    model.model.layers[0].gradient_checkpointing = True
    with attach(model, Outward()):
        with pytest.raises(ArmletError, match="gradient_checkpointing_disable"):
            model(prompt(3))
        model.model.layers[0].gradient_checkpointing = False
        model(prompt(3))


def test_a_decoder_called_without_tokens_is_an_error():
    model = tiny()
    with attach(model, Outward()), pytest.raises(ArmletError, match="with neither input_ids nor inputs_embeds"):
        model.model()


def renamed(model, names):
    """The model, whose decoder's forward takes some arguments under other names: `names` is {today's: other}."""
    decoder, forward = model.model, model.model.forward
    signature = inspect.signature(forward)

    def other(*args, **kwargs):
        back = {new: old for old, new in names.items()}
        return forward(*args, **{back.get(name, name): value for name, value in kwargs.items()})

    parameters = [each.replace(name=names.get(each.name, each.name)) for each in signature.parameters.values()]
    other.__signature__ = signature.replace(parameters=parameters)
    decoder.forward = other
    return model


@pytest.mark.parametrize("known", REQUIRED_ARGUMENTS.values(), ids=REQUIRED_ARGUMENTS)
def test_a_decoder_that_takes_what_arm_needs_under_an_unknown_name_is_refused(known):
    model = tiny()
    there = [name for name in inspect.signature(model.model.forward).parameters if name in known]
    assert there
    renamed(model, {name: f"made_up_{name}" for name in there})
    with pytest.raises(UnsupportedModelError, match=rf"LlamaModel: forward\(.*made_up_{there[0]}.*\) has no argument"):
        attach(model, Outward())
    assert not model.model._forward_pre_hooks


def wrappers(forward):
    """Forwards that name fewer arguments, and pass on all that they are given."""

    def all_by_keyword(*args, **kwargs):
        return forward(*args, **kwargs)

    def tokens_by_name(input_ids=None, attention_mask=None, use_cache=None, **kwargs):
        return forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache, **kwargs)

    return all_by_keyword, tokens_by_name


@pytest.mark.parametrize("which", [0, 1], ids=["all by keyword", "tokens by name"])
def test_a_wrapper_that_passes_keywords_on_is_read_by_its_keywords(which):
    ids, mask = padded("left")
    model = tiny()
    model.model.forward = wrappers(model.model.forward)[which]
    with attach(model, Outward()), seen(model) as calls:
        model.generate(ids, attention_mask=mask, max_new_tokens=3, do_sample=False)
    assert [positions[:, -1].tolist() for _, positions, _ in calls] == [[2, 5], [3, 6], [4, 7]]


def test_a_cache_by_an_unknown_name_among_the_keywords_is_an_error_at_the_call():
    model = tiny()
    first = go_on(model, prompt(4))
    model.model.forward = wrappers(model.model.forward)[0]
    (cache,) = cache_argument(model, first).values()
    with attach(model, Outward()), pytest.raises(ArmletError, match="passed a cache as kv_store"):
        model.model(input_ids=prompt(1), kv_store=cache)


def test_the_cache_argument_has_the_name_of_the_output_where_the_forward_names_none():
    model = tiny()
    first = go_on(model, prompt(4))
    (name,) = cache_argument(model, first)
    model.forward = wrappers(model.forward)[0]
    assert list(cache_argument(model, first)) == [name]
    with pytest.raises(ArmletError, match="returned no cache"):
        cache_argument(model, model(prompt(4), use_cache=False))


@pytest.mark.parametrize("name", CACHES)
def test_decoding_after_padding_continues_whatever_the_cache_is_called(name):
    ids, mask = padded("left")
    model = tiny()
    ((today, cache),) = cache_argument(model, go_on(model, ids, attention_mask=mask)).items()
    renamed(model, {today: name})
    mask = torch.cat((mask, torch.ones(2, 1, dtype=mask.dtype)), 1)
    with attach(model, Outward()), seen(model) as calls:
        model.model(prompt(1, batch=2), attention_mask=mask, **{name: cache})
    _, positions, real = calls[0]
    assert positions.tolist() == [[3], [6]]
    assert real.all()
