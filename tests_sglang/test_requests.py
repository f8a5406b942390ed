"""Requests of several settings in one engine, with chunks, mixed batches and a prefix cache: Hugging Face's tokens."""

from contextlib import ExitStack

import pytest
from tests_vllm.engines import equal_up_to_ties, hugging_face, leads

from armlet import Cut, Inward, Noise, Outward, Transport, attach
from engines import cached, counts, engine, greedy, tokens_of
from families import prompt

SETTINGS = {
    "loud": {"policy": "outward", "layers": [0, 1], "seed": 5},
    "calm": {
        "version": 2,
        "placements": [{"policy": "inward", "knee": 0.5, "layers": [0]}, {"policy": "cut", "layers": [1]}],
    },
    "move": {"policy": "transport", "layers": [1], "site": "up"},
    "clip": {"policy": "inward", "knee": 0.8, "curve": "clip", "layers": [0, 1], "site": "product"},
}
ATTACHED = {
    "loud": [(Outward, {}, {"layers": [0, 1], "noise": Noise(5)})],
    "calm": [(Inward, {"knee": 0.5}, {"layers": 0}), (Cut, {}, {"layers": 1})],
    "move": [(Transport, {}, {"layers": 1, "site": "up"})],
    "clip": [(Inward, {"knee": 0.8, "curve": "clip"}, {"layers": [0, 1], "site": "product"})],
}
ASKED = ["loud", "calm", "off", "move", "clip", None, "loud:0.5", "move:0.25"]
PREFIX = prompt(40, seed=1)[0].tolist()
PROMPTS = [PREFIX + prompt(3 + at % 9, seed=at)[0].tolist() for at in range(96)]
TOKENS = 12
SMALL = {"chunked_prefill_size": 16, "enable_mixed_chunk": True}


@pytest.fixture(scope="module")
def llama(tiny_model):
    return tiny_model("llama")


@pytest.fixture(scope="module")
def sgl(llama):
    with engine(llama[0], {"settings": SETTINGS, "default": "calm"}, **SMALL) as served:
        yield served


def treated(model, asked):
    """The model with what a request asks for."""
    name, _, strength = (asked or "calm").partition(":")
    stack = ExitStack()
    for policy, numbers, place in ATTACHED.get(name, []):
        stack.enter_context(attach(model, policy(**numbers, strength=float(strength or 1)), **place))
    return stack


def test_96_requests_of_four_settings_get_their_own_answers_from_chunks_and_from_the_cache(sgl, llama):
    asked = [ASKED[at % len(ASKED)] for at in range(len(PROMPTS))]
    first = tokens_of(greedy(sgl, PROMPTS, TOKENS, asked))
    again = greedy(sgl, PROMPTS, TOKENS, asked)
    assert min(cached(again)) >= len(PREFIX)
    equal = {"first": 0, "again": 0}
    for value in ASKED:
        at = [index for index, one in enumerate(asked) if one == value]
        prompts = [PROMPTS[index] for index in at]
        with treated(llama[1], value):
            wanted = hugging_face(llama[1], prompts, TOKENS)
            margins = leads(llama[1], prompts, wanted)
        equal["first"] += equal_up_to_ties([first[index] for index in at], wanted, margins)
        equal["again"] += equal_up_to_ties([tokens_of(again)[index] for index in at], wanted, margins)
    assert min(equal.values()) > 90


def test_a_cached_prefix_is_never_that_of_another_setting(sgl):
    ids = prompt(60, seed=777)[0].tolist()
    answers = []
    for value in ("loud", "off", "loud:0.5", "move", None):
        first = greedy(sgl, [ids], TOKENS, value)
        assert cached(first) == [0]
        again = greedy(sgl, [ids], TOKENS, value)
        assert cached(again)[0] > 40
        assert tokens_of(again) == tokens_of(first)
        answers += tokens_of(first)
    assert len({*map(tuple, answers)}) > 1


def test_counts_are_those_of_the_tokens_that_asked_for_a_setting(sgl):
    before = counts(sgl)
    greedy(sgl, [prompt(20, seed=778)[0].tolist()] * 3, 5, ["clip", "off", "loud"])
    after = counts(sgl)
    new = {name: {at: after[name][at]["tokens"] - before[name][at]["tokens"] for at in after[name]} for name in after}
    # The last of an answer's tokens is not computed further.
    assert new == {"loud": {"0": 24, "1": 24}, "clip": {"0": 24, "1": 24}, "calm": {"0": 0, "1": 0}, "move": {"1": 0}}


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"custom_params": {"armlet": "nonsense"}}, "custom_params: armlet must be 'on', 'off', a strength"),
        ({"custom_params": {"armlett": "loud"}}, "did you mean 'armlet'"),
        ({"beam_width": 2}, "beam_width"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_and_the_engine_goes_on(sgl, params, reason):
    with pytest.raises(ValueError, match=reason):
        sgl.generate(input_ids=PROMPTS[0], sampling_params={"max_new_tokens": 2, **params})
    assert len(greedy(sgl, PROMPTS[:1], 2)) == 1
