"""The turns of a conversation, in the form that a model's chat template reads."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turns = list[dict[str, Any]]

MARK = "\ue002"  # from the private use area, which no template uses
CLOCK_FUNCTION = "strftime_now"  # the function by which a chat template asks for the time; there is no other
TODAY = f"{{{{ {CLOCK_FUNCTION}('%Y-%m-%d') }}}}"
DIRECTIVES = "aAbBcdDeFfGhHIjmMpRSTuUVwWxXyYzZ"  # the letters that `strftime` replaces after a percent sign
STOPPED_CLOCK = f"""{{%- macro {CLOCK_FUNCTION}(format) -%}}{{%- set written = namespace(text=format) -%}}
{{%- for directive, value in armlet_clock.items() -%}}
{{%- set written.text = written.text.replace(directive, value) -%}}
{{%- endfor -%}}{{{{ written.text }}}}{{%- endmacro %}}
"""  # jinja drops this line's end, so that a template still begins a line
"""Begins a template whose clock is stopped: transformers passes only plain values to templates, and no functions."""


def chat_turns(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[tuple[str, str]]) -> Turns:
    """The turns of these roles and texts, for `apply_chat_template`.

    A content is a text, or a list with it where the template reads only lists, as those of some image-text models do:
    these write nothing for a text, or raise an error.
    """
    marks = [(role, MARK) for role, _ in texts]
    lists = not _writes(tokenizer, _plain_turns(marks)) and _writes(tokenizer, _list_turns(marks))
    return _list_turns(texts) if lists else _plain_turns(texts)


def template_date(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """The date that the chat template would see now, such as "2026-11-29"; None if it does not ask for the time."""
    if CLOCK_FUNCTION not in str(tokenizer.chat_template):
        return None
    return str(tokenizer.apply_chat_template(_plain_turns([("user", "")]), chat_template=TODAY, tokenize=False))


def templated(tokenizer: "PreTrainedTokenizerBase", turns: Turns, date: str | None) -> str:
    """The text of the turns in the chat template, up to where the answer begins.

    A template that asks for the time gets the midnight before `date`, so that a text does not depend on when it is
    written; the time as it is if `date` is None.
    """
    if date is None:
        return str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
    codes = [f"%{flag}{letter}" for flag in ("", "-") for letter in DIRECTIVES]
    clock = {code: datetime.fromisoformat(date).strftime(code) for code in codes} | {"%%": "%"}
    stopped: Any = {"chat_template": STOPPED_CLOCK + tokenizer.get_chat_template(), "armlet_clock": clock}
    return str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False, **stopped))


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
