"""Quantities: numbers with units in letters or words, currencies, percentages, and times of day."""

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from armlet.evaluation.grading.words import has_words

KNOWN = {
    "mm millimeter millimetre": "1 length",
    "cm centimeter centimetre": "10 length",
    "dm decimeter decimetre": "100 length",
    "m meter metre": "1000 length",
    "km kilometer kilometre": "1000000 length",
    "in inch inche": "127/5 length",
    "ft foot feet": "1524/5 length",
    "yd yard": "4572/5 length",
    "mi mile": "1609344 length",
    "ms millisecond": "1/1000 time",
    "s sec second": "1 time",
    "min minute": "60 time",
    "h hr hour": "3600 time",
    "day": "86400 time",
    "wk week": "604800 time",
    "month": "1 calendar",
    "yr year": "12 calendar",
    "mg milligram": "1 mass",
    "g gm gram": "1000 mass",
    "kg kilogram": "1000000 mass",
    "oz ounce": "1 weight",
    "lb pound": "16 weight",
    "ton": "32000 weight",
    "ml mL milliliter millilitre": "1 volume",
    "L l liter litre": "1000 volume",
    "cup": "1 kitchen",
    "pt pint": "2 kitchen",
    "qt quart": "4 kitchen",
    "gal gallon": "16 kitchen",
    "cent ¢": "1 money",
    "dollar USD usd buck $": "100 money",
    "€ euro EUR": "100 euro",
    "£ GBP": "100 sterling",
    "¥ yen": "1 yen",
    "₹ Rs rupee": "1 rupee",
    "deg degree": "1 angle",
    "rad radian": "1 radian",
    "percent %": "1 percent",
}
"""Units: their names in the singular, and what one of them is in the smallest unit of its dimension."""

UNITS = {name: value.split() for names, value in KNOWN.items() for name in names.split()}
MULTIPLES = {"dozen": 12, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
SPEEDS = {"mph": "mile per hour", "kph": "km per hour", "kmh": "km per hour", "kmph": "km per hour"}
POWER_WORDS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
ATTACHED = "|".join(sorted(map(re.escape, {*UNITS, *MULTIPLES, *SPEEDS} - {"in"}), key=len, reverse=True))

CURRENCY = re.compile(r"^(-?)\s*(?:\\?(\$)|([€£¥₹])|(?:(USD|EUR|GBP|Rs)\b\.?))\s*(-?[\d.(\\].*)$")
WORD = r"(?:[^\W\d_]|')+"
UNIT_TAIL = rf"(?:{ATTACHED}|(?<![\\a-zA-Z])[^\W\d_]{{2,}}|(?<=\s)[mshgLlAVWJNK](?![a-zA-Z])|\\?%|[¢€$£¥])s?\.?"
# A value that ends in a digit, a bracket or a command such as \pi, and then words, powers and fraction bars.
QUANTITY = re.compile(
    rf"(?P<value>(?=\S).*?(?:[\d)}}!\]]|\\pi|\\infty|\\[a-z]+\s+[a-z]))\s*(?:-(?=[a-z]{{3}}))?(?P<unit>{UNIT_TAIL}"
    r"(?:[^\W\d_]|[\s./·,'-]|\\cdot|\\?%|\^\s*\{?-?\d\}?|\([^\W\d_ ]+\))*)",
    re.DOTALL,
)
PART = re.compile(rf"\s*(?:,|and|&)?\s*(\d+(?:\.\d+)?)\s*({WORD}|[\"°])\.?(?=[\s,.\d]|$)")
REST = re.compile(
    r"(?<=\w)\s+(?:of|in|for|from|at|on|with|left|each|total|altogether|more|long|old|tall|wide|high)\b.*$"
)
TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?\s*(?:([ap])\.?\s*m\b\.?)?", re.IGNORECASE)
CLOCK = re.compile(r"(\d{1,2})()()\s*([ap])\.?\s*m\b\.?", re.IGNORECASE)


@dataclass(frozen=True)
class Quantity:
    """A value with its unit.

    Attributes:
        value: the value without its unit, in plain notation.
        scale: what to multiply the value with, for `dimensions`.
        dimensions: the dimensions with their powers, such as (("length", 1), ("time", -1)), sorted.
        nouns: the words that are no known unit.
    """

    value: str
    scale: Fraction
    dimensions: tuple[tuple[str, int], ...]
    nouns: frozenset[str]

    def is_percentage(self) -> bool:
        """Whether the unit is the percent sign."""
        return self.dimensions == (("percent", 1),)


@lru_cache(maxsize=1 << 14)
def quantity(text: str) -> Quantity | None:
    """The quantity that a plain answer states; None if it has no unit, or words that are none."""
    if sum_of_parts := compound(text):
        return sum_of_parts
    if match := CURRENCY.match(text):
        rest = quantity(match[5])
        scale, dimensions, _, _ = _unit(match[2] or match[3] or match[4])
        return Quantity(match[1] + (rest.value if rest else match[5]), scale, dimensions, frozenset())
    match = QUANTITY.fullmatch(text)
    if not match or not re.search(r"\d|\\pi", match["value"]) or has_words(match["value"]):
        return None
    scale, dimensions, nouns, multiple = _unit(match["unit"])
    return Quantity(times(multiple, match["value"].strip()), scale, dimensions, nouns)


def times(factor: Fraction, value: str) -> str:
    """A value in plain notation, multiplied."""
    return value if factor == 1 else rf"\frac{{{factor.numerator}}}{{{factor.denominator}}} \cdot ({value})"


def compound(text: str) -> Quantity | None:
    """Two or more amounts of one dimension from the larger to the smaller unit, as 5 feet 6 inches; their sum."""
    parts = PART.findall(text)
    if len(parts) < 2 or PART.sub("", text).strip(" ."):
        return None
    units = [_unit(unit) for _, unit in parts]
    descending = all(one[0] > two[0] for one, two in pairwise(units))
    if not descending or len({(dimensions, nouns) for _, dimensions, nouns, _ in units}) > 1 or not units[0][1]:
        return None
    total = sum(Fraction(number) * unit[0] for (number, _), unit in zip(parts, units, strict=True))
    return Quantity(rf"\frac{{{total.numerator}}}{{{total.denominator}}}", Fraction(1), units[0][1], frozenset())


@lru_cache(maxsize=1 << 12)
def _unit(text: str) -> tuple[Fraction, tuple[tuple[str, int], ...], frozenset[str], Fraction]:
    """The scale, dimensions, other words and multiple of a unit such as "cm^2" or "million miles per hour"."""
    for short, long in SPEEDS.items():
        text = re.sub(rf"\b{short}\b", long, text)
    text = re.sub(r"\^\s*\{?(-?\d)\}?", r" ^\1 ", REST.sub("", text))
    scale, multiple, powers, nouns, sign, next_power = Fraction(1), Fraction(1), Counter[str](), set[str](), 1, 1
    last: tuple[Fraction, str] | None = None
    for token in re.findall(rf"\^-?\d|/|{WORD}|[%$¢€£¥₹]", text):
        if token in ("per", "/", "a", "an"):
            sign = -1 if token in ("per", "/") else sign
        elif token in MULTIPLES:
            multiple *= MULTIPLES[token]
        elif token in POWER_WORDS and not (token.endswith("ed") and last):
            next_power = POWER_WORDS[token]
        elif token[0] == "^" or token in POWER_WORDS:
            if last:
                extra = (int(token[1:]) if token[0] == "^" else POWER_WORDS[token]) - 1
                scale *= last[0] ** (sign * extra)
                powers[last[1]] += sign * extra
        elif name := _singular(token):
            size, dimension = Fraction(UNITS[name][0]), UNITS[name][1]
            scale *= size ** (sign * next_power)
            powers[dimension] += sign * next_power
            last, next_power = (size, dimension), 1
        elif not token.startswith("unit"):
            nouns.add(token.casefold().rstrip("s"))
    return scale, tuple(sorted((d, p) for d, p in powers.items() if p)), frozenset(nouns), multiple


def _singular(word: str) -> str | None:
    return next((w for w in (word, word[:-1], word.lower(), word.lower()[:-1], word.lower()[:-2]) if w in UNITS), None)


def same_units(one: Quantity, two: Quantity) -> bool:
    """Whether two units may measure the same: one dimension or, for other words, one word of each in common."""
    if one.dimensions and two.dimensions:
        return one.dimensions == two.dimensions
    if one.dimensions or two.dimensions:
        return not (one.nouns or two.nouns)
    return not (one.nouns and two.nouns) or bool(one.nouns & two.nouns)


def time_of_day(text: str) -> tuple[int, str] | None:
    """The seconds after twelve and "a", "p" or "" of a time such as 3:45 PM or 3 pm; None if it is none."""
    match = TIME.fullmatch(text) or CLOCK.fullmatch(text)
    if not match:
        return None
    hour, half = int(match[1]), (match[4] or "").lower()
    if not half and hour > 12:
        hour, half = hour - 12, "p"
    return (hour % 12) * 3600 + int(match[2] or 0) * 60 + int(match[3] or 0), half


def same_times(answer: str, gold: str) -> bool | None:
    """Times of day. Without AM or PM, only the hour and minute are compared."""
    one, two = time_of_day(answer), time_of_day(gold)
    if not one or not two:
        return None
    return one[0] == two[0] and (not one[1] or not two[1] or one[1] == two[1])
