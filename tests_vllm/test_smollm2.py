"""The real model: 8 prompts × 48 tokens, greedy, float32."""

import pytest

from armlet import Inward, Outward, Transport, attach
from armlet.layer.pretrained import load
from engines import engine, greedy, hugging_face, tokens_of

TEXTS = [
    "The capital of France is",
    "Once upon a time",
    "def fibonacci(n):",
    "Water boils at",
    "Two plus two is",
    "The moon",
    "Dear Sir,",
    "In 1969",
]


@pytest.fixture(scope="module")
def loaded(smollm2_folder):
    model, tokenizer = load(str(smollm2_folder), dtype="float32")
    prompts = [tokenizer(text)["input_ids"] for text in TEXTS]
    return model, prompts, hugging_face(model, prompts, 48)


@pytest.mark.parametrize("policy", [Outward(), Inward(), Transport()], ids=lambda policy: policy.name)
def test_every_token_is_that_of_hugging_face(smollm2_folder, loaded, policy):
    model, prompts, baseline = loaded
    with attach(model, policy):
        treated = hugging_face(model, prompts, 48)
    with engine(smollm2_folder, {"policy": policy.name}) as llm:
        assert tokens_of(greedy(llm, prompts, 48)) == treated
        assert tokens_of(greedy(llm, prompts, 48, {"armlet": "off"})) == baseline
        half = [{"armlet": "off"}, None] * 4
        mixed = [(baseline, treated)[at % 2][at] for at in range(8)]
        assert tokens_of(greedy(llm, prompts, 48, half)) == mixed
    assert treated != baseline
