r"""Reads what a sentence, a line or a displayed formula states, where there is neither a box nor `#### x`."""

import html
import re

from armlet.evaluation.grading.number_words import SIGN_WORD, number_at_start, words_as_digits
from armlet.evaluation.grading.quantities import compound
from armlet.evaluation.grading.symbols import marks_as_units

LINE_LENGTH = 1000  # number of characters of a sentence or line that are searched
# "The answer is", "The answers are", "Answer:", "the correct option is", "The solutions are", a heading "Answer".
ANNOUNCEMENT = re.compile(
    r"\b(?:answers?|(?:correct|right) (?:option|choice|result)|results?|solutions?)\b"
    r"(?:\s+(?:to|of|for)\s[^.:=\n]{0,80}?)?\s*"
    r"(?:(?:is|are|was|would be|must be|should be)(?:(?=n['’]t)|(?![a-z]))|['’]s\b)[\s:]*"
    r"|\banswers?\s*[:=：][\s:]*|答案(?:】|[:=：]|是|为)+\s*|^[ \t]*(?:final\s+)?answers?[ \t]*$\s*",
    re.IGNORECASE | re.MULTILINE,
)
ROWED = r"(?:align|aligned|alignat|gather|gathered|split|equation|multline)\*?"
ROW_VALUE = re.compile(r"\s*([a-zA-Z])\s*&?=&?((?:[^a-zA-Z=\\]|\\[a-z]+)*)")
ROWS = re.compile(rf"\\(?:begin|end)\{{{ROWED}\}}")
DISPLAY = re.compile(
    rf"\$\$(.{{1,2000}}?)\$\$|\\\[(.{{1,2000}}?)\\\]|\\begin\{{({ROWED})\}}(.{{1,2000}}?)\\end\{{\3\}}", re.DOTALL
)
# As in Pandoc: no space after the opening dollar sign or before the closing one, and no digit after that.
INLINE = re.compile(r"(?<![\\$])\$(?![\s$])((?:[^$\n]|\\\$)*?)(?<![\s\\$])\$(?![\d$])|\\\((.+?)\\\)")
JOINED = re.compile(r"\s*(?:,|;|,?\s*\band\b|,?\s*\bor\b|&)\s*")
# In the last line, the value follows the verb: "After 3 days he has 8 apples".
VERB = re.compile(
    r"\b(?:is|are|was|were|be|has|have|had|equals?|costs?|makes?|made|gives?|gets?|got|needs?|needed|takes?|earns?|earned|pays?|paid|"
    r"spends?|spent|becomes?|yields?|obtain|finds?|weighs?|sells?|sold|ate|eats?|saves?|saved|receives?|took|lasts?|lasted|"
    r"arrives?|leaves?|totals|(?:ends?|ended) up with)(?:\b:?|(?=n['’]t))|\b(?:it|that)['’]s\b",
    re.IGNORECASE,
)
# Words before a value that do not change it.
HEDGE = re.compile(
    r"^(?:(?:approximately|approx\.?|about|around|roughly|nearly|exactly|precisely|simply|just|only|equal to|therefore|"
    r"thus|so|indeed|definitely|clearly|probably|likely|given by|now|then|hence|found to be|that|both|either|option|"
    r"choice|strictly|a total of|the (?:number|value|point|pair|set|option|letter|interval)|≈|=|:|,)\s*)+(?=\S)",
    re.IGNORECASE,
)
NEGATION = re.compile(r"^(?:n['’]t|not|neither|never|cannot|can['’]t|unlikely|unclear)\b", re.IGNORECASE)
NEGATED_VERB = re.compile(r"(?:\bnot|n['’]t|\bcannot|\bnever)(?:\s+(?:be|equal|have|get))?:?$", re.IGNORECASE)
NEGATIVE = "it says what the answer is not"
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
# "No, wait, it's 6", "But it is 6", after an answer
CORRECTION = re.compile(
    r"(?:^|[.!?,;\n]\s*|\s[-–—]+\s*)(?:(?:no|wait|actually|hold on|sorry|correction|but|or rather)\b[,.:!]?\s*)+"
    r"it(?:['’]s| is| was| should be| must be)\s+(?=\S*[\d$\\])",
    re.IGNORECASE,
)
CONTRAST = re.compile(
    r"^(?:not|neither)\s+[^.;,]{1,40}?(?:,?\s+but(?:\s+rather)?|[;.,]\s*it(?:['’]s|\s+is))\s+", re.IGNORECASE
)
POSSIBILITY = re.compile(r"\b(?:could|might|may)\s+(?:also\s+)?be\b", re.IGNORECASE)
CONCLUSION = re.compile(
    r"[,;.]?\s+(?:so|therefore|thus|hence)\b(?!\s+(?:that|far|many|much)\b),?\s+(?=[^\n]*\d)", re.IGNORECASE
)
NAME_STATED = re.compile(r"\b(?:is|was|must be)\s+([A-Z][a-z]+)[.!]?\s*$")
LABEL = re.compile(
    r"^\s*(?:(?:step|part|case|question|problem)\s+\w{1,3}\s*[:.)]\s*|\d{1,2}[.)]\s+(?=\S.*=))", re.IGNORECASE
)
# "The roots are:" and then values as the items of a list
LISTED = re.compile(
    r"(\b(?:are|is|was|were|answers?|solutions?|values|roots)[ \t*]*:[ \t*]*)\n+"
    r"((?:[ \t]*(?:[-*•+]|\d{1,2}[.)])[ \t]+(?:[-−+\d$\\(]|[a-zA-Z]\w?\s*=)[^\n]{0,40}(?:\n+|\Z)){2,})",
    re.IGNORECASE,
)
LIST_MARK = re.compile(r"^[ \t]*(?:[-*•+]|\d{1,2}[.)])[ \t]+", re.MULTILINE)
# Where the value ends and its explanation begins.
CLAUSE_END = re.compile(
    r"[.?](?=\s|$)|!(?=\s+[A-Z]|\s*$)|[;:](?=\s+[^\W\d_]{2})|(?<=\d)\s+of\s|\s[-–—]\s+(?=[a-zA-Z]{2})"
    r"|\s+(?:because|since|as|which|where|when|so|for|after|if|but|that is|i\.e\.|by|while|therefore|hence|from)\s"
    r"|\s+(?:rather than|instead of|and not|or so)\b|,\s*(?:altogether|in total|in all|overall)\b"
    r"|(?<=[a-z])\s+(?:below|above|under|over|between|among|within|in|on|at)\s+(?=\S*\d)"
    r"|,\s*and (?:it|this|that|we)\b|,\s*(?:not|because|since|so|which|but|as|where|i\.e\.|that is|rather|instead)\b"
)
# "(3 red and 4 blue)", a reference "[1]" at the end, a calculation "(3 + 4 = 7)" at the end.
ASIDE = re.compile(
    r"\s*\((?!or\b)(?=[^()]*[^\W\d_]{2})[^()\\]*\)|\s*\[\d+\](?=\W*$)|(?<=\w)\s*\((?:\d+\s*[^\w\s,]\s*)+\d+\s*=?\s*\d*\)(?=\W*$)"
)
LEADING_WORDS = re.compile(r"^(?:[^\W\d_][^\W\d_'²³-]+[,:]?\s+)+(?=\S)")
STATED_NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,:]\d+)*")
CIRCUMSTANCE = re.compile(
    r"\b(?:in|after|within|for|of|on|at|by|from|with|every|per|since)\s+\d[\d.,]*\b(?!:\d|\s*[ap]\.?m\b)", re.I
)
CLOSING_REMARK = re.compile(
    r"\n[ \t]*(?:let me know|i hope|hope th|feel free|please|thank|if you (?:have|need))[^\n]*\Z", re.I
)
LATEX_WORDS = re.compile(r"\\(?:text\w*|math\w+|mbox|begin|end)\s*\{[^{}]*\}|\\[a-zA-Z]+")
PROSE = re.compile(r"[^\W\d_]{2}|(?<!\\)\$.*\S")  # two letters or a dollar sign may belong to prose
CHOSEN = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice|choose|select|pick)\s+\(?([A-J])\b(?!['’])|(?<!\w)\(?([A-J])\)?\s+is\s+(?:the\s+)?(?:correct|right)\b"
    r"|\b(?:[Ss]o|[Tt]hus|[Tt]herefore|[Hh]ence|say|but|go with),?\s+\(?([A-J])\)?[.!]?\s*\Z"
    r"|\A\s*\(?([A-J])[.):]\s(?=[^\d\n]*\Z)"
)
CHOICE_LINE = re.compile(r"\(?[A-Ja-j]\)?")
UNIT_LINE = re.compile(r"(?:(?:square|cubic)\s+)?[a-z]+")


def stated_in_words(text: str) -> tuple[str | None, str | None]:
    """What a text states as its answer, and why none can be read."""
    text = without_markdown(text)
    announcements = list(ANNOUNCEMENT.finditer(text))
    if announcements:
        rest = text[announcements[-1].end() :]
        if re.match(r"\s*\.*\s*$", rest):
            return None, None
        corrections = list(CORRECTION.finditer(rest))
        return read_statement(_first_statement(rest[corrections[-1].end() :] if corrections else rest))
    text = CLOSING_REMARK.sub("", text.rstrip())
    chosen = list(CHOSEN.finditer(text))
    if chosen:
        return chosen[-1][chosen[-1].lastindex or 0], None
    displays = list(DISPLAY.finditer(text))
    unit = text[displays[-1].end() :].strip(" .\n$") if displays else ""
    if displays and (not unit or UNIT_LINE.fullmatch(unit)):
        return f"{display_value(displays[-1])} {unit}".strip(), None
    return read_last_line(text.rstrip().rpartition("\n")[2][-LINE_LENGTH:])


def without_markdown(text: str) -> str:
    """Running text without marks of Markdown and HTML: bold, code, quotations, headings, list items and tags."""
    text = LISTED.sub(_joined_items, marks_as_units(html.unescape(text)))
    text = re.sub(r"<sup>([^<>\n]{0,40})</sup>", r"^{\1}", re.sub(r"~~[^~\n]*~~", "", text))
    text = re.sub(r"</?[a-zA-Z|][^<>\n]*>", " ", text)
    text = re.sub(r"^[ \t]*(?:```|~~~)\w*[ \t]*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^[ \t]*(?:(?:>|#{1,6}|[*•])[ \t]+|-[ \t]+(?!\d+[ \t]*$))+", "", text, flags=re.MULTILINE)
    text = re.sub(r"`+|\*{2,3}|==(?=[^=\n]+==)|(?<=[^\s=])==(?!=)", "", text)
    text = re.sub(r"(?<![\w*])[*_]{1,2}(?=\S)|(?<=\S)_{1,2}(?![\w*_{])|(?<=[^\s*])\*(?=[\s.,:;!]|$)", "", text)
    return re.sub(r"[“”\"]", "", text)


def _joined_items(listed: re.Match[str]) -> str:
    """The items of a list in one line."""
    items = [LIST_MARK.sub("", line).strip(" .,;") for line in listed[2].splitlines() if line.strip()]
    return f"{listed[1]} {', '.join(items)}\n"


def _first_statement(text: str) -> str:
    """The displayed formula or the line with which a text begins."""
    text = text.lstrip()
    display = DISPLAY.match(text)
    if display:
        return f"\\({display_value(display)}\\)"
    return text.partition("\n")[0][:LINE_LENGTH]


def display_value(display: re.Match[str]) -> str:
    """The last row of a displayed formula, without alignment."""
    return " ".join(last_row(display[1] or display[2] or display[4], rowed=bool(display[3])).split()).rstrip(" .,")


def last_row(formula: str, *, rowed: bool = False) -> str:
    r"""The last row of a formula with rows, such as `\begin{aligned}`, without alignment; others are unchanged."""
    if not rowed and not ROWS.search(formula):
        return formula
    rows = [row for row in re.split(r"\\\\", ROWS.sub("", formula)) if row.strip()]
    values = [ROW_VALUE.fullmatch(row) for row in rows]
    are_values = len({value[1] for value in values if value}) == len(rows)  # x = 1 and y = 2
    plain = [" ".join(row.replace("&", " ").split()) for row in rows if are_values or row is rows[-1]]
    return ", ".join(plain)


def read_last_line(line: str) -> tuple[str | None, str | None]:
    """What the last line states: what follows its verb, else its only number, formula or letter."""
    line = re.sub(r"^\s*\$([^$]+)\$[\s.]*$", r"\1", LABEL.sub("", ASIDE.sub("", line)))
    line = CONTRAST.sub("", line)
    if re.search(r"[^\W\d_].*\?\s*$", line):
        return None, "it is a question"
    if re.search(r"\bif\b.*\bwould\b", line, re.IGNORECASE):
        return None, "it is a condition"
    if len(POSSIBILITY.findall(line)) > 1:
        return None, "it says what the answer may be more than once"
    if CHOICE_LINE.fullmatch(line.strip(" .")) or not PROSE.search(LATEX_WORDS.sub("", line)):
        return line.strip(), None
    if not re.search(r"\d|\\|\$|[^\x00-\x7f]|=", line):
        verbs = [verb for verb in VERB.finditer(line) if number_at_start(_unhedged(line[verb.end() :]))]
        if verbs:
            return read_statement(line[verbs[-1].end() :])
        name = NAME_STATED.search(line)
        return (name[1] if name else None), None
    line = line[max([match.end() for match in CONCLUSION.finditer(line)], default=0) :]
    verbs = [verb for verb in VERB.finditer(line) if re.search(r"\d|\\|\$", line[verb.end() :])]
    if verbs and NEGATED_VERB.search(line, 0, verbs[-1].end()):
        return None, NEGATIVE
    if verbs:
        return read_statement(line[verbs[-1].end() :])
    rest = re.sub(r"^[^\d=$\\:：]+[:：]\s*", "", line)
    if not re.search(r"[=$]", rest) and PROSE.search(re.sub(r"\b(?:and|or)\b", "", LATEX_WORDS.sub("", rest))):
        is_sum = compound(LEADING_WORDS.sub("", rest).strip(" .")) is not None
        several = not is_sum and len(set(STATED_NUMBER.findall(rest))) > 1
        rest = CIRCUMSTANCE.sub("", rest) if several else rest
        numbers = sorted(set(STATED_NUMBER.findall(rest)))
        if several and len(numbers) > 1:
            return None, f"several numbers in the last line: {', '.join(numbers)}"
    return read_statement(LEADING_WORDS.sub("", rest))


def read_statement(sentence: str) -> tuple[str | None, str | None]:
    """The value that a sentence states, and why none can be read.

    A sentence that says what the answer is not, or states a range, has no value; "less than 3" is not 3.
    """
    sentence = re.sub(r"\bas well as\b", "and", sentence)
    sentence = CONTRAST.sub("", _unhedged(re.sub(r"\bRs\.\s*(?=\d)", "Rs ", ASIDE.sub("", sentence))))
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
    formulas = list(INLINE.finditer(sentence))
    return (_formulas(sentence, formulas) if formulas else _clause(sentence)), None


def _unhedged(sentence: str) -> str:
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
