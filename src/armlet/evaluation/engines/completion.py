"""Reads the answer in a server's chat completion, or the error that a server sends instead; servers differ in both."""

import html
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from armlet.evaluation.engines.engine import Output, printable

ENDED = frozenset({"stop", "eos", "eos_token", "end_id", "end_turn", "stop_sequence", "stop_words", "complete"})
"""Finish reasons of answers that the model ended, in lower case: OpenAI, vLLM, SGLang, llama.cpp, Ollama, LM Studio,
OpenRouter and Mistral send stop, Gemini STOP, TGI eos_token and stop_sequence, Anthropic end_turn, Cohere COMPLETE,
TensorRT-LLM END_ID and STOP_WORDS."""

CUT_OFF = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"})
"""Finish reasons of answers that are cut off: most servers send length, Gemini and Anthropic max_tokens, Mistral
model_length."""

GAVE_UP = frozenset({"abort", "cancelled", "error", "insufficient_system_resource", "timed_out", "timeout", "unload"})
"""Finish reasons of answers that the server could not finish."""

PAGE = re.compile(r"<(style|script)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)


def read_completion(completion: Any) -> Output:
    """The answer in a response of `client.chat.completions.create`, which the client does not check.

    Raises ValueError, with the reason, if it is not a chat completion, or the server failed to finish it.
    """
    if isinstance(completion, str):
        raise ValueError(describe_body(completion))
    choices = getattr(completion, "choices", None)
    if not isinstance(choices, list) or not choices:
        extra = getattr(completion, "model_extra", None) or {}
        message = describe_error({key: extra[key] for key in ("error", "message", "detail") if extra.get(key)})
        raise ValueError(f"it sent {'no answer' if message == '{}' else f'an error: {message}'}")
    choice, usage = choices[0], getattr(completion, "usage", None)
    if getattr(choice, "message", None) is None:
        raise ValueError("its answer has no message, as if it were not a chat completion")
    return Output(
        text=printable(_message_text(choice.message)),
        tokens=getattr(usage, "completion_tokens", None),
        ended=_ended(choice.finish_reason),
        logprob=_mean_logprob(choice),
    )


def _ended(reason: object) -> bool | None:
    """Whether the model ended the answer; None for any other reason, such as a filter or a tool call."""
    name = reason.lower() if isinstance(reason, str) else None
    if name in GAVE_UP:
        raise ValueError(f"it did not finish its answer: finish_reason is {reason!r}; run the same again to resume")
    return True if name in ENDED else False if name in CUT_OFF else None


def _mean_logprob(choice: Any) -> float | None:
    """The mean over the tokens; None if the server left one out, or the mean is not finite."""
    tokens = getattr(getattr(choice, "logprobs", None), "content", None) or []
    values = [token.logprob for token in tokens]
    known = values and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    return sum(values) / len(values) if known else None


def _message_text(message: Any) -> str:
    """The text of a message, or of its refusal; without either, its thoughts, as a thought that did not end."""
    text, thoughts = _split_content(message.content)
    fields = [getattr(message, name, None) for name in ("reasoning_content", "reasoning")]
    thoughts = next((field for field in fields if isinstance(field, str) and field), thoughts)
    return text or getattr(message, "refusal", None) or (f"<think>\n{thoughts}" if thoughts else "")


def _split_content(content: object) -> tuple[str, str]:
    """The text and the thoughts in a message's content, which is a text or a list of parts."""
    texts, thoughts = list[str](), list[str]()
    for part in content if isinstance(content, list) else [content or ""]:
        kind = part.get("type") if isinstance(part, Mapping) else "text"
        value = part.get(kind, part.get("text")) if isinstance(part, Mapping) else part
        if kind in ("thinking", "reasoning"):
            thoughts.append("".join(_split_content(value)))
        elif kind in ("text", "output_text", "refusal") and isinstance(value, str):
            texts.append(value)
        else:
            raise ValueError(f"a part of its answer is no text: {json.dumps(part, default=str)}")
    return "".join(texts), "".join(thoughts)


def describe_body(body: str) -> str:
    """A description of a response that is not a JSON object."""
    if not (text := body.strip()):
        return "it sent nothing"
    if text.startswith(("data:", "event:", ": ")):
        return "it streams its answer, which was not requested; turn its streaming off"
    return f"it sent a page: {describe_error(text)}" if text.startswith("<") else f"it sent no JSON object: {text}"


def describe_error(body: object) -> str:
    """The message in the body of an error, with FastAPI's details and their places; the whole body if it has none."""
    if isinstance(body, str):
        return html.unescape(PAGE.sub(" ", body)) if body.lstrip().startswith("<") else body
    if isinstance(body, list) and body:
        return "; ".join(map(describe_error, body))
    if isinstance(body, Mapping):
        texts = [describe_error(body[key]) for key in ("error", "message", "detail", "msg") if body.get(key)]
        place = ".".join(map(str, body["loc"])) if isinstance(body.get("loc"), list) else ""
        if texts:
            return f"{place}: {'; '.join(texts)}" if place else "; ".join(texts)
    return json.dumps(body, ensure_ascii=False, default=str)
