"""Answers equal those of `model.generate`; the first difference is the first token that differs."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from armlet import Outward, attach
from armlet.answers.measure import answer, split_at
from armlet.answers.records import Answer, first_difference
from armlet.answers.result import Answers
from armlet.checkpoints.given import NamedModel
from armlet.prompts.generation import COLDEST_SAMPLED, Decoding
from armlet.redistribution.errors import ArgumentError
from families import tiny
from tiny_checkpoints import TEMPLATE, words

TOKENS = st.lists(st.integers(0, 3), max_size=6)
PROMPT = "w5 w6 w7"


def given_answer(tokens, *, interrupted=False):
    return Answer(tokens, " ".join(f"w{token}" for token in tokens), interrupted)


def both(baseline, treated, report=None):
    about = {"model": "a/model", "prompt": "w5", "armlet": {"policy": "inward"}, "treatment": "Inward, layer 0"}
    parts = {"baseline_parts": (baseline.text, "", ""), "treated_parts": ("", "", "")}
    answers = {"baseline": baseline, "treated": treated, "interrupted": treated is None or treated.interrupted}
    return Answers(**about, **parts, **answers, report=report or {})


def asked(model=None, tokenizer=None, prompt=PROMPT, **how):
    ticked = {"tick": how.pop("tick")} if "tick" in how else {}
    opened = NamedModel("tiny", model or tiny(), tokenizer or words())
    return answer(opened, prompt, Decoding(**{"max_new_tokens": 9} | how), **ticked)


def generated(model, ids, **how):
    """The new tokens of a plain call, without streamer."""
    how = {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0} | how
    return model.generate(torch.tensor([ids]), **how)[0, len(ids) :].tolist()


def interrupt_after(count):
    """A `tick` that acts like Ctrl-C at the count-th token."""
    seen = []

    def tick():
        seen.append(None)
        if len(seen) == count:
            raise KeyboardInterrupt

    return tick


@given(TOKENS, TOKENS)
def test_first_difference_is_the_first_index_at_which_one_has_what_the_other_has_not(one, other):
    found = first_difference(given_answer(one), given_answer(other))
    differing = [i for i in range(max(len(one), len(other))) if one[i : i + 1] != other[i : i + 1]]
    assert found == (differing[0] if differing else None)


@pytest.mark.parametrize(
    ("one", "other", "index"),
    [([1, 2, 3], [1, 5, 3], 1), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1], 1), ([], [1], 0), ([1, 2], [1, 2], None)],
)
def test_an_answer_that_ends_early_parts_where_it_ends(one, other, index):
    assert first_difference(given_answer(one), given_answer(other)) == index


@pytest.mark.parametrize("other", [[1], [1, 2], [1, 2, 3]])
def test_where_ctrl_c_ended_an_answer_it_does_not_part(other):
    assert first_difference(given_answer([1, 2, 3]), given_answer(other, interrupted=True)) is None


def test_a_difference_before_ctrl_c_counts():
    assert first_difference(given_answer([1, 2, 3]), given_answer([1, 4], interrupted=True)) == 1


def test_one_answer_alone_parts_from_nothing():
    assert first_difference(given_answer([1]), None) is None


def test_to_dict_is_json_with_the_report_both_answers_and_where_they_part():
    answers = both(given_answer([1, 2]), given_answer([1, 3], interrupted=True), {0: {"calls": 2}})
    assert json.loads(json.dumps(answers.to_dict())) == {
        "model": "a/model",
        "prompt": "w5",
        "armlet": {"policy": "inward"},
        "report": {"0": {"calls": 2}},
        "baseline": {"tokens": [1, 2], "text": "w1 w2", "interrupted": False},
        "treated": {"tokens": [1, 3], "text": "w1 w3", "interrupted": True},
        "first_difference": 1,
    }
    cut = both(given_answer([1], interrupted=True), None).to_dict()
    assert (cut["treated"], cut["first_difference"]) == (None, None)


def test_a_greedy_answer_is_what_generate_gives():
    model, tokenizer = tiny(), words()
    found = asked(model, tokenizer)
    assert found == Answer(generated(model, [5, 6, 7]), tokenizer.decode(found.tokens), interrupted=False)
    assert len(found.tokens) == 9


def test_a_treated_answer_is_what_generate_gives_with_arm():
    model = tiny()
    baseline = asked(model)
    with attach(model, Outward(band=0.5), layers="all"):
        treated = asked(model)
        assert treated.tokens == generated(model, [5, 6, 7])
    assert treated.tokens != baseline.tokens
    assert asked(model) == baseline


def test_the_chat_template_is_applied_where_there_is_one():
    model, tokenizer = tiny(), words()
    tokenizer.chat_template = TEMPLATE
    assert asked(model, tokenizer).tokens == generated(model, [1, 5, 6, 7, 2, 3]) != asked(model).tokens


def test_a_sampled_answer_is_what_generate_gives_with_that_seed():
    model = tiny()
    with torch.random.fork_rng():
        torch.manual_seed(4)
        expected = generated(model, [5, 6, 7], do_sample=True, temperature=1.5)
    assert asked(model, temperature=1.5, seed=4).tokens == expected
    assert asked(model, temperature=1.5, seed=4).tokens == expected
    assert asked(model, temperature=1.5, seed=5).tokens != expected
    assert asked(model, temperature=0.5, seed=4).tokens != expected


@pytest.mark.parametrize("temperature", [0.0, 1e-300, COLDEST_SAMPLED / 2])
def test_the_coldest_temperatures_are_greedy(temperature):
    assert asked(temperature=temperature, seed=1) == asked()


@pytest.mark.parametrize(
    "how", [{}, {"temperature": 1.5}, {"tick": interrupt_after(3)}], ids=["greedy", "sampled", "cut"]
)
def test_the_global_generator_stays_as_it_was(how):
    state = torch.get_rng_state()
    asked(**how)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_global_generator_stays_as_it_was_after_an_error():
    model, state = tiny(), torch.get_rng_state()
    model.forward = None  # the first step fails
    with pytest.raises(TypeError):
        asked(model, temperature=1.0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_ctrl_c_keeps_every_token_so_far(count, temperature):
    found = asked(temperature=temperature, tick=interrupt_after(count))
    whole = asked(temperature=temperature)
    assert found.interrupted
    assert not whole.interrupted
    assert found.tokens == whole.tokens[:count]
    assert found.text == words().decode(found.tokens)


def test_every_token_ticks_once():
    ticks = []
    found = asked(tick=lambda: ticks.append(None))
    assert len(ticks) == len(found.tokens) == 9


def test_the_end_is_a_token_of_the_answer_but_not_of_its_text():
    model = tiny()
    whole = asked(model)
    end = next(token for index, token in enumerate(whole.tokens) if index and token not in whole.tokens[:index])
    model.generation_config.eos_token_id = end
    found = asked(model, words(eos_token=f"w{end}"))
    count = whole.tokens.index(end) + 1
    assert found.tokens == whole.tokens[:count]
    assert found.text == words().decode(whole.tokens[: count - 1])


@pytest.mark.parametrize(
    "settings", [{"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}, {"repetition_penalty": 5.0}], ids=repr
)
def test_a_checkpoints_beams_and_penalties_do_not_change_an_answer(settings):
    model = tiny()
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    assert asked(model) == asked()


def test_a_checkpoints_filters_decide_what_is_sampled():
    model = tiny()
    model.generation_config.top_k = 1
    assert asked(model, temperature=5.0).tokens == asked().tokens != asked(temperature=5.0).tokens


def test_an_empty_prompt_is_refused():
    with pytest.raises(ArgumentError, match="prompt: it is empty"):
        asked(prompt="")


def byte_tokens():
    """A tokenizer with a token for each byte, so that a letter may take four."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    known.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    known.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=known)


BYTES = byte_tokens()


@pytest.mark.slow
@given(st.text(st.characters(codec="utf-8"), min_size=1), st.data())
def test_the_parts_make_up_the_text_and_no_letter_is_broken(text, data):
    tokens = BYTES(text)["input_ids"]
    text = BYTES.decode(tokens, skip_special_tokens=True)
    index = data.draw(st.integers(0, len(tokens) - 1))
    assert "".join(split_at(BYTES, Answer(tokens, text, False), index)) == text


def test_the_parting_token_stands_alone():
    assert split_at(words(), given_answer([1, 2, 3]), 1) == ("w1", " w2", " w3")
    assert split_at(words(), given_answer([1, 2, 3]), 0) == ("", "w1", " w2 w3")
    assert split_at(words(), given_answer([1, 2, 3]), 2) == ("w1 w2", " w3", "")


def test_a_letter_belongs_to_the_token_that_completes_it():
    found = Answer(BYTES("a😀b")["input_ids"], "a😀b", False)
    assert len(found.tokens) == 6
    assert split_at(BYTES, found, 3) == ("a", "", "😀b")
    assert split_at(BYTES, found, 4) == ("a", "😀", "b")


def test_behind_the_end_there_is_nothing_to_mark():
    assert split_at(words(), given_answer([1, 2]), 2) == ("w1 w2", "", "")
    assert split_at(words(), given_answer([1, 2]), None) == ("w1 w2", "", "")


def test_a_word_wider_than_its_column_is_shown_whole():
    long = "7" * 300
    assert repr(both(Answer([1], long, False), None)).count("7") == 300
