"""Generates the answers to one prompt without ARM and with it."""

from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, cast

import torch

from armlet.answers.records import Answer, Parts, first_difference
from armlet.answers.result import Answers
from armlet.attachment.config import AttachArguments
from armlet.attachment.handle import Attachment
from armlet.attachment.sites import ALL_EXPERTS, GATE
from armlet.checkpoints.given import NamedModel, check_tokens, known_tokens
from armlet.presentation.interruption import keep_partial, until_interrupted
from armlet.presentation.progress import Tick
from armlet.prompts.generation import Decoding, TokenStream, checkpoint_filters, generate_tokens, padding_token
from armlet.prompts.questions import encode_prompt
from armlet.redistribution.policies import detail

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def answer_twice(
    opened: NamedModel, attachment: Attachment, prompt: str, decoding: Decoding, tick: Tick = lambda _=1, /: None
) -> Answers:
    """Answers a prompt by `answer`, first with ARM (`attachment`) paused, then with it active.

    Raises ConfigError, before generating, if the noise is a tensor or has a generator, which a file cannot store.
    """
    armlet = attachment.content()
    with attachment.paused():
        baseline = answer(opened, prompt, decoding, tick)
    treated = None if baseline.interrupted else answer(opened, prompt, decoding, tick, is_second=True)
    index = first_difference(baseline, treated)
    tokenizer = opened.tokenizer
    parts = split_at(tokenizer, baseline, index), split_at(tokenizer, treated, index) if treated else ("", "", "")
    interrupted = treated is None or treated.interrupted
    about = (opened.name, prompt, armlet, describe_treatment(attachment), attachment.report())
    return Answers(*about, baseline, treated, *parts, interrupted)


def answer(
    opened: NamedModel,
    prompt: str,
    decoding: Decoding,
    tick: Tick = lambda _=1, /: None,
    *,
    is_second: bool = False,
) -> Answer:
    """Generates one answer to a user's turn, with the checkpoint's own sampling filters (top_k, ...).

    Answers with the same seed are sampled from the same random numbers. `tick` is called after each token. After Ctrl-C
    returns the tokens so far; raises KeyboardInterrupt if there are none, unless `is_second`, as the first answer is
    worth keeping.
    """
    model, tokenizer = opened.model, opened.tokenizer
    ids, decoding = encode_prompt(tokenizer, prompt), replace(decoding, filters=checkpoint_filters(model))
    known = known_tokens(model)
    check_tokens(tokenizer, ids[0].tolist(), known, "prompt")
    stream, padding = TokenStream(tick), padding_token(tokenizer, known)
    with until_interrupted() as interruption:
        generate_tokens(model, ids, torch.ones_like(ids), decoding, padding=padding, stream=stream)
    interrupted = keep_partial(interruption, is_second or stream.tokens)
    return Answer(stream.tokens, str(tokenizer.decode(stream.tokens, skip_special_tokens=True)), interrupted)


def split_at(tokenizer: "PreTrainedTokenizerBase", answer: Answer, index: int | None) -> Parts:
    """Splits the text into before the token at `index`, the token, and the rest; with None, all of it is before."""
    if index is None:
        return answer.text, "", ""
    start, end = (_characters(tokenizer, answer, count) for count in (index, index + 1))
    return answer.text[:start], answer.text[start:end], answer.text[end:]


def _characters(tokenizer: "PreTrainedTokenizerBase", answer: Answer, count: int) -> int:
    """The number of complete characters that the first `count` tokens produce."""
    decoded = str(tokenizer.decode(answer.tokens[:count], skip_special_tokens=True))
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(decoded, answer.text, strict=False))))


def describe_treatment(attachment: Attachment) -> str:
    """Each policy with its main settings, and where it is attached."""
    return "; ".join(_describe(placement) for placement in attachment.placements)


def _describe(placement: AttachArguments) -> str:
    policy, layers = placement["policy"], [*cast("list[int]", placement["layers"])]  # an attachment knows its layers
    names = f"layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}"
    if len(layers) > 2 and layers == list(range(layers[0], layers[-1] + 1)):
        names = f"layers {layers[0]}-{layers[-1]}"
    site, experts = placement.get("site", GATE), placement.get("experts", ALL_EXPERTS)
    site = "" if site == GATE else f", {site}"
    experts = "" if experts == ALL_EXPERTS else f", {experts} experts"
    return f"{type(policy).__name__}, {detail(policy)}, {names}{site}{experts}"
