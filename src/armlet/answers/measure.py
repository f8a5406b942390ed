"""Generate the answers to one prompt without ARM and with it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from armlet.answers.result import Answer, Answers
from armlet.attachment.attach import Attachment
from armlet.prompts.generation import Decoding, TokenStream, checkpoint_filters, generate_tokens, padding_token
from armlet.prompts.questions import encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def answer_twice(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    attachment: Attachment,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> Answers:
    """Answers a prompt with ARM paused, and then with it.

    Args:
        model: with ARM attached.
        tokenizer: the model's.
        attachment: what `attach` returned for this model.
        prompt: as in `answer`.
        max_new_tokens: of each answer.
        temperature: as in `answer`.
        seed: as in `answer`.
        tick: called after each token.
    """

    def ask() -> Answer:
        return answer(
            model, tokenizer, prompt, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, tick=tick
        )

    with attachment.paused():
        baseline = ask()
    treated = None if baseline.interrupted else ask()
    return Answers(baseline, treated, attachment.report())


def answer(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> Answer:
    """Generates one answer: greedy at temperature 0, else sampled with the checkpoint's own filters (top_k, ...).

    Two answers with one seed are sampled from the same random numbers.

    Args:
        model: with or without ARM.
        tokenizer: the model's.
        prompt: the user's turn of the chat template, where there is one.
        max_new_tokens: most tokens of the answer.
        temperature: of sampling; below `COLDEST_SAMPLED` the answer is greedy.
        seed: of sampling.
        tick: called after each token.
    """
    ids = encode_prompt(tokenizer, prompt)
    decoding = Decoding(max_new_tokens, temperature, checkpoint_filters(model), seed)
    stream, interrupted = TokenStream(tick), False
    try:
        generate_tokens(model, ids, torch.ones_like(ids), decoding, padding=padding_token(tokenizer), stream=stream)
    except KeyboardInterrupt:
        interrupted = True
    text = str(tokenizer.decode(stream.tokens, skip_special_tokens=True))
    return Answer(stream.tokens, text, interrupted)
