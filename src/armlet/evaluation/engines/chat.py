"""An item as a chat completion: its messages with a filler, its seed, and the answer in the response."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from armlet.evaluation.conditions.conditions import Filling
from armlet.evaluation.engines.engine import Ask, Output, printable
from armlet.prompts.fillers import RANDOM_SENTENCE, Filler, sentences

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

SWITCH_KEY = "armlet"  # which vLLM with armlet reads in a request's extra arguments
SWITCH_REFUSAL = f"{SWITCH_KEY} must be 'on', 'off'"  # the beginning of its error for any other value


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
    """The extra body that turns ARM "on" or "off" in one request, without the checkpoint's own penalty and filters."""
    return {"vllm_xargs": {SWITCH_KEY: value}, "repetition_penalty": 1.0, "top_k": 0, "min_p": 0.0}


def messages(ask: Ask, filling: Filling | None, seed: int) -> "list[ChatCompletionMessageParam]":
    """System prompt, left out where it is empty, and question; a space separates a filler from them."""
    system, user = ask.system, ask.problem.question
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
    question: ChatCompletionMessageParam = {"role": "user", "content": user}
    return [{"role": "system", "content": system}, question] if system else [question]


def filler_text(filler: Filler, seed: int, number: int) -> str:
    """The kind's text `count` times, or `count` words of random sentences, which differ by item."""
    if filler.kind == RANDOM_SENTENCE:
        return " ".join(sentences(filler.count, seed, number).split()[: filler.count])
    return filler.kind * filler.count


def inserted(text: str, filler: str, seed: Sequence[int]) -> str:
    """The text with a filler before a random one of its words, or after the last one."""
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    index = int(np.random.default_rng(list(seed)).integers(0, len(starts) + 1))
    at = [*starts, len(text)][index]
    return f"{text} {filler}" if index == len(starts) else f"{text[:at]}{filler} {text[at:]}"


def read_completion(completion: "ChatCompletion") -> Output:
    """The answer in a chat completion; the mean log-probability is over the tokens that the server gives one for.

    Raises:
        ValueError: an error in place of an answer, which some servers send with status 200.
        LookupError, TypeError, AttributeError: not a chat completion.
    """
    if error := getattr(completion, "error", None):
        raise ValueError(f"error: {error}")
    choice, usage = completion.choices[0], completion.usage
    tokens = choice.logprobs.content if choice.logprobs else None
    mean = sum(token.logprob for token in tokens) / len(tokens) if tokens else None
    count = usage.completion_tokens if usage else None
    return Output(printable(choice.message.content or ""), count, choice.finish_reason == "stop", mean)
