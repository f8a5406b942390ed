r"""Answers of several parts: lists, sets, points and intervals.

Brackets and commas inside other brackets or inside an environment such as pmatrix do not separate.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

TOKEN = re.compile(
    r"\\begin\s*\{\w+\*?\}|\\end\s*\{\w+\*?\}|\\[{}]|[\[\](){}]|\\(?:le|ge|ne|in|equiv)(?![a-zA-Z])"
    r"|\\[a-zA-Z]+|,|;|&|\b(?:and|or)\b|[=:<>]"
)
OPENING_BRACKETS, CLOSING_BRACKETS = ("(", "[", "{", r"\{", r"\begin"), (")", "]", "}", r"\}", r"\end")
SEPARATORS = frozenset({",", ";", "&", "and", "or"})


@dataclass(frozen=True)
class Collection:
    """Several parts.

    Attributes:
        brackets: "()", "[]", "[)" or "(]" if the order of the parts counts; "" for lists and sets.
        parts: the parts in plain notation.
    """

    brackets: str
    parts: tuple[str, ...]


def tokens(text: str) -> Iterator[tuple[re.Match[str], int]]:
    """The brackets, separators and relations of a formula, each with the number of brackets around it."""
    depth = 0
    for match in TOKEN.finditer(text):
        token = match[0]
        depth -= token.startswith(CLOSING_BRACKETS)
        yield match, depth
        depth += token.startswith(OPENING_BRACKETS)


def split_top(text: str, separators: frozenset[str]) -> list[str]:
    """The text split at separators outside all brackets."""
    parts, start = [], 0
    for match, depth in tokens(text):
        if depth == 0 and match[0] in separators:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()]


def collection(text: str) -> Collection | None:
    r"""The list, set, point or interval that a plain answer states; None if it is a single value."""
    inner = re.fullmatch(r"(\\\{|[(\[])(.*)(\\\}|[)\]])", text, re.DOTALL)
    if inner and _encloses_all(text):
        parts = _list_parts(inner[2])
        if inner[1] == r"\{" and inner[3] == r"\}":
            return None if re.search(r"\\mid|[:|]", inner[2]) else Collection("", parts)
        return Collection(inner[1] + inner[3], parts) if len(parts) > 1 else None
    parts = _list_parts(text)
    return Collection("", parts) if len(parts) > 1 else None


def _encloses_all(text: str) -> bool:
    """Whether the first bracket is closed by the last one."""
    closed = (match.end() for match, depth in tokens(text) if depth == 0 and match[0].startswith(CLOSING_BRACKETS))
    return next(closed, 0) == len(text)


def _list_parts(text: str) -> tuple[str, ...]:
    r"""The parts of a list without empty ones; `a \pm b` is two parts."""
    parts = [part for part in split_top(text, SEPARATORS) if part]
    return tuple(signed for part in parts for signed in _both_signs(part))


def _both_signs(part: str) -> list[str]:
    if r"\pm" not in re.sub(r"\\pmod|\\begin\{pm", "", part):
        return [part]
    pattern = r"\\(pm|mp)(?![a-zA-Z])"
    plus, minus = (
        re.sub(pattern, lambda sign, first=first: first if sign[1] == "pm" else {"+": "-", "-": "+"}[first], part)
        for first in "+-"
    )
    return [re.sub(r"(^|[=(]\s*)\+", r"\1", plus), minus]


def same_parts(answer: Collection, gold: Collection, same: Callable[[str, str], bool]) -> bool:
    """Whether two collections have the same parts, in the same order where it counts."""
    if answer.brackets != gold.brackets or len(answer.parts) != len(gold.parts):
        return False
    if gold.brackets:
        return all(map(same, answer.parts, gold.parts))
    rest = list(gold.parts)
    for part in answer.parts:  # equality is transitive, so the first match can be used
        match = next((other for other in rest if same(part, other)), None)
        if match is None:
            return False
        rest.remove(match)
    return True
