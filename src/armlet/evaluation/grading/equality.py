"""Equality of two answers, which depends on their kind: choices, lists, equations, quantities, words, or formulas.

Each kind's function gets both answers in plain notation, and returns None if they are not of its kind.
"""

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from armlet.evaluation.grading.formulas import exact_value, same_numbers
from armlet.evaluation.grading.intervals import as_intervals
from armlet.evaluation.grading.lists import Collection, collection, same_parts, split_top
from armlet.evaluation.grading.math_worker import WORKER
from armlet.evaluation.grading.notation import LONGEST, in_plain_notation
from armlet.evaluation.grading.quantities import compound, quantity, same_times, same_units, times
from armlet.evaluation.grading.words import has_words, same_numerals, same_words

CHOICE = re.compile(r"(?:[(\[]([A-Ja-j])[)\]]|([A-Ja-j])\)(?=\s|$)|([A-J])(?:[.:](?=\s|$)|$))\s*(.*)", re.DOTALL)
BARE_LETTER = re.compile("[A-Da-d]")  # a choice in either case; e and i may be numbers
LETTERS = re.compile(r"^\(([A-J](?:\s*,\s*[A-J])+)\)$")  # several choices
RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|in|cup|cap|setminus|mathbb)(?![a-zA-Z])")
INTERVAL = re.compile(r"[(\[]|\\mathbb")
MODULUS = re.compile(r"(.*?)\s*\\pmod\{(\w+)\}", re.DOTALL)
# What an equation may be solved for: a letter with an index, a function's value, a point, a segment, words.
NAME = re.compile(
    r"\|?(?:m\s*)?\\?[a-zA-Z][a-zA-Z]*'*(?:\s*_\s*(?:\{[^{}]*\}|\w))?\|?(?:\s*\{?\s*[A-Z]+\s*\}?)?(?:\s*\([^()=]*\))?"
    r"|[a-zA-Z][a-zA-Z ]*|[a-zA-Z]\^\{-1\}\([a-zA-Z]\)|\\(?:sin|cos|tan)\s*(?:\\[a-z]+|[A-Z])"
    r"|\\frac\{[a-zA-Z]+\}\{[a-zA-Z]+\}|[a-zA-Z]\s*[/:]\s*[a-zA-Z]"
    r"|\\(?:vec|bar|hat|overline)\s*\{?\s*[a-zA-Z]\s*\}?"
)
SOUGHT = re.compile(r"[a-wA-W](?:\s*\+\s*[a-wA-W])+")  # m + n = 17 states a value, but x + y = 5 is a line
CONSTANT = re.compile(r"(?:\\(?:d?frac|sqrt|cdot|times|div|binom|pi|ldots)(?![a-zA-Z])|[\d\s+*/^!(){}.\[\]%$\\-])+")


@lru_cache(maxsize=1 << 16)
def same_answer(answer: str, gold: str) -> bool:
    """Whether an answer equals the gold. The answers x = 0 and 0 are equal."""
    if answer == gold:
        return True
    try:
        return bool(in_plain_notation(answer)) and same_plain(in_plain_notation(answer), in_plain_notation(gold))
    except RecursionError:  # brackets are nested too deeply
        return False


def same_plain(answer: str, gold: str) -> bool:
    """Whether two answers in plain notation are equal, as decided by the first kind that both are of."""
    if answer == gold:
        return True
    if max(len(answer), len(gold)) > LONGEST:
        return False
    verdicts = (same_of_kind(answer, gold) for same_of_kind in KINDS)
    return next((verdict for verdict in verdicts if verdict is not None), False)


def same_choices(answer: str, gold: str) -> bool | None:
    """A letter with or without its value: both letters and both values must agree, as far as they are stated."""
    if BARE_LETTER.fullmatch(answer) and BARE_LETTER.fullmatch(gold):
        return answer.upper() == gold.upper()
    (letter, value), (gold_letter, gold_value) = _choice(answer), _choice(gold)
    if letter and gold_letter:
        return letter == gold_letter and (not value or not gold_value or same_plain(value, gold_value))
    if value or gold_value:
        return same_plain(value or answer, gold_value or gold)
    return None


def _choice(text: str) -> tuple[str, str]:
    match = CHOICE.fullmatch(text)
    return ((match[1] or match[2] or match[3]).upper(), match[4].strip(" .,:-")) if match else ("", "")


def same_modulus(answer: str, gold: str) -> bool | None:
    """A residue with or without its modulus; the moduli must agree if both are stated."""
    residues = [MODULUS.fullmatch(text) for text in (answer, gold)]
    if not any(residues):
        return None
    moduli = {residue[2] for residue in residues if residue}
    values = [residue[1] if residue else text for residue, text in zip(residues, (answer, gold), strict=True)]
    values = [re.split(r"\\equiv(?![a-zA-Z])", value)[-1].strip() for value in values]
    return len(moduli) == 1 and same_plain(*values)


def same_equations(answer: str, gold: str) -> bool | None:
    """`name = value` states the value; other equations are equal to equations only, and names must agree."""
    sides, gold_sides = _sides(answer), _sides(gold)
    if len(sides) == len(gold_sides) == 1:
        return None
    if len(sides) > 1 and len(gold_sides) > 1:
        if not (NAME.fullmatch(sides[0]) and NAME.fullmatch(gold_sides[0])):
            return None
        return sides[0].replace(" ", "") == gold_sides[0].replace(" ", "") and same_plain(sides[-1], gold_sides[-1])
    value = _stated_value(sides if len(sides) > 1 else gold_sides)
    if value is None:
        return False
    return same_plain(value, gold) if len(sides) > 1 else same_plain(answer, value)


def _sides(text: str) -> list[str]:
    """The sides of an equation; several equations, such as x = 1, y = 2, are not split."""
    sides = split_top(text, frozenset("="))
    return [text] if len(sides) > 2 and collection(text) else sides


def _stated_value(sides: list[str]) -> str | None:
    """The value that an equation such as x = 5, m + n = 5 or 2 + 3 = 5 states; None for others, such as x^2 = 5."""
    states = any(pattern.fullmatch(sides[0]) for pattern in (NAME, SOUGHT, CONSTANT))
    return sides[-1] or None if states else None


def same_inequalities(answer: str, gold: str) -> bool | None:
    """An inequality and the interval that it states, or two inequalities of which one leaves out the letter."""
    stated, wanted = as_intervals(answer), as_intervals(gold)
    if not stated and not wanted:
        return None
    if stated and wanted and not re.match(r"<|>|\\[lgn]e", answer) and not re.match(r"<|>|\\[lgn]e", gold):
        return None  # both name the letter, so they are compared as formulas
    left, right = stated or answer, wanted or gold
    return bool(INTERVAL.match(left) and INTERVAL.match(right)) and same_plain(left, right)


def same_collections(answer: str, gold: str) -> bool | None:
    """Lists, sets, points and intervals. An answer of several equal values, such as "1/2 or 0.5", states that value."""
    stated, wanted = (collection(LETTERS.sub(r"\1", text)) for text in (answer, gold))
    if stated is None and wanted is None:
        return None
    for read, text, other in ((stated, answer, gold), (wanted, gold, answer)):
        if read and not read.brackets and len(read.parts) == 1 and text != read.parts[0]:  # a set of one member
            return same_plain(read.parts[0], other)
    if stated and wanted:
        return same_parts(_unnamed(stated, wanted), _unnamed(wanted, stated), same_plain)
    if RELATION.search(answer) or RELATION.search(gold):
        return None  # 0 < x < 5 for (0, 5)
    several, single = (stated, gold) if stated else (wanted, answer)
    alternatives = several.parts if several and not several.brackets else ()
    return bool(alternatives) and all(same_plain(part, single) for part in alternatives)


def _unnamed(equations: Collection, other: Collection) -> Collection:
    """The list x = 1, y = 2 as the point (1, 2), if the other collection is a point."""
    pairs = [split_top(part, frozenset("=")) for part in equations.parts]
    if equations.brackets or not all(len(pair) == 2 and NAME.fullmatch(pair[0]) for pair in pairs):
        return equations
    names = [pair[0] for pair in pairs]
    if other.brackets == "()" and names == sorted(set(names)):
        return Collection("()", tuple(pair[1] for pair in pairs))
    return equations


def same_sums(answer: str, gold: str) -> bool | None:
    """Sums such as 5 feet 6 inches, which equals 66 inches, but neither 5 nor 66 without a unit."""
    sums = [compound(text) for text in (answer, gold)]
    if not any(sums):
        return None
    left, right = (total or quantity(text) for total, text in zip(sums, (answer, gold), strict=True))
    return bool(left and right) and same_quantities(answer, gold)


def same_quantities(answer: str, gold: str) -> bool | None:
    """Values with units. A unit that only one of them states is implied; 5% is 5 as well as 0.05."""
    left, right = quantity(answer), quantity(gold)
    if left and right:
        factor = left.unit.scale / right.unit.scale if left.unit.dimensions == right.unit.dimensions else Fraction(1)
        return same_units(left.unit, right.unit) and same_plain(times(factor, left.value), right.value)
    stated, other = (left, gold) if left else (right, answer)
    if not stated or has_words(other):
        return None
    if stated.is_percentage():
        share = same_plain(times(Fraction(1, 100), stated.value), other)
        return share or (not re.match(r"-?0?\.", other) and same_plain(stated.value, other))  # 0.5% is not 0.5
    return same_plain(stated.value, other)


def same_formulas(answer: str, gold: str) -> bool:
    """Whether sympy finds two formulas equal, or they differ only in spaces."""
    if answer.replace(" ", "") == gold.replace(" ", ""):
        return True
    values = exact_value(answer), exact_value(gold)
    return WORKER.ask(answer, gold) is True if None in values else same_numbers(answer, gold)


KINDS: tuple[Callable[[str, str], bool | None], ...] = (
    same_choices,
    same_modulus,
    same_equations,
    same_times,
    same_sums,
    same_inequalities,
    same_collections,
    same_quantities,
    same_numerals,
    same_words,
    same_formulas,
)
"""The kinds of answers, in the order in which they are tried."""
