"""Reads an answer in a few words that is a whole text of one line: "cold", or "It is cold", or "Yes, it is".

Only what can hardly be read in another way counts: a sentence that denies, doubts, supposes or quotes states nothing.
"""

import re

from armlet.evaluation.grading.number_words import number_at_start
from armlet.evaluation.grading.sentences import read_statement, unhedged

LETTERS = re.compile(r"[A-Za-zÀ-ÖØ-öø-ÿĀ-ž .,!'’-]+")  # words of Latin letters, and no formula
YES_OR_NO = re.compile(r"(yes|no)(?:(?:[,.!] ?| )(?P<rest>\S.*))?", re.IGNORECASE)
SHORT_FORM = re.compile(r"(?:it|they|he|she|there) (?:is|are|was|were|does|do|did|can|has|have)(?:n['’]t| not)?", re.I)
SENTENCE = re.compile(
    r"(?P<subject>[^,.!]+?) (?:is|are|was|were) (?P<value>[^,.!]+)|(?:it|that)['’]s (?P<short>[^,.!]+)", re.I
)
ARTICLE = re.compile(r"an? ", re.IGNORECASE)
CUT_OFF = re.compile(r"[a-z]|[Aa]n")  # what "This is a" ends with; a choice is a capital letter
LONGEST_PHRASE, LONGEST_VALUE = 4, 3  # words
DOUBT = re.compile(
    r"\b(?:\w+n['’]t|not|never|cannot|no|nobody|none|nothing|nowhere|neither|nor|hardly|barely|anything|far|yet|longer|"
    r"doubt\w*|might|may|could|can|would|should|will|must|if|unless|whether|when\w*|where|why|how|what|which|who|whose|"
    r"because|suppos\w*|assume\w*|assuming|wonder|check|determine|know|knew|think|thought|believe\w*|sa(?:id|ys?)|wrong\w*|"
    r"incorrect\w*|mistake\w*|avoid|false|used|seems?|perhaps|maybe|possibl[ey]|probably|sometimes|usually|impossible|"
    r"question|first|i|you|we|me|us|let|wait|sorry|actually|but|however|yes|this)\b",
    re.IGNORECASE,
)
# What a value in words does not contain: words that join, remarks on the answer, and what points elsewhere.
NO_VALUE = re.compile(
    r"\b(?:the|to|of|by|in|on|at|for|from|with|as|and|or|that|than|not|never|no|it|hard|difficult|impossible|unclear|"
    r"uncertain|here|there|below|above|shown|given|correct|right|done|usually|sometimes|always|probably|perhaps|maybe|"
    r"very|called|named|so|too|also|only|longer|what|anything|far|either|neither|both|supposed|said|believed|thought)\b",
    re.IGNORECASE,
)
NO_PHRASE = re.compile(
    r"\b(?:i|we|you|he|she|it|they|me|us|this|that|these|those|there|here|let|please|sorry|sure|ok|okay|hello|hi|"
    r"thanks?|step|perhaps|maybe|probably|unknown|depends|dozen|half)\b",
    re.IGNORECASE,
)
VERB = re.compile(r"\b(?:is|are|was|were|be|has|have|had|does|do|did)\b|['’]s\b(?=\s+(?:an?|the)\b)", re.IGNORECASE)


def few_words(line: str) -> str | None:
    """The answer of a text of one line without digits, or None: yes or no, what a short sentence states, or itself."""
    line = line.strip().rstrip(".!").rstrip()
    if not LETTERS.fullmatch(line):
        return None
    if answer := YES_OR_NO.fullmatch(line):
        return _yes_or_no(answer)
    if sentence := SENTENCE.fullmatch(line):
        return _value(sentence)
    return _phrase(line)


def _yes_or_no(answer: re.Match[str]) -> str | None:
    """The word alone, before "it is", or before a sentence that states something; else a phrase, as "no solution"."""
    word, rest = answer[1], answer["rest"]
    if not rest or SHORT_FORM.fullmatch(rest):
        return word
    if answer[0][len(word)] == " ":
        return _phrase(answer[0])
    sentence = SENTENCE.fullmatch(rest)
    names = sentence and (sentence["value"] or sentence["short"])[0].isupper()  # "No, it's Paris" may answer what it is
    return word if sentence and not names and not DOUBT.search(rest) else None


def _value(sentence: re.Match[str]) -> str | None:
    """What a sentence says that its subject is."""
    if DOUBT.search(sentence["subject"] or ""):
        return None
    value = ARTICLE.sub("", sentence["value"] or sentence["short"], count=1)
    is_other = CUT_OFF.fullmatch(value) or NO_VALUE.search(value) or VERB.search(value)
    return None if is_other or len(value.split()) > LONGEST_VALUE else value


def _phrase(line: str) -> str | None:
    """A line without a verb, with a number in words as digits."""
    if number_at_start(unhedged(line)):
        return read_statement(line)[0]
    words = line.split()
    if any(map(number_at_start, words)):  # "altogether, three apples"
        return None
    is_phrase = len(words) <= LONGEST_PHRASE and not NO_PHRASE.search(line) and not VERB.search(line)
    return line if is_phrase else None
