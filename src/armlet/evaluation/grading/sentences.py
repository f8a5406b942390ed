"""Reads the value that a sentence states: after hedges and signs, up to the end of its first clause."""

import re

from armlet.evaluation.grading.number_words import SIGN_WORD, number_at_start, words_as_digits

# As in Pandoc: no space after the opening dollar sign or before the closing one, and no digit after that.
INLINE = re.compile(r"(?<![\\$])\$(?![\s$])((?:[^$\n]|\\\$)*?)(?<![\s\\$])\$(?![\d$])|\\\((.+?)\\\)")
LETTERED = re.compile(r"\(([A-J])\)\s*:\s")
JOINED = re.compile(r"\s*(?:,|;|,?\s*\band\b|,?\s*\bor\b|&)\s*")
# Words before a value that do not change it.
HEDGE = re.compile(
    r"^(?:(?:approximately|approx\.?|about|around|roughly|nearly|exactly|precisely|simply|just|only|equal to|therefore|"
    r"thus|so|indeed|definitely|clearly|probably|likely|given by|"
    r"(?:I (?:think|believe|guess) )?it(?: is|['’]s)|now|then|hence|found to be|that|both|either|option|"
    r"choice|strictly|a total of|the (?:number|value|point|pair|set|option|letter|interval)|≈|=|:|,)\s*)+(?=\S)",
    re.IGNORECASE,
)
NEGATION = re.compile(r"^(?:n['’]t|not|neither|never|cannot|can['’]t|unlikely|unclear)\b", re.IGNORECASE)
NEGATIVE = "it says what the answer is not"
CONTRAST = re.compile(
    r"^(?:not|neither|n['’]t)\s+[^.;,]{1,40}?(?:,?\s+but(?:\s+rather)?|[;.,]\s*it(?:['’]s|\s+is))\s+", re.IGNORECASE
)
BOUND_WORDS = [
    (r"(?:less|fewer|smaller|lower) than|below|under", "<"),
    (r"(?:more|greater|larger|higher|bigger) than|above|over", ">"),
    (r"at most|no more than|up to", r"\le"),
    (r"at least|no less than|no fewer than", r"\ge"),
]
# "5 squared", "twice 5", "5 divided by 6", "the sum of 5 and 6"
CALCULATION = re.compile(
    r"^\D{0,3}\d[\d.,/]*\s+(?:squared|cubed|factorial|plus|minus|times\s+\d|divided by|multiplied by|to the)\b"
    r"|^(?:the )?(?:half|twice|double|triple|thrice|square of|(?:square|cube) root|sum|product|difference|quotient)\b",
    re.IGNORECASE,
)
RANGE = re.compile(r"^(?:between|from|somewhere)\b|^\S+\s+to\s+\S*\d", re.IGNORECASE)
# Where the value ends and its explanation begins.
CLAUSE_END = re.compile(
    r"[.?](?=\s|$)|!(?=\s+[A-Z]|\s*$)|[;:](?=\s+[^\W\d_]{2})|(?<=\d)\s+of\s|\s[-–—]\s+(?=[a-zA-Z]{2})"
    r"|\s+(?:because|since|as|which|where|when|so|for|after|if|but|that is|i\.e\.|by|while|therefore|hence|from)\s"
    r"|\s+(?:rather than|instead of|and not|or so)\b|,\s*(?:altogether|in total|in all|all told|overall)\b"
    r"|(?<=[a-z])\s+(?:below|above|under|over|between|among|within|in|on|at)\s+(?:the\s+)?(?=\S*\d)"
    r"|,\s*\w+ times\b|,\s*and (?:it|this|that|we)\b"
    r"|,\s*(?:not|because|since|so|which|but|as|where|i\.e\.|that is|rather|instead)\b"
)
# "(3 red and 4 blue)", a reference "[1]" at the end, a calculation "(3 + 4 = 7)" at the end.
ASIDE = re.compile(
    r"\s*\((?!or\b)(?=[^()]*[^\W\d_]{2})[^()\\]*\)|(?<=\S)\s*\[\d+\](?=\W*$)|(?<=\w)\s*\((?:\d+\s*[^\w\s,]\s*)+\d+\s*=?\s*\d*\)(?=\W*$)"
)
LEADING_WORDS = re.compile(r"^(?:[^\W\d_][^\W\d_'²³-]+[,:]?\s+)+(?=\S)")


def read_statement(sentence: str) -> tuple[str | None, str | None]:
    """The value that a sentence states, and why none can be read.

    A sentence that says what the answer is not, or states a range, has no value; "less than 3" is not 3.
    """
    sentence = re.sub(r"\bas well as\b", "and", sentence)
    sentence = CONTRAST.sub("", unhedged(re.sub(r"\bRs\.\s*(?=\d)", "Rs ", ASIDE.sub("", sentence))))
    if number_at_start(sentence):
        sentence = words_as_digits(sentence)
    sentence = re.sub(r"(\d) and (?:a|one) half\b", r"\1 1/2", sentence)
    if NEGATION.match(sentence):
        return None, NEGATIVE
    if RANGE.match(sentence):
        return None, "it is a range"
    if CALCULATION.match(sentence):
        return None, "it is a calculation in words"
    for words, relation in BOUND_WORDS:
        if bound := re.match(rf"(?:{words})\s+", sentence, re.IGNORECASE):
            value, problem = read_statement(sentence[bound.end() :])
            return (f"{relation} {value}" if value else None), problem
    if sign := SIGN_WORD.match(sentence):
        value, problem = read_statement(sentence[sign.end() :])
        return (f"-{value}" if value else None), problem
    if choice := LETTERED.match(sentence):
        value, problem = read_statement(sentence[choice.end() :])
        return f"({choice[1]}) {value or ''}".strip(), problem
    formulas = list(INLINE.finditer(sentence))
    return (_formulas(sentence, formulas) if formulas else _clause(sentence)), None


def unhedged(sentence: str) -> str:
    """A sentence without the words at its start that do not change its value."""
    return HEDGE.sub("", sentence.strip())


def _clause(sentence: str) -> str | None:
    """A sentence without formulas up to the end of its first clause, and without words before its first number."""
    clause = CLAUSE_END.split(sentence, maxsplit=1)[0].rstrip(" .,:;").lstrip(" ,:;")
    if re.search(r"[\d\\]", clause) and not re.match(r"\(?[A-J]\b[).:]?", clause):
        clause = LEADING_WORDS.sub("", clause)
    return (clause if "{" in clause else clause.rstrip("}")) or None


def _formulas(sentence: str, formulas: list[re.Match[str]]) -> str | None:
    """The first formula, those joined to it by commas, "and" or "or", and the unit after the last one."""
    values, end = [], formulas[0].start()
    for formula in formulas:
        if values and not JOINED.fullmatch(sentence, end, formula.start()):
            break
        values.append((formula[1] or formula[2]).strip().rstrip(".,"))
        end = formula.end()
    unit = CLAUSE_END.split(sentence[end:], maxsplit=1)[0].strip(" .,:;!*") if len(values) == 1 else ""
    if unit and not re.match(r"[\w%\\°,]", unit):
        unit = ""
    sign = "-" if re.search(r"(?:minus|negative)\s*$", sentence[: formulas[0].start()], re.IGNORECASE) else ""
    return f"{sign}{', '.join(values)} {unit}".strip() or None
