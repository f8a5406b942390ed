"""Converts an item to the request for a chat completion, with its filler."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from armlet.evaluation.conditions.conditions import Filling
from armlet.evaluation.engines.engine import Ask
from armlet.prompts.fillers import RANDOM_SENTENCE, Filler, answer_cue, sentences
from armlet.prompts.shots import in_template

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

SWITCH_KEY = "armlet"  # the key in a request's extra arguments that vLLM with armlet reads
SWITCH_REFUSAL = f"{SWITCH_KEY} must be 'on', 'off'"  # the beginning of that server's error for any other value


class ChatRequest(TypedDict, total=False):
    """The keyword arguments of `client.chat.completions.create`."""

    model: str
    messages: "list[ChatCompletionMessageParam]"
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    logprobs: bool
    extra_body: dict[str, object]


def switch(value: str) -> dict[str, object]:
    """The extra body that turns ARM "on" or "off" in one request, and disables the checkpoint's penalty and filters."""
    return {"vllm_xargs": {SWITCH_KEY: value}, "repetition_penalty": 1.0, "top_k": 0, "min_p": 0.0}


def messages(ask: Ask, filling: Filling | None, seed: int) -> "list[ChatCompletionMessageParam]":
    """The system prompt, unless it is empty, examples, and the question; a space separates a filler from them."""
    system, user = ask.system, in_template(ask.form.template, ask.problem.question)
    if filling:
        filler = filler_text(filling.filler, seed, ask.number)
        if filling.position == "before" and system:
            system = f"{filler} {system}"
        elif filling.position == "end":
            user = f"{user} {filler}"
        elif filling.position == "random":
            user = inserted(user, filler, (seed, ask.number))
        elif filling.position == "answer":
            cue = answer_cue(user)
            user = f"{user[:cue]}{filler} {user[cue:]}"
        else:
            user = f"{filler} {user}"
    turns: list[ChatCompletionMessageParam] = [{"role": "system", "content": system}] if system else []
    for example in ask.form.examples:
        turns.append({"role": "user", "content": in_template(ask.form.template, example.question)})
        turns.append({"role": "assistant", "content": example.solution})
    return [*turns, {"role": "user", "content": user}]


def filler_text(filler: Filler, seed: int, number: int) -> str:
    """The filler's text repeated `count` times, or `count` words of random sentences, which differ by item."""
    if filler.kind == RANDOM_SENTENCE:
        return " ".join(sentences(filler.count, seed, number).split()[: filler.count])
    return filler.kind * filler.count


def inserted(text: str, filler: str, seed: Sequence[int]) -> str:
    """Inserts a filler before a random word of the text, or after its last word."""
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    index = int(np.random.default_rng(list(seed)).integers(0, len(starts) + 1))
    start = [*starts, len(text)][index]
    return f"{text} {filler}" if index == len(starts) else f"{text[:start]}{filler} {text[start:]}"
