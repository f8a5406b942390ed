"""Answers in words, names of points, and numerals with a base: what is compared by its letters and digits."""

import re

NUMERAL = re.compile(r"(-?[0-9a-zA-Z]+)\s*_\s*\{?\s*(?:base\s+)?(\w+)\s*\}?")
BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"}
NAMED = re.compile(
    r"(\\(?:angle|triangle|overline|vec|overrightarrow|widehat|arc|odot)\b)?\s*\{?\s*([A-Z]{2,}'*)\s*\}?"
)
COMMAND = re.compile(r"\\[a-zA-Z]+")


def has_words(text: str) -> bool:
    """Whether an answer in plain notation contains a word, or is one; letters of a formula and commands are none."""
    return re.search(r"[^\W\d_]{3,}|^(?:no|No|NO)$", re.sub(r"\\[a-zA-Z]+|\{\w*matrix\}", " ", text)) is not None


def same_words(answer: str, gold: str) -> bool | None:
    """Words by their letters, in any case; names of points in theirs. A formula is no word."""
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
    """Numbers with a base, which may be left out, but not be another. math-verify would ignore it."""
    numerals = [NUMERAL.fullmatch(text) for text in (answer, gold)]
    if not any(numerals) or not all(re.search(r"\d", text) for text in (answer, gold)):
        return None
    digits = {numeral[1] if numeral else text for numeral, text in zip(numerals, (answer, gold), strict=True)}
    return len(digits) == 1 and len({BASES.get(numeral[2], numeral[2]) for numeral in numerals if numeral}) == 1
