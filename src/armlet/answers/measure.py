"""Generates the answers to one prompt without ARM and with it."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from armlet.answers.result import Answer, Answers
from armlet.attachment.attach import Attachment
from armlet.presentation.interruption import until_interrupted
from armlet.prompts.generation import Decoding, TokenStream, checkpoint_filters, generate_tokens, padding_token
from armlet.prompts.questions import encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def answer_twice(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    attachment: Attachment,
    prompt: str,
    decoding: Decoding,
    tick: Callable[[], None] = lambda: None,
) -> Answers:
    """Answers a prompt by `answer`, first with ARM (`attachment`) paused, then with it active."""
    with attachment.paused():
        baseline = answer(model, tokenizer, prompt, decoding, tick)
    treated = None if baseline.interrupted else answer(model, tokenizer, prompt, decoding, tick)
    return Answers(baseline, treated, attachment.report())


def answer(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompt: str,
    decoding: Decoding,
    tick: Callable[[], None] = lambda: None,
) -> Answer:
    """Generates one answer to a user's turn, with the checkpoint's own sampling filters (top_k, ...).

    Answers with the same seed are sampled from the same random numbers. `tick` is called after each token.
    """
    ids, decoding = encode_prompt(tokenizer, prompt), replace(decoding, filters=checkpoint_filters(model))
    stream = TokenStream(tick)
    with until_interrupted() as interruption:
        generate_tokens(model, ids, torch.ones_like(ids), decoding, padding=padding_token(tokenizer), stream=stream)
    text = str(tokenizer.decode(stream.tokens, skip_special_tokens=True))
    return Answer(stream.tokens, text, interruption.happened)
