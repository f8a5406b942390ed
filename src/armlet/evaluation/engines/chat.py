"""Converts an item to the messages of a chat completion, with its filler, and reads the answer in the response."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from armlet.evaluation.conditions.conditions import Filling
from armlet.evaluation.engines.engine import Ask, Output, printable
from armlet.prompts.fillers import RANDOM_SENTENCE, Filler, sentences
from armlet.prompts.shots import in_template

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

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


def read_completion(completion: "ChatCompletion") -> Output:
    """The answer in a chat completion, with the mean over the log-probabilities that the server returned.

    Raises:
        ValueError: the server sent an error in place of an answer, which some do with status 200.
        LookupError, TypeError, AttributeError: the response is not a chat completion.
    """
    if error := getattr(completion, "error", None):
        raise ValueError(f"error: {error}")
    choice, usage = completion.choices[0], completion.usage
    tokens = choice.logprobs.content if choice.logprobs else None
    mean = sum(token.logprob for token in tokens) / len(tokens) if tokens else None
    count = usage.completion_tokens if usage else None
    return Output(printable(choice.message.content or ""), count, choice.finish_reason == "stop", mean)
