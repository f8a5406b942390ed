r"""Reads what a text states, where there is neither a box nor `#### x`: an announcement, a display, the last line."""

import html
import re

from armlet.evaluation.grading.last_line import CHOICE_LINE, read_last_line
from armlet.evaluation.grading.sentences import read_statement
from armlet.evaluation.grading.symbols import marks_as_units

LINE_LENGTH = 1000  # number of characters of a sentence or line that are searched
# "The answer is", "The answers are", "Answer:", "the correct option is", "The solutions are", a heading "Answer".
ANNOUNCEMENT = re.compile(
    r"(?<!wrong )(?<!incorrect )\b(?:answers?|(?:correct|right) (?:option|choice|result)|results?|solutions?)\b"
    r"(?:\s+(?:to|of|for)\s[^.:=\n]{0,80}?)?\s*"
    r"(?:(?:is|are|was|would be|must be|should be)(?:(?=n['’]t)|(?![a-z]))|['’]s\b)[\s:]*"
    r"|\banswers?\s*[:=：][\s:]*|\b(?:antwort|réponse|respuesta|risposta|resposta|ответ|答え)\s*[:：]\s*"
    r"|答案(?:】|[:=：]|是|为)+\s*|^[ \t]*(?:final\s+)?answers?[ \t]*$\s*",
    re.IGNORECASE | re.MULTILINE,
)
ROWED = r"(?:align|aligned|alignat|gather|gathered|split|equation|multline)\*?"
ROW_VALUE = re.compile(r"\s*([a-zA-Z])\s*&?=&?((?:[^a-zA-Z=\\]|\\[a-z]+)*)")
ROWS = re.compile(rf"\\(?:begin|end)\{{{ROWED}\}}")
DISPLAY = re.compile(
    rf"\$\$(.{{1,2000}}?)\$\$|\\\[(.{{1,2000}}?)\\\]|\\begin\{{({ROWED})\}}(.{{1,2000}}?)\\end\{{\3\}}", re.DOTALL
)
# "No, wait, it's 6", "But it is 6", after an answer
CORRECTION = re.compile(
    r"(?:^|[.!?,;\n]\s*|\s[-–—]+\s*)(?:(?:no|wait|actually|hold on|sorry|correction|but|or rather)\b[,.:!]?\s*)+"
    r"it(?:['’]s| is| was| should be| must be)\s+(?=\S*[\d$\\])",
    re.IGNORECASE,
)
# "The roots are:" and then values as the items of a list
VALUE_LIST = re.compile(
    r"(\b(?:are|is|was|were|answers?|solutions?|values|roots)[ \t*]*:[ \t*]*)\n+"
    r"((?:[ \t]*(?:[-*•+]|\d{1,2}[.)])[ \t]+(?:[-−+\d$\\(]|[a-zA-Z]\w?\s*=)[^\n]{0,40}(?:\n+|\Z)){2,})",
    re.IGNORECASE,
)
LIST_MARK = re.compile(r"^[ \t]*(?:[-*•+]|\d{1,2}[.)])[ \t]+", re.MULTILINE)
CLOSING_REMARK = re.compile(
    r"\n[ \t]*(?:let me know|i hope|hope th|feel free|please|thank|if you (?:have|need))[^\n]*\Z", re.I
)
CHOSEN = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice|choose|select|pick)\s+\(?([A-J])\b(?!['’])|(?<!\w)\(?([A-J])\)?\s+is\s+(?:the\s+)?(?:correct|right)\b"
    r"|\b(?:[Ss]o|[Tt]hus|[Tt]herefore|[Hh]ence|say|but|go with),?\s+\(?([A-J])\)?[.!]?\s*\Z"
    r"|\A\s*\(?([A-J])(?:[.):]\s(?=[^\d\n]*\Z)|\)?\.?\s*\n)"
)
# The last line is the whole text, or a line "The capital is:" announces it.
ALONE = re.compile(r"(?:\A|\A(?:(?!\bnot\b|n['’]t|\bnever\b)[^\n])*\b(?:is|are|was|were)[ *]*:[ *]*\n)\s*[^\n]*\Z")
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
    text = CLOSING_REMARK.sub("", text.rstrip()).rstrip()
    line = text.rstrip().rpartition("\n")[2][-LINE_LENGTH:]
    chosen = list(CHOSEN.finditer(text))
    if chosen and not CHOICE_LINE.fullmatch(line.strip(" .")):
        return chosen[-1][chosen[-1].lastindex or 0], None
    displays = list(DISPLAY.finditer(text))
    unit = text[displays[-1].end() :].strip(" .\n$") if displays else ""
    if displays and (not unit or UNIT_LINE.fullmatch(unit)):
        return f"{display_value(displays[-1])} {unit}".strip(), None
    return read_last_line(line, alone=ALONE.search(text) is not None)


def without_markdown(text: str) -> str:
    """Running text without marks of Markdown and HTML: bold, code, quotations, headings, list items and tags."""
    text = VALUE_LIST.sub(_joined_items, marks_as_units(html.unescape(text)))
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
