"""Numbers in English words as digits: "forty-two", "one hundred and five", "two and a half", "three quarters"."""

import re

ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
PARTS = ("half", "third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
WORD_VALUES = {
    **{word: value for value, word in enumerate(ONES)},
    **{word: 10 * value for value, word in enumerate(TENS, 2)},
}
DENOMINATORS = {
    **{part: value for value, part in enumerate(PARTS, 2)},
    **{"halve": 2, "fourth": 4, "hundredth": 100, "thousandth": 1000},
}

ONE = "|".join(reversed(ONES))  # "sixteen" before "six"
BELOW_100 = rf"(?:(?:{'|'.join(TENS)})(?:[\s-](?:{'|'.join(ONES[1:10])}))?|{ONE})"
BELOW_1000 = rf"(?:(?:{ONE}|a)\s+hundred(?:\s+(?:and\s+)?{BELOW_100})?|{BELOW_100})"
WHOLE = rf"(?:{BELOW_1000}(?:\s+thousand(?:[\s,]+(?:and\s+)?{BELOW_1000})?)?)"
WORD_NUMBER = re.compile(
    rf"(?<![\w-])(?:(?:(?P<whole>{WHOLE})\s+and\s+)?(?P<top>a|{ONE})[\s-]+(?P<part>{'|'.join(DENOMINATORS)})s?"
    rf"|(?P<number>{WHOLE}))(?![\w-])",
    re.IGNORECASE,
)
SIGN_WORD = re.compile(r"\s*(?:minus|negative)\s+(?=[\d.$\\])", re.IGNORECASE)


def number_at_start(text: str) -> bool:
    """Whether a text begins with a number in words; "one" may be a pronoun, unless nothing or a comma follows."""
    text = re.sub(r"^\s*(?:(?:minus|negative)\s+)?", "", text, flags=re.IGNORECASE)
    match = WORD_NUMBER.match(text)
    return bool(match and (match[0].casefold() != "one" or re.match(r"\W*$|,", text[match.end() :])))


def words_as_digits(text: str) -> str:
    """A text with digits for its numbers in words: "2 1/2" for "two and a half", "3/4" for "three quarters"."""
    return WORD_NUMBER.sub(_digits, text)


def _digits(match: re.Match[str]) -> str:
    if match["number"]:
        return str(_whole(match["number"]))
    whole = f"{_whole(match['whole'])} " if match["whole"] else ""
    return f"{whole}{_whole(match['top'])}/{DENOMINATORS[match['part'].casefold()]}"


def _whole(words: str) -> int:
    """The value of a whole number below a million."""
    total, current = 0, 0
    for word in re.findall(r"[a-z]+", words.casefold()):
        if word == "hundred":
            current *= 100
        elif word == "thousand":
            total, current = 1000 * current, 0
        elif word != "and":
            current += WORD_VALUES.get(word, 1)  # "a" is one
    return total + current
