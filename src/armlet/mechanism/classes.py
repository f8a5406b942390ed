"""Classifies tokens as digits, operators, conjunctions or other (the paper's Section 6, Figure 7)."""

from collections.abc import Sequence

CLASSES = ("digits", "operators", "conjunctions", "other")
OPERATORS = frozenset("+-−*/=<>^×·÷±≤≥≠≈√∑%") | {"<=", ">=", "==", "!=", "**", "+=", "->"}

CONJUNCTIONS = frozenset(
    """
    and or nor but yet so for if then else because since although though while whereas unless until when whenever
    where wherever whether that than as after before once therefore thus hence however moreover otherwise
    """.split()  # noqa: SIM905 - a list of words is easier to read than a list of quotes
)
"""English conjunctions, and adverbs that join sentences. The paper does not list the conjunctions that it used."""


def classify(words: Sequence[str]) -> list[str]:
    """The class of each token by its text; "other" for a piece of a word or a hyphen or slash inside one ("km/h")."""
    padded = ["", *words, ""]
    return [_class_of(*padded[index : index + 3]) for index in range(len(words))]


def _class_of(previous: str, word: str, following: str) -> str:
    text = word.strip()
    if text.isdecimal():
        return "digits"
    joined_left = word[:1] == text[:1] and previous[-1:].isalpha()
    joined_right = following[:1].isalpha()
    if text in OPERATORS:
        inside = text in ("-", "/") and joined_left and joined_right and len(previous.strip()) > 1  # but not "x-y"
        return "other" if inside else "operators"
    return "conjunctions" if text.lower() in CONJUNCTIONS and not (joined_left or joined_right) else "other"
