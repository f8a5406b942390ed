"""Prompts: built-in reasoning questions, prompts from a file, and their tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from armlet.presentation.arguments import text_list
from armlet.prompts.beginnings import encode_beginning
from armlet.prompts.chat import chat_turns
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUILT_IN = (
    "A baker fills 7 trays with 12 rolls each and sells 59 of them. How many rolls are left?",
    "If 4x - 9 = 27, what is x? Explain each step.",
    "A train covers 60 km in 45 minutes. What is its average speed in km/h?",
    "All poets are readers and some readers are sailors. Does it follow that some poets are sailors?",
    "What is the smallest number that leaves the remainder 2 when divided by 3, by 4 and by 5?",
    "Anna is older than Ben, and Carl is younger than Ben but older than Dora. Who is the second oldest?",
    "A rectangle has an area of 96 and a side of 8. What are its perimeter and its diagonal?",
    "In how many ways can five people sit in a row if two of them insist on sitting together?",
)
"""The prompts of `armlet inspect` when none is given."""

FORMULAS = (
    "Solve 3 * (x + 4) = 2 * x + 19, and then check the result.",
    "If a + b = 12 and a - b = 4, then what are a and b?",
    "What is 18 / 3 + 7 * 2 - 5, and why is it not 2 * 18?",
    "Because 15 < x and x < 20, while x is prime, x may be two numbers. Which are they?",
)
"""Questions with operators and conjunctions that `armlet explain` adds to `BUILT_IN`."""


def read_prompts(file: Path) -> list[str]:
    """Reads prompts, one on each non-empty line of a UTF-8 text file with or without a byte order mark.

    Raises ArgumentError if the file cannot be read, is not UTF-8 or contains no prompt.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ArgumentError(f"prompts: {file} cannot be read ({reason})") from error
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise ArgumentError(f"prompts: {file} contains no prompt; write one on each line")
    return prompts


def prompt_texts(prompt: str | Sequence[str], default: Sequence[str]) -> list[str]:
    """One or several prompts as a list; the default if there is none. Raises ArgumentError if one is no text."""
    return text_list("prompt", prompt) or [*default]


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> Tensor:
    """Token ids `[1, seq]` of a prompt: a user turn in the tokenizer's chat template, or plain text without one.

    Raises ArgumentError if the prompt is empty or has no tokens, or the chat template cannot be used.
    """
    if not prompt:
        raise ArgumentError("prompt: it is empty; write a question")  # a template would add tokens to it
    if tokenizer.chat_template is None:
        ids, _ = encode_beginning(tokenizer, prompt)
    else:
        try:
            encoded: Any = tokenizer.apply_chat_template(
                chat_turns(tokenizer, [("user", prompt)]), add_generation_prompt=True, return_dict=True
            )
        except Exception as error:  # a template is a program from the checkpoint, and may raise anything
            reason = f"{type(error).__name__}: {error}"
            raise ArgumentError(f"prompts: the chat template cannot be used ({reason})") from error
        ids = encoded["input_ids"]
    if not ids:
        raise ArgumentError(f"prompts: {prompt!r} has no tokens")
    return torch.tensor([ids])
