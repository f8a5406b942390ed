"""The real model: 8 prompts × 48 tokens and two in reserve for near ties, greedy, float32."""

import pytest

from armlet import Inward, Outward, Transport, attach
from armlet.layer.pretrained import load
from engines import engine, equal_up_to_ties, greedy, hugging_face, leads, tokens_of

TEXTS = [
    "The capital of France is",
    "Once upon a time",
    "The recipe calls for",
    "Two plus two is",
    "import numpy as np",
    "She opened the door",
    "def fibonacci(n):",
    "In 1969",
    "Water boils at",
    "Dear Sir,",
]
AT_LEAST = 8


@pytest.fixture(scope="module")
def loaded(smollm2_folder):
    model, tokenizer = load(str(smollm2_folder), dtype="float32")
    prompts = [tokenizer(text)["input_ids"] for text in TEXTS]
    return model, prompts, *answered(model, prompts)


def answered(model, prompts):
    """Greedy answers, and how narrowly each token was chosen."""
    answers = hugging_face(model, prompts, 48)
    return answers, leads(model, prompts, answers)


def alternating(first, second):
    return [(first, second)[at % 2][at] for at in range(len(first))]


@pytest.mark.parametrize("policy", [Outward(), Inward(), Transport()], ids=lambda policy: policy.name)
def test_every_token_is_that_of_hugging_face(smollm2_folder, loaded, policy):
    model, prompts, baseline, margins = loaded
    with attach(model, policy):
        treated, treated_margins = answered(model, prompts)
    off = {"armlet": "off"}
    with engine(smollm2_folder, {"policy": policy.name}) as llm:
        on = tokens_of(greedy(llm, prompts, 48))
        without = tokens_of(greedy(llm, prompts, 48, off))
        mixed = tokens_of(greedy(llm, prompts, 48, alternating([off] * len(prompts), [None] * len(prompts))))
    assert equal_up_to_ties(on, treated, treated_margins) >= AT_LEAST
    assert equal_up_to_ties(without, baseline, margins) >= AT_LEAST
    wanted, narrow = alternating(baseline, treated), alternating(margins, treated_margins)
    assert equal_up_to_ties(mixed, wanted, narrow) >= AT_LEAST
    assert treated != baseline
