"""Reads what the last line of a solution states, where no sentence announces an answer."""

import re

from armlet.evaluation.grading.few_words import few_words
from armlet.evaluation.grading.number_words import number_at_start
from armlet.evaluation.grading.quantities import compound
from armlet.evaluation.grading.sentences import ASIDE, CONTRAST, LEADING_WORDS, NEGATIVE, read_statement, unhedged

# In the last line, the value follows the verb: "After 3 days he has 8 apples".
VERB = re.compile(
    r"\b(?:is|are|was|were|be|has|have|had|equals?|costs?|makes?|made|gives?|gets?|got|needs?|needed|takes?|earns?|earned|pays?|paid|"
    r"spends?|spent|becomes?|yields?|obtain|finds?|weighs?|sells?|sold|ate|eats?|saves?|saved|receives?|took|lasts?|lasted|"
    r"arrives?|leaves?|totals|uses?|used|collected|(?:ends?|ended) up with)(?:\b:?|(?=n['’]t))|\b(?:it|that)['’]s\b",
    re.IGNORECASE,
)
NEGATED_VERB = re.compile(r"(?:\bnot|n['’]t|\bcannot|\bnever)(?:\s+(?:be|equal|have|get))?:?$", re.IGNORECASE)
CONCLUSION = re.compile(
    r"(?:[,;.]?\s+(?:so|therefore|thus|hence)\b(?!\s+(?:that|far|many|much)\b),?|,\s*i\.e\.,?)\s+(?=[^\n]*\d)",
    re.IGNORECASE,
)
# "on the 270-mile trip"
HYPHENATED = re.compile(r"(?:\s+(?:on|in|of|for|with))?(?:\s+(?:the|a))?\s+\d+-[a-z]+\s+[a-z]+")
NOT_STATED = {
    "it is a question": re.compile(r"[^\W\d_].*\?\s*$"),
    "it is a condition": re.compile(r"\bif\b.*\bwould\b|^\s*if\b[^,]*$", re.IGNORECASE),
    NEGATIVE: re.compile(r"\b(?:not true|not the case|false) that\b|\banything but\b", re.IGNORECASE),
    "it declines to answer": re.compile(
        r"\b(?:do not|don['’]t) know\b|\b(?:not sure|unsure|no idea)\b"
        r"|\b(?:cannot|can['’]t|unable to|not enough|lacks?|insufficient)\b[^.]*"
        r"\b(?:answer|determine|information|solve)",
        re.IGNORECASE,
    ),
    "it says what the answer may be more than once": re.compile(
        r"\b(?:could|might|may) (?:also )?be\b.*\b(?:could|might|may) (?:also )?be\b", re.IGNORECASE
    ),
}
"""Why a line states no answer, and how such a line is recognised."""
RELATIVE = re.compile(r"\b(?:who|which)\s+$")
CALCULATED = re.compile(r"[\d(][\d\s.,()]*[*/+×÷-][\d\s.,*/+×÷()-]*=[^=]*$")  # "3 * 45 = 135 shells"
NAME_STATED = re.compile(r"\b(?:is|was|must be)\s+([A-Z][a-z]+(?:\s[A-Z][a-z]+){0,3})[.!]?\s*$")
LABEL = re.compile(
    r"^\s*(?:(?:step|part|case|question|problem)\s+\w{1,3}\s*[:.)]\s*|\d{1,2}[.)]\s+(?=\S.*=))", re.IGNORECASE
)
STATED_NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,:]\d+)*")
CIRCUMSTANCE = re.compile(
    r"\b(?:in|after|within|for|of|on|at|by|from|with|every|per|since)\s+\d[\d.,]*\b(?!:\d|\s*[ap]\.?m\b)", re.I
)
LATEX_WORDS = re.compile(r"\\(?:text\w*|math\w+|mbox|begin|end)\s*\{[^{}]*\}|\\[a-zA-Z]+")
PROSE = re.compile(r"[^\W\d_]{2}|(?<!\\)\$.*\S")  # two letters or a dollar sign may belong to prose
CHOICE_LINE = re.compile(r"\(?[A-Ja-j]\)?")


def read_last_line(line: str, *, alone: bool = False) -> tuple[str | None, str | None]:
    """What the last line states: what follows its verb, else its only number, formula or letter.

    alone: the line is the whole text, so that a few words are an answer, too.
    """
    line = CONTRAST.sub("", LABEL.sub("", ASIDE.sub("", line)))
    line = re.sub(r"^\s*\$([^$]+)\$[\s.]*$", r"\1", line)
    for reason, pattern in NOT_STATED.items():
        if pattern.search(line):
            return None, reason
    if CHOICE_LINE.fullmatch(line.strip(" .")) or not PROSE.search(LATEX_WORDS.sub("", line)):
        return line.strip(), None
    if alone and (answer := few_words(line)) and not any(_in_words(line)):
        return answer, None
    if not re.search(r"\d|\\|\$|[^\x00-\x7f]|=", line):
        return _in_words(line)
    line = line[max([match.end() for match in CONCLUSION.finditer(line)], default=0) :]
    verbs = [verb for verb in VERB.finditer(line) if re.search(r"\d|\\|\$", line[verb.end() :])]
    verbs = [verb for verb in verbs if not RELATIVE.search(line, 0, verb.start())]
    if verbs and NEGATED_VERB.search(line, 0, verbs[-1].end()):
        return None, NEGATIVE
    return read_statement(line[verbs[-1].end() :]) if verbs else _without_verb(line)


def _in_words(line: str) -> tuple[str | None, str | None]:
    """The number in words or the name with which a line without digits ends."""
    verbs = [verb for verb in VERB.finditer(line) if number_at_start(unhedged(line[verb.end() :]))]
    if verbs and NEGATED_VERB.search(line, 0, verbs[-1].end()):
        return None, NEGATIVE
    if verbs:
        return read_statement(line[verbs[-1].end() :])
    name = NAME_STATED.search(line)
    return (name[1] if name else None), None


def _without_verb(line: str) -> tuple[str | None, str | None]:
    """The calculation, or the only number apart from those of time, place and manner."""
    rest = re.sub(r"^[^\d=$\\:：]+[:：]\s*", "", line)
    if calculated := CALCULATED.search(rest):
        return read_statement(calculated[0])
    is_prose = PROSE.search(re.sub(r"\b(?:and|or)\b", "", LATEX_WORDS.sub("", rest)))
    is_value = re.search(r"[=$]", rest) or not is_prose or compound(LEADING_WORDS.sub("", rest).strip(" ."))
    if not is_value and len(_numbers(rest)) > 1:
        rest = CIRCUMSTANCE.sub("", HYPHENATED.sub("", rest))
    numbers = _numbers(rest)
    if not is_value and len(numbers) > 1:
        return None, f"several numbers in the last line: {', '.join(numbers)}"
    return read_statement(LEADING_WORDS.sub("", rest))


def _numbers(text: str) -> list[str]:
    return sorted(set(STATED_NUMBER.findall(text)))
