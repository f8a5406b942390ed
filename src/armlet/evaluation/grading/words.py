"""Answers in words, names of points, and numerals with a base, which are compared by their letters and digits."""

import re

NUMERAL = re.compile(r"(-?[0-9a-zA-Z]+)\s*_\s*\{?\s*(?:base\s+)?(\w+)\s*\}?")
BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"}
NAMED = re.compile(
    r"(\\(?:angle|triangle|overline|vec|overrightarrow|widehat|arc|odot)\b)?\s*\{?\s*([A-Z]{2,}'*)\s*\}?"
)
COMMAND = re.compile(r"\\[a-zA-Z]+")


def has_words(text: str) -> bool:
    """Whether an answer in plain notation contains a word; letters of a formula and commands are not words."""
    return re.search(r"[^\W\d_]{3,}|^(?:no|No|NO)$", re.sub(r"\\[a-zA-Z]+|\{\w*matrix\}", " ", text)) is not None


def same_words(answer: str, gold: str) -> bool | None:
    """Compares words without their case, and names of points with it; None for a formula."""
    names = [NAMED.fullmatch(text) for text in (answer, gold)]
    if names[0] and names[1]:
        return names[0][2] == names[1][2] and (not names[0][1] or not names[1][1] or names[0][1] == names[1][1])
    if not any(map(has_words, (answer, gold))) and not any(names):
        return None
    return _bare(answer) == _bare(gold)


def _bare(text: str) -> str:
    """The words, in lower case, without articles, commands, punctuation and the plural of the last one."""
    words = re.sub(r"[^\w+-]+", " ", COMMAND.sub(" ", text)).casefold().split()
    return " ".join(word for word in words if word not in ("the", "a", "an", "there", "is", "are")).removesuffix("s")


def same_numerals(answer: str, gold: str) -> bool | None:
    """Compares numbers with a base, which one of them may leave out. math-verify would ignore the base."""
    numerals = [NUMERAL.fullmatch(text) for text in (answer, gold)]
    if not any(numerals) or not all(re.search(r"\d", text) for text in (answer, gold)):
        return None
    digits = {numeral[1] if numeral else text for numeral, text in zip(numerals, (answer, gold), strict=True)}
    return len(digits) == 1 and len({BASES.get(numeral[2], numeral[2]) for numeral in numerals if numeral}) == 1
