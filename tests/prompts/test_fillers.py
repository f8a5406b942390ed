"""A filler has exactly the requested tokens and position, and leaves the prompt's own tokens unchanged."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from armlet.prompts.fillers import (
    RANDOM_SENTENCE,
    SYSTEM,
    Filler,
    describe_filler,
    filler_conditions,
    filler_tokens,
    make_prompt,
)
from armlet.redistribution.errors import ArgumentError
from tiny_checkpoints import words

SYSTEM_WORDS, QUESTION = "w10 w11 w12", "w20 w21"
# The system's turn between w1 and w2, the user's between w3 and w4; w5 asks for the answer.
TURNS = (
    "{% for turn in messages %}{% if turn['role'] == 'system' %}w1 {{ turn['content'] }} w2 {% else %}"
    "w3 {{ turn['content'] }} w4{% endif %}{% endfor %}{% if add_generation_prompt %} w5{% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TURNS
LOUD = "{% for turn in messages %}{{ turn['content'] | upper }}{% endfor %}"


def tokenizer_with(template):
    tokenizer = words()
    tokenizer.chat_template = template
    return tokenizer


def prompt_of(template, position="between", question=QUESTION, seed=(0,)):
    return make_prompt(tokenizer_with(template), question, system=SYSTEM_WORDS, position=position, seed=seed)


@pytest.mark.parametrize(
    ("template", "ids", "places", "question"),
    [
        (TURNS, [1, 10, 11, 12, 2, 3, 20, 21, 4, 5], {"before": 1, "between": 6, "end": 8}, (6, 8)),
        (NO_SYSTEM, [3, 10, 11, 12, 20, 21, 4, 5], {"before": 1, "between": 4, "end": 6}, (4, 6)),
        (None, [10, 11, 12, 20, 21], {"before": 0, "between": 3, "end": 5}, (3, 5)),
    ],
    ids=["system turn", "template without a system turn", "no template"],
)
def test_each_position_is_where_its_name_says(template, ids, places, question):
    for position, at in places.items():
        prompt = prompt_of(template, position)
        assert (prompt.ids.tolist(), prompt.insert_at, prompt.question) == (ids, at, question)
        assert prompt.words == tuple(f"w{token}" for token in ids)
        filler = torch.tensor([30, 31])
        assert prompt.filled(filler).tolist() == [*ids[:at], 30, 31, *ids[at:]]


def test_the_position_answer_is_directly_before_the_last_answer_cue(smollm2):
    question = "Question: Answer: is a word.\nAnswer:"
    prompt = make_prompt(smollm2[1], question, system="", position="answer", plain=True)
    assert "".join(prompt.words[prompt.insert_at :]) == "Answer:"
    with pytest.raises(ArgumentError, match="'answer' is directly before 'Answer:', which is not in 'w20 w21'"):
        prompt_of(TURNS, "answer")


@pytest.mark.parametrize("question", ["w3", "w5", "w20", "w10"])
def test_a_question_that_stands_in_the_template_or_the_system_prompt_too_is_found(question):
    assert prompt_of(TURNS, question=question).question == (6, 7)
    assert make_prompt(tokenizer_with(TURNS), "w20 w21", system="w1", position="before").insert_at == 1


@pytest.mark.parametrize("template", [TURNS, None], ids=["template", "no template"])
def test_a_question_without_a_token_is_refused(template):
    with pytest.raises(ArgumentError, match="prompts: '' has no tokens"):
        prompt_of(template, question="")


def test_a_template_that_strips_the_texts_is_taken():
    stripping = TURNS.replace("turn['content']", "turn['content'].strip()")
    assert prompt_of(stripping, question=" w20 w21 ").question == (6, 8)


@pytest.mark.parametrize(("position", "at"), [("before", 1), ("between", 4), ("end", 6)])
def test_special_tokens_before_a_prompt_stay_and_those_after_it_are_left_out(position, at):
    tokenizer = words(bos_token="w0", eos_token="w62")
    both = TemplateProcessing(single="w0 $A w62 w62", special_tokens=[("w0", 0), ("w62", 62)])
    tokenizer._tokenizer.post_processor = both
    prompt = make_prompt(tokenizer, QUESTION, system=SYSTEM_WORDS, position=position)
    assert (prompt.ids.tolist(), prompt.insert_at, prompt.question) == ([0, 10, 11, 12, 20, 21], at, (4, 6))


def test_tokens_are_those_of_the_whole_text_at_once(smollm2):
    _, tokenizer = smollm2
    turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "If 4x - 9 = 27, what is x?"}]
    whole = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    for position in ("before", "between", "end"):
        prompt = make_prompt(tokenizer, turns[1]["content"], position=position)
        assert prompt.ids.tolist() == whole
        assert tokenizer.decode(prompt.ids[slice(*prompt.question)]) == turns[1]["content"]
        assert tokenizer.decode(prompt.ids[prompt.insert_at :]).startswith(
            {"before": SYSTEM, "between": turns[1]["content"], "end": "<|im_end|>"}[position]
        )


@pytest.mark.parametrize(
    ("template", "position", "message"),
    [
        (LOUD, "between", "the chat template cannot be used"),
        ("{{ raise_exception('never') }}", "between", "the chat template cannot be used .*never"),
        (TURNS, "middle", "expected one of before, between, end, random, answer, found 'middle'"),
    ],
)
def test_a_prompt_without_a_place_for_the_filler_is_refused(template, position, message):
    with pytest.raises(ArgumentError, match=message):
        prompt_of(template, position)


@pytest.mark.slow
def test_a_random_position_is_any_place_of_the_question_and_its_seeds():
    draws = [prompt_of(TURNS, "random", seed=(seed,)).insert_at for seed in range(200)]
    ends = [prompt_of(TURNS, position).insert_at for position in ("between", "end")]
    assert set(draws) == set(range(ends[0], ends[1] + 1))
    assert draws == [prompt_of(TURNS, "random", seed=(seed,)).insert_at for seed in range(200)]


def test_a_plain_prompt_is_context_and_question_as_they_stand():
    tokenizer = tokenizer_with(TURNS)  # which is not used
    places = {"before": 0, "between": 2, "end": 5}
    for position, at in places.items():
        prompt = make_prompt(tokenizer, " w3 w4 w5", system="w1 w2", position=position, plain=True)
        assert prompt.ids.tolist() == tokenizer("w1 w2 w3 w4 w5")["input_ids"]
        assert (prompt.insert_at, prompt.question) == (at, (2, 5))


@given(st.integers(1, 40), st.lists(st.sampled_from(["w7", "w8", "w9"]), min_size=1, max_size=3))
def test_a_filler_is_its_texts_tokens_again_and_again(count, text):
    tokens = filler_tokens(words(), Filler(" ".join(text), count)).tolist()
    own = [int(word[1:]) for word in text]
    assert tokens == (own * count)[:count]


def test_fillers_are_counted_in_tokens_where_the_tokenizer_would_merge_them(smollm2):
    _, tokenizer = smollm2
    told = describe_filler(tokenizer, Filler("/", 55), filler_tokens(tokenizer, Filler("/", 55)))
    assert (told["filler"], told["count"], told["tokens"], told["characters"]) == ("/", 55, ["/"], 55)
    assert told["tokens_of_the_same_text"] == len(tokenizer("/" * 55)["input_ids"]) < 55
    assert len(filler_tokens(tokenizer, Filler("/", 55))) == 55


@pytest.mark.slow
@given(st.integers(1, 200), st.integers(0, 3), st.integers(0, 3))
def test_random_sentences_are_those_of_seed_and_prompt_and_shorter_ones_begin_longer_ones(smollm2, count, seed, prompt):
    _, tokenizer = smollm2
    own = filler_tokens(tokenizer, Filler(RANDOM_SENTENCE, count), seed=seed, prompt=prompt)
    longer = filler_tokens(tokenizer, Filler(RANDOM_SENTENCE, 250), seed=seed, prompt=prompt)
    assert own.tolist() == longer[:count].tolist()
    other = filler_tokens(tokenizer, Filler(RANDOM_SENTENCE, 250), seed=seed, prompt=prompt + 1)
    assert other.tolist() != longer.tolist()
    # No run is repeated to fill it up: the last words are not the first ones.
    assert longer[-10:].tolist() != longer[:10].tolist()


def test_a_filler_without_a_token_is_refused():
    with pytest.raises(ArgumentError, match="filler: '' has no tokens"):
        filler_tokens(words(), Filler("", 3))


def test_conditions_are_every_filler_and_the_control_at_every_count_but_0():
    fillers = filler_conditions(["/", "\n", "/"], [25, 0, 10, 25])
    kinds = ["/", "/", "\n", "\n", RANDOM_SENTENCE, RANDOM_SENTENCE]
    assert [(filler.kind, filler.count) for filler in fillers] == list(zip(kinds, [10, 25] * 3, strict=True))


def test_a_tokenizer_without_offsets_is_refused():
    slow = SimpleNamespace(is_fast=False)
    with pytest.raises(ArgumentError, match=r"SimpleNamespace does not return .* use a fast tokenizer"):
        make_prompt(slow, QUESTION)
