"""Quantities: numbers with units in letters or words, currencies, percentages, and times of day."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from armlet.evaluation.grading.number_words import DENOMINATORS
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
    "deg degree": "60 angle",
    "arcmin arcminute": "1 angle",
    "rad radian": "1 radian",
    "percent %": "1 percent",
}
"""Units: their names in the singular, and their size in the smallest unit of their dimension."""

UNITS = {
    name: (Fraction(value.split()[0]), value.split()[1]) for names, value in KNOWN.items() for name in names.split()
}
MULTIPLES = {
    **{"mil": 10**6, "mn": 10**6, "bn": 10**9, "lakh": 10**5, "crore": 10**7, "dozen": 12, "score": 20},
    **{"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12},
    **{f"{part}s": Fraction(1, parts) for part, parts in DENOMINATORS.items() if part != "quarter"},
}
"""Words that multiply. Quarters are not among them, because they may be coins."""
SPEEDS = {"mph": "mile per hour", "kph": "km per hour", "kmh": "km per hour", "kmph": "km per hour"}
UNIT_SPELLINGS = [
    (r"\b(?:square|sq)\.?\s+(\w+)", r"\1^2"),
    (r"\b(?:cubic|cu)\.?\s+(\w+)", r"\1^3"),
    (r"\s+squared\b", "^2"),
    (r"\s+cubed\b", "^3"),
    *((rf"\b{short}\b", long) for short, long in SPEEDS.items()),
]
ATTACHED = "|".join(sorted(map(re.escape, {*UNITS, *MULTIPLES, *SPEEDS} - {"in"}), key=len, reverse=True))

CURRENCY_SIGNS = "€£¥₹₩₽₺₫₱₪"
CURRENCY = re.compile(
    rf"^(-?)\s*(?:[A-Z]{{0,3}}\\?(\$)|([{CURRENCY_SIGNS}])|(?:(USD|EUR|GBP|Rs)\b\.?))\s*(-?[\d.(\\].*)$"
)
UNIT_LETTERS = r"(?:[^\W\d_]|')+"
UNIT_TAIL = (
    rf"(?:{ATTACHED}|(?<![\\a-zA-Z])[^\W\d_]{{2,}}|(?<=\s)[mshgLlACFVWJNK](?![a-zA-Z])|\\?%|[$¢{CURRENCY_SIGNS}])s?\.?"
)
# A value that ends in a digit, a bracket or a command such as \pi, and then words, powers and fraction bars.
QUANTITY = re.compile(
    rf"(?P<value>(?=\S).*?(?:[\d)}}!\]]|\\pi|\\infty|\\[a-z]+\s+[a-z]))\s*(?:-(?=[a-z]{{3}}))?(?P<unit>{UNIT_TAIL}"
    r"(?:[^\W\d_]|[\s./·,'-]|\\cdot|\\?%|\^\s*\{?-?\d\}?|\([^\W\d_ ]+\))*)",
    re.DOTALL,
)
PART = re.compile(rf"\s*(?:,|and|&)?\s*(\d+(?:\.\d+)?)\s*({UNIT_LETTERS}|[\"°])\.?(?=[\s,.\d]|$)")
UNIT_WORD = re.compile(rf"({UNIT_LETTERS}|[%$¢{CURRENCY_SIGNS}])(?:\s*\^\s*\{{?(-?\d)\}}?)?")
REST = re.compile(
    r"(?<=\w)\s+(?:of|in|for|from|at|on|with|left|each|total|altogether|more|long|old|tall|wide|high)\b.*$"
)
TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?\s*(?:([ap])\.?\s*m\b\.?)?", re.IGNORECASE)
HOUR_OF_DAY = re.compile(r"(\d{1,2})()()\s*(?:([ap])\.?\s*m\b\.?|o'?clock)", re.IGNORECASE)
OCLOCK = re.compile(r"\s*o'?clock\b", re.IGNORECASE)
TERM = re.compile(r"[\w)}]\s*[-+]\s*\d*[a-zA-Z]$")  # the 6m of 22 - 6m is no length
CHANGED = re.compile(r"\s*(?:squared|cubed|factorial|plus|minus|times|divided|over)\b")  # these words change a value
MEASURED = re.compile(r"\s+(?:tall|long|wide|high|deep|old|altogether|in total)\b.*$")


@dataclass(frozen=True)
class Unit:
    """A unit, such as million km/h.

    Attributes:
        multiple: the factor for words such as "million" and "dozen".
        scale: the factor that converts the value to the smallest unit of each dimension.
        dimensions: the dimensions with their powers, such as (("length", 1), ("time", -1)), sorted.
        nouns: the words that are not known units.
    """

    multiple: Fraction
    scale: Fraction
    dimensions: tuple[tuple[str, int], ...]
    nouns: frozenset[str]


@dataclass(frozen=True)
class Quantity:
    """A value in plain notation, with its unit."""

    value: str
    unit: Unit

    def is_percentage(self) -> bool:
        """Whether the unit is the percent sign."""
        return self.unit.dimensions == (("percent", 1),)


@lru_cache(maxsize=1 << 14)
def quantity(text: str) -> Quantity | None:
    """The quantity that a plain answer states; None if it has no unit, or other words."""
    if sum_of_parts := compound(text):
        return sum_of_parts
    if match := CURRENCY.match(text):
        rest = quantity(match[5])
        return Quantity(match[1] + (rest.value if rest else match[5]), read_unit(match[2] or match[3] or match[4]))
    match = QUANTITY.fullmatch(text)
    if not match or CHANGED.match(match["unit"]) or TERM.search(text):
        return None
    if not re.search(r"\d|\\pi", match["value"]) or has_words(match["value"]):
        return None
    unit = read_unit(match["unit"])
    return Quantity(times(unit.multiple, match["value"].strip()), unit)


def times(factor: Fraction, value: str) -> str:
    """A value in plain notation, multiplied."""
    return value if factor == 1 else rf"\frac{{{factor.numerator}}}{{{factor.denominator}}} \cdot ({value})"


def compound(text: str) -> Quantity | None:
    """Two or more amounts of one dimension from the larger to the smaller unit, as 5 feet 6 inches; their sum."""
    text = MEASURED.sub("", text)
    parts = PART.findall(text)
    if len(parts) < 2 or PART.sub("", text).strip(" ."):
        return None
    hours = parts[0][1].lower().startswith("h")
    units = [read_unit("min" if hours and unit == "m" else unit) for _, unit in parts]
    descending = all(larger.scale > smaller.scale for larger, smaller in pairwise(units))
    if not descending or len({(unit.dimensions, unit.nouns) for unit in units}) > 1 or not units[0].dimensions:
        return None
    total = sum(Fraction(value) * unit.scale for (value, _), unit in zip(parts, units, strict=True))
    return Quantity(rf"\frac{{{total.numerator}}}{{{total.denominator}}}", replace(units[0], scale=Fraction(1)))


@lru_cache(maxsize=1 << 12)
def read_unit(text: str) -> Unit:
    """The unit that words, letters or signs state, as "million miles per hour" or "cm^2"."""
    text = REST.sub("", text)
    for pattern, replacement in UNIT_SPELLINGS:
        text = re.sub(pattern, replacement, text)
    multiple, scale, powers, nouns = Fraction(1), Fraction(1), Counter[str](), set[str]()
    for index, part in enumerate(re.split(r"/|\bper\b", text)):
        for word, power in UNIT_WORD.findall(part):
            exponent = int(power or 1) * (-1 if index else 1)
            name = next((form for form in _singulars(word) if form in UNITS), None)
            factor = MULTIPLES.get(word) or MULTIPLES.get(word.removesuffix("s"))
            if factor:
                multiple *= factor
            elif name:
                scale *= UNITS[name][0] ** exponent
                powers[UNITS[name][1]] += exponent
            elif word not in ("a", "an", "and") and not word.startswith("unit"):
                nouns.add(word.casefold().rstrip("s"))
    dimensions = tuple(sorted((dimension, power) for dimension, power in powers.items() if power))
    return Unit(multiple, scale, dimensions, frozenset(nouns))


def _singulars(word: str) -> tuple[str, ...]:
    return word, word[:-1], word.lower(), word.lower()[:-1], word.lower()[:-2]


def same_units(left: Unit, right: Unit) -> bool:
    """Whether two units may be equal: neither their dimensions nor their words contradict each other."""
    if left.nouns and right.nouns and not left.nouns & right.nouns:
        return False
    if left.dimensions and right.dimensions:
        return left.dimensions == right.dimensions
    return not (left.dimensions and right.nouns) and not (right.dimensions and left.nouns)


def time_of_day(text: str) -> tuple[int, str] | None:
    """The seconds after twelve and "a", "p" or "" of a time such as 3:45 PM or 3 pm; None for other texts."""
    text = re.sub(r"^(?:12:00\s*)?(noon|midnight)$", lambda at: f"12 {'p' if at[1] == 'noon' else 'a'}m", text)
    match = TIME.fullmatch(text) or HOUR_OF_DAY.fullmatch(text)
    if not match:
        return None
    hour, half = int(match[1]), (match[4] or "").lower()
    if not half and hour > 12:
        hour, half = hour - 12, "p"
    return (hour % 12) * 3600 + int(match[2] or 0) * 60 + int(match[3] or 0), half


def same_times(answer: str, gold: str) -> bool | None:
    """Times of day. Without AM or PM, only the hour and minute are compared."""
    hours = [OCLOCK.sub("", text) for text in (answer, gold)]
    if (answer, gold) != tuple(hours) and all(map(str.isdigit, hours)):
        return hours[0] == hours[1]
    left, right = time_of_day(answer), time_of_day(gold)
    if not left or not right:
        return None
    return left[0] == right[0] and (not left[1] or not right[1] or left[1] == right[1])
