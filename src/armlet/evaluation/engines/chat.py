"""An item as a chat completion: its messages with a filler among them, its seed, and the answer that comes back."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from armlet.evaluation.conditions.conditions import Condition, Filling
from armlet.evaluation.engines.engine import Ask, Output, Sampling, printable
from armlet.prompts.fillers import RANDOM_SENTENCE, Filler, sentences

ARM = "armlet"
"""The key of a request's extra arguments that vLLM with armlet reads."""

REFUSAL = f"{ARM} must be 'on', 'off'"
"""What it says to a value that means nothing."""


def request(
    model: str, ask: Ask, condition: Condition, sampling: Sampling, *, filler_seed: int, batch: int, sample: int
) -> dict[str, Any]:
    """The arguments of a chat completion."""
    found: dict[str, Any] = {
        "model": model,
        "messages": messages(ask, condition.filling, filler_seed),
        "temperature": condition.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens,
        "seed": item_seed(sampling.seed, batch, sample, ask.number),
    }
    return found | ({"logprobs": True} if condition.role == "best-of" else {})


def switch(to: str) -> dict[str, Any]:
    """What turns ARM "on" or "off" in one request to vLLM; without the checkpoint's own penalty and filters."""
    plain = {"repetition_penalty": 1.0, "top_k": 0, "min_p": 0.0}
    return {"extra_body": {"vllm_xargs": {ARM: to}, **plain}}


def messages(ask: Ask, filling: Filling | None, seed: int) -> list[dict[str, str]]:
    """System prompt, left out where it is empty, and question; a space parts a filler from them."""
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
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": user}]


def filler_text(filler: Filler, seed: int, number: int) -> str:
    """The kind's text `count` times, or `count` words of random sentences of the item's own."""
    if filler.kind == RANDOM_SENTENCE:
        return " ".join(sentences(filler.count, seed, number).split()[: filler.count])
    return filler.kind * filler.count


def inserted(text: str, filler: str, seed: Sequence[int]) -> str:
    """A filler before one of the text's words, or behind the last one."""
    places = [found.start() for found in re.finditer(r"\S+", text)]
    at = int(np.random.default_rng(list(seed)).integers(0, len(places) + 1))
    return f"{text} {filler}" if at == len(places) else f"{text[: places[at]]}{filler} {text[places[at] :]}"


def item_seed(seed: int, batch: int, sample: int, number: int) -> int:
    """The seed of one request, the same for all conditions; 31 bits, which every server takes."""
    digest = hashlib.sha256(f"{seed}/{batch}/{sample}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % 2**31


def read(completion: Any) -> Output:
    """The answer in a chat completion; the mean log-probability is of the tokens that the server gives one for."""
    error = getattr(completion, "error", None)  # some servers answer 200 with it
    if error:
        raise ValueError(f"error: {error}")
    choice, usage = completion.choices[0], getattr(completion, "usage", None)
    given = getattr(getattr(choice, "logprobs", None), "content", None) or []
    mean = sum(float(token.logprob) for token in given) / len(given) if given else None
    tokens = usage.completion_tokens if usage else None
    return Output(printable(choice.message.content or ""), tokens, choice.finish_reason == "stop", mean)
