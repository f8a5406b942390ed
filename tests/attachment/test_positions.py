"""Positions and padding are read off what the decoder is called with."""

import inspect

import pytest
import torch

from armlet import Outward, attach
from armlet.attachment.call_tracker import NotFiredError
from armlet.attachment.positions import CACHES, REQUIRED_ARGUMENTS, cache_argument, locate, read_call
from armlet.attachment.sites import UnsupportedModelError
from armlet.redistribution.errors import ArmletError
from attached import padded, seen
from families import go_on, prompt, tiny


def columns(start, stop):
    return torch.arange(start, stop)


def test_without_a_mask_positions_are_the_columns():
    positions, mask, starts = locate(columns(4, 7), None, None)
    assert positions.tolist() == [[4, 5, 6]]
    assert mask is None
    assert starts is None


@pytest.mark.parametrize("padding", [None, torch.ones(1, 5)], ids=["no mask", "mask"])
@pytest.mark.parametrize("start", [0, 1, 7])
def test_position_ids_that_do_not_restart_are_ignored(padding, start):
    positions, *_ = locate(columns(0, 5), padding, torch.arange(start, start + 5)[None])
    assert positions.tolist() == [[0, 1, 2, 3, 4]]


def test_position_ids_that_restart_are_taken_as_they_are():
    packed = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0, 0]])
    for padding in (None, torch.ones(1, 9), (torch.arange(9) < 7)[None], torch.tensor([[1, 1, 1, 2, 2, 2, 2, 0, 0]])):
        positions, _, starts = locate(columns(0, 9), padding, packed)
        assert torch.equal(positions, packed)
        assert starts[0, :7].tolist() == [True, False, False, True, False, False, False]


@pytest.mark.parametrize("ids_of_padding", [0, 3])
def test_sequences_that_are_padded_one_by_one_are_packed(ids_of_padding):
    packed = torch.tensor([[0, 1, 2, ids_of_padding, 0, 1, 2, 3]])
    padding = torch.tensor([[1, 1, 1, 0, 1, 1, 1, 1]])
    positions, _, starts = locate(columns(0, 8), padding, packed)
    assert positions[0, 4:].tolist() == [0, 1, 2, 3]
    assert starts[0].nonzero()[:, 0].tolist() == [0, 4]


def test_one_sequence_with_padding_inside_is_not_packed():
    padding = torch.tensor([[0, 1, 1, 0, 0, 1, 1]])
    positions, _, starts = locate(columns(0, 7), padding, padding.cumsum(-1) - 1)
    assert positions[0, padding[0].bool()].tolist() == [0, 1, 2, 3]
    assert not starts[:, 1:].any()


def test_bounds_of_sequences_count_through_all_rows():
    position_ids = torch.tensor([[0, 1, 2, 0], [0, 1, 0, 1]])
    inputs = {"input_ids": prompt(4, batch=2), "position_ids": position_ids}
    call = read_call([], inputs | {"cu_seq_lens_q": torch.tensor([0, 3, 4, 6])})
    assert call.packed_lengths("sequence") == [3, 1, 4]  # the last with padding
    assert call.mask.tolist() == [[True] * 4, [True, True, False, False]]


def test_bounds_of_sequences_without_position_ids_are_refused():
    with pytest.raises(ArmletError, match=r"passed packed sequences \(cu_seq_lens_q\) without position_ids"):
        read_call([], {"input_ids": prompt(4), "cu_seq_lens_q": torch.tensor([0, 1, 4])})


def test_only_the_rows_that_restart_are_packed():
    position_ids = torch.tensor([[0, 1, 2, 0, 1], [5, 6, 7, 8, 9]])
    positions, _, starts = locate(columns(0, 5), None, position_ids)
    assert positions.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]]
    assert starts[:, 1:].any(-1).tolist() == [True, False]


def test_position_ids_of_padding_do_not_make_a_row_packed():
    padding, position_ids = torch.tensor([[0, 0, 1, 1, 1]]), torch.tensor([[1, 1, 0, 1, 2]])
    positions, _, starts = locate(columns(0, 5), padding, position_ids)
    assert positions[0, 2:].tolist() == [0, 1, 2]
    assert not starts[:, 1:].any()


def test_padded_sequences_are_counted_by_their_valid_tokens():
    attention_mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    positions, mask, _ = locate(columns(0, 5), attention_mask, torch.arange(5).expand(3, 5))
    assert positions[0, 2:].tolist() == [0, 1, 2]
    assert positions[1, :3].tolist() == [0, 1, 2]
    assert positions[2].tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(mask, attention_mask.bool())


def test_decoding_continues_after_right_padding():
    attention_mask = torch.tensor([[1, 1, 1, 0, 0, 1, 1]])
    # What generate() passes there: it continues from the padding's position, 0.
    positions, mask, _ = locate(columns(6, 7), attention_mask, torch.tensor([[2]]))
    assert positions.tolist() == [[4]]
    assert mask.tolist() == [[True]]


@pytest.mark.parametrize("axes", [3, 4])
def test_axes_of_mrope_are_never_positions(axes):
    ids = prompt(5)
    position_ids = torch.tensor([[0, 1, 1, 1, 2]]).expand(axes, 1, 5)
    assert read_call([], {"input_ids": ids, "position_ids": position_ids}, axes).positions.tolist() == [[0, 1, 2, 3, 4]]
    text = torch.tensor([[[0, 1, 2, 0, 1]]])
    with_text = {"input_ids": ids, "position_ids": torch.cat((text, position_ids))}
    assert read_call([], with_text, axes).positions.tolist() == text[0].tolist()


@pytest.mark.parametrize("padding", [None, torch.tensor([[0, 1, 1, 1, 1]])], ids=["no mask", "mask"])
def test_axes_of_mrope_that_restart_are_refused_without_the_positions_of_text(padding):
    inputs = {"input_ids": prompt(5), "attention_mask": padding}
    read_call(
        [],
        inputs
        | {
            "position_ids": torch.tensor([[1, 0, 1, 1, 2]] if padding is not None else [[0, 1, 1, 1, 2]]).expand(
                3, 1, 5
            )
        },
        3,
    )
    with pytest.raises(ArmletError, match="pass the positions of text before them"):
        read_call([], inputs | {"position_ids": torch.tensor([[0, 1, 2, 0, 1]]).expand(3, 1, 5)}, 3)


PAIRS = torch.ones(1, 1, 5, 5, dtype=torch.bool)


@pytest.mark.parametrize("mask", [PAIRS, {"full_attention": PAIRS}, object()], ids=["4-D", "dict", "block"])
def test_a_mask_of_four_dimensions_says_nothing_about_positions(mask):
    inputs = {"input_ids": prompt(5), "attention_mask": mask}
    with pytest.raises(ArmletError, match="pass the attention_mask with a column for each token"):
        read_call([], inputs)
    position_ids = torch.arange(3, 8)[None]
    call = read_call([], inputs | {"position_ids": position_ids})
    assert torch.equal(call.positions, position_ids)
    assert not call.packed_lengths("token")
    with pytest.raises(ArmletError, match="does not show which tokens are padding"):
        call.packed_lengths("sequence")


def test_the_masks_of_the_caller_count_and_not_what_the_model_makes_of_them():
    padding = torch.tensor([[0, 0, 1, 1, 1]])
    inside = {
        "inputs_embeds": torch.zeros(1, 5, 8),
        "attention_mask": PAIRS,
        "position_ids": torch.arange(5)[None],
    }
    call = read_call([{"input_ids": prompt(5), "attention_mask": padding}], inside)
    assert call.positions[0, 2:].tolist() == [0, 1, 2]
    assert torch.equal(call.mask, padding.bool())
    assert read_call([{"input_ids": prompt(5), "attention_mask": None}], inside).mask is None


def test_another_padding_that_a_module_passes_on_counts_for_its_rows():
    outer = {"input_ids": prompt(5), "attention_mask": torch.tensor([[0, 0, 1, 1, 1]])}
    inner = {"input_ids": prompt(5), "attention_mask": torch.tensor([[1, 1, 1, 0, 0]])}
    assert torch.equal(read_call([outer], inner).mask, inner["attention_mask"].bool())
    ids = {"position_ids": torch.tensor([[0, 0, 0, 1, 0]])}
    same = inner | {"attention_mask": outer["attention_mask"].clone()}
    assert read_call([outer | ids], same).positions[0].tolist() == [0, 0, 0, 1, 0]


def test_a_caller_with_another_number_of_tokens_is_not_asked():
    inside = {"inputs_embeds": torch.zeros(1, 5, 8), "attention_mask": torch.tensor([[0, 1, 1, 1, 1]])}
    call = read_call([{"input_ids": prompt(3), "attention_mask": torch.ones(1, 3)}], inside)
    assert call.positions[0, 1:].tolist() == [0, 1, 2, 3]


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
    with pytest.raises(UnsupportedModelError, match=rf"LlamaModel\(.*made_up_{there[0]}.*\) has no argument"):
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
