"""The turns of a conversation, in the form that a model's chat template reads."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turns = list[dict[str, Any]]

MARK = "\ue002"  # from the private use area, which no template uses


def chat_turns(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[tuple[str, str]]) -> Turns:
    """The turns of these roles and texts, for `apply_chat_template`.

    A content is a text, or a list with it where the template reads only lists, as those of some image-text models do:
    these write nothing for a text, or raise an error.
    """
    marks = [(role, MARK) for role, _ in texts]
    lists = not _writes(tokenizer, _plain_turns(marks)) and _writes(tokenizer, _list_turns(marks))
    return _list_turns(texts) if lists else _plain_turns(texts)


def _plain_turns(texts: Sequence[tuple[str, str]]) -> Turns:
    return [{"role": role, "content": text} for role, text in texts]


def _list_turns(texts: Sequence[tuple[str, str]]) -> Turns:
    return [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in texts]


def _writes(tokenizer: "PreTrainedTokenizerBase", turns: Turns) -> bool:
    """Whether the template writes the mark in each turn, not a list as Python shows it."""
    try:
        written = str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
    except Exception:  # a template is a program from the checkpoint, and may raise anything
        return False
    return written.count(MARK) >= len(turns) and f"'{MARK}'" not in written
