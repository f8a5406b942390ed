"""One answer, and where two answers differ."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """Token ids with the end token, the text without special tokens, and whether Ctrl-C interrupted the answer."""

    tokens: list[int]
    text: str
    interrupted: bool


Parts = tuple[str, str, str]
"""An answer's text before the first different token, that token's text, and the rest."""


def first_difference(baseline: Answer, treated: Answer | None) -> int | None:
    """The index of the first token that differs; None if none does, or if there is only one answer."""
    if treated is None or baseline.tokens == treated.tokens:
        return None
    pairs = list(zip(baseline.tokens, treated.tokens, strict=False))
    # If one answer is a prefix of the other, they differ at its end, unless Ctrl-C ended it.
    end = None if baseline.interrupted or treated.interrupted else len(pairs)
    return next((index for index, (first, second) in enumerate(pairs) if first != second), end)
