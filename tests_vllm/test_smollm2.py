"""The real model: 8 prompts × 48 tokens and two in reserve for near ties, greedy, float32."""

import pytest

from armlet import Inward, Outward, Transport, attach
from armlet.checkpoints.pretrained import load
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


@pytest.mark.parametrize("policy", [Outward(), Inward(), Transport()], ids=lambda policy: policy.name)
def test_every_token_is_that_of_hugging_face(smollm2_folder, loaded, policy):
    model, prompts, baseline, margins = loaded
    with attach(model, policy):
        treated, treated_margins = answered(model, prompts)
    assert treated != baseline
    asked = [None] * len(prompts) + [{"armlet": "off"}] * len(prompts)
    with engine(smollm2_folder, {"policy": policy.name}) as llm:
        answers = tokens_of(greedy(llm, prompts * 2, 48, asked))
    assert equal_up_to_ties(answers[: len(prompts)], treated, treated_margins) >= AT_LEAST
    assert equal_up_to_ties(answers[len(prompts) :], baseline, margins) >= AT_LEAST
