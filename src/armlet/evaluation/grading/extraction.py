"""Grading: extracts the stated answer from a text and checks with math-verify whether it equals the gold answer."""

import re
import string
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from armlet.evaluation.grading.math_worker import WORKER
from armlet.redistribution.errors import ArgumentError

SENTENCE_CHARACTERS = 1000  # at most this many characters of a sentence or line are searched for an answer
BOX_START = re.compile(r"\\f?box(?:ed)?\s*\{")
FONT_COMMAND = r"\\(?:text\w*|math\w+|mbox)"
# A number with a base. math-verify ignores the base and would take 204_5 to equal 204_7.
NUMERAL = re.compile(r"\s*-?[0-9a-zA-Z]+_\{?(\d+)\}?\s*")
# GSM8K's `#### x`. In a Markdown heading of this level, words follow the marks, perhaps after a "1. ".
ANSWER_LINE = re.compile(
    r"^[ \t]*####(?!#)[ \t]*(?!\d+[.)][ \t])((?:[-+−]?[\d.$\\(\[{]|[^\W\d_]\b)[^\n]*)", re.MULTILINE
)


@dataclass(frozen=True)
class Grade:
    r"""The grade of one answer.

    Attributes:
        correct: the stated answer equals the gold answer.
        extracted: the extracted answer; None if nothing could be extracted.
        format_ok: the answer is in the requested form (a non-empty `\boxed{}`, a `#### x` line, or the task's marker).
    """

    correct: bool
    extracted: str | None
    format_ok: bool


def grade(answer_text: str, gold: str | int) -> Grade:
    r"""Grade a mathematical answer by comparing the stated answer with the gold answer in math-verify.

    The stated answer is the last non-empty `\boxed{...}`, else the last line `#### x` with an expression x, else what
    follows the last "answer is", else the last expression of the last line. An unclosed box and all text after it are
    ignored. Handles any text in bounded time, from any thread; a comparison that times out counts as different.

    Args:
        answer_text: the text that the model wrote.
        gold: the gold answer, as LaTeX or a plain number, or an int.

    Raises:
        ArgumentError: another type of answer or gold.
    """
    gold = _gold_text(answer_text, gold)
    extracted, format_ok = _stated_answer(answer_text)
    return Grade(extracted is not None and _same_answer(extracted, _normalised(gold)), extracted, format_ok)


def grade_integer(answer_text: str, gold: str | int) -> Grade:
    """Grade the integer after the last #: an optional minus and digits, then white space or the end.

    Raises:
        ArgumentError: the answer is no text, or the gold neither text nor int.
    """
    gold = _gold_text(answer_text, gold)
    match = re.search(r"#[ \t]*(-?[0-9]+)(?!\S)[^#]*\Z", answer_text)
    return Grade(equal_integers(match[1], gold), match[1], True) if match else Grade(False, None, False)


def equal(a: str, b: str) -> bool:
    """Whether two extracted answers are equal, compared in both directions."""
    a, b = _normalised(a), _normalised(b)
    return _same_answer(a, b) and _same_answer(b, a)


def equal_integers(a: str, b: str) -> bool:
    """Whether two integers of any length are equal (`int` refuses over 4,300 digits); 042 equals 42, -0 equals 0."""
    return all(re.fullmatch("-?[0-9]+", text) for text in (a, b)) and Decimal(a) == Decimal(b)


def grade_released(answer_text: str, gold: str | int) -> Grade:
    """Grade as the released code of arXiv 2510.01032 does: correct if the last box is a substring of the gold answer.

    Do not use it for evaluation: an empty or missing box is a substring of everything.
    """
    gold = _gold_text(answer_text, gold)
    boxes, _ = _closed_boxes(answer_text)
    box = boxes[-1] if boxes else ""
    return Grade(box.strip() in gold, box or None, bool(boxes))


def _gold_text(answer_text: object, gold: object) -> str:
    """The gold as text; raises ArgumentError unless the answer is text and the gold text or an int."""
    if not isinstance(answer_text, str):
        raise ArgumentError(f"answer_text: expected a text, found {type(answer_text).__name__}")
    if isinstance(gold, bool) or not isinstance(gold, str | int):
        raise ArgumentError(f"gold: expected a text or an int, found {type(gold).__name__}")
    return gold if isinstance(gold, str) else f"{Decimal(gold):f}"  # `str` refuses over 4,300 digits


def _stated_answer(text: str) -> tuple[str | None, bool]:
    """The stated answer or None, and whether it is in the requested form."""
    boxes, text = _closed_boxes(text)
    lines = ANSWER_LINE.findall(text)
    for candidate in (*map(_normalised, reversed(boxes)), *map(_first_expression, reversed(lines))):
        if candidate and _has_content(candidate):
            return candidate, True
    return _answer_in_words(text), False


def _closed_boxes(text: str) -> tuple[list[str], str]:
    """The contents of the outermost closed boxes, and the text before the first unclosed box."""
    contents, start = [], 0
    while box := BOX_START.search(text, start):
        end = _closing_brace(text, box.end())
        if end is None:
            return contents, text[: box.start()]
        contents.append(text[box.end() : end])
        start = end
    return contents, text


def _closing_brace(text: str, start: int) -> int | None:
    r"""The index of the brace that closes the one just before `start`; `\{` and `\}` are literal braces."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None


def _answer_in_words(text: str) -> str | None:
    """The answer after the last "answer is", else the last expression of the last line."""
    endings = re.findall(r"(?i)\banswer\s*(?:is|:|=)[\s:]*([^\n]*)", text)
    if endings:
        sentence = re.split(r"[.!?](?:\s|$)", _without_bold(endings[-1][:SENTENCE_CHARACTERS]), maxsplit=1)[0]
        if _has_content(sentence):
            return _first_expression(sentence) or _normalised(sentence)
    line = text.rstrip().rpartition("\n")[2]
    return _last_expression(_without_bold(line[-SENTENCE_CHARACTERS:]))


def _first_expression(sentence: str) -> str | None:
    """The sentence if it is one formula without words, otherwise the first expression extracted from it."""
    words = re.sub(r"\\(?:begin|end|text\w*|math\w+|mbox)\s*\{[^{}]*\}|\\[a-zA-Z]+", "", sentence)
    if re.search(r"(?<!\\)\$", sentence) or r"\(" in sentence or re.search(r"[^\W\d_]{2}", words):
        return _last_expression(f"answer: {sentence}")
    return _normalised(sentence)


def _last_expression(text: str) -> str | None:
    """The last expression that math-verify finds in running text, with the percent sign that it drops."""
    expression = WORKER.ask("read", text) if re.search(r"[\w\\]", text) else None
    if not isinstance(expression, str):
        return None
    # For "x = 1 or x = 2" math-verify returns "x = 1 and x = 2", which is not a formula.
    expression = _normalised(expression.replace(" and ", ", ").rstrip(" .,:;!"))
    percent = re.search(re.escape(expression) + r"\s*(?:\\?%|percent)", text)
    return (rf"{expression}\%" if percent else expression) if _has_content(expression) else None


def _without_bold(text: str) -> str:
    """Running text without the Markdown bold markers."""
    return re.sub(r"(?<![\w)])\*\*|\*\*(?![\w(-])", "", text).strip()


def _has_content(latex: str) -> bool:
    """Whether anything is left after spacing and empty groups are removed."""
    rest = re.sub(r"\\(?:q?quad|[hv]space\s*\{[^}]*\}|text\w*|mbox|[^a-zA-Z{}])", "", latex)
    return re.search(r"[^\W_]|\\[{}]", rest) is not None


def _normalised(latex: str) -> str:
    """An answer without the notations that math-verify misreads or cannot parse."""
    latex = re.sub(r"\\?\$|(?<!\\)\\[()\[\]]", "", latex)  # dollar signs, as currency or around a formula
    latex = re.sub(r"(?<=\d)(?:\\[,!;:]|\{,\}|,\\!|~)\s*(?=\d{3}(?!\d))", ",", latex)  # 1\,234 is not 1 · 234
    latex = re.sub(r"^\s*[a-zA-Z]\s*\\in(?![a-zA-Z])", "", latex)  # "x ∈ S" states S
    latex = latex.strip()
    return latex if latex.endswith(r"\right.") else latex.rstrip(string.whitespace + ".")


@lru_cache(maxsize=1 << 16)
def _same_answer(answer: str, gold: str) -> bool:
    """Whether an answer equals the gold. math-verify accepts the answer x = 0 for the gold 0, but not 0 for x = 0."""
    if answer == gold:
        return True
    if _is_words(answer) or _is_words(gold):
        return _bare_words(answer) == _bare_words(gold)
    bases = {numeral[1] for numeral in map(NUMERAL.fullmatch, (answer, gold)) if numeral}
    return len(bases) < 2 and WORKER.ask("same", answer, gold) is True


def _is_words(latex: str) -> bool:
    r"""Whether this is `\text{...}` without a digit, or plain words, which math-verify would parse as a product."""
    styled = FONT_COMMAND + r"\s*\{[^{}\\\d]*\}"
    plain = r"\(?[^\W\d_]{3,}(?:[ '-][^\W\d_]+)*\)?"
    letter = re.search(r"[^\W\d_]", _bare_words(latex))
    return bool(letter and re.fullmatch(rf"{styled}|{plain}", latex.strip()))


def _bare_words(latex: str) -> str:
    """The words, lower-cased, without font commands, surrounding brackets or extra spaces."""
    bare = re.sub(FONT_COMMAND + r"(?![a-zA-Z])|[{}]", "", latex)
    bare = " ".join(re.sub(r"\\[ ,;:!]|~", " ", bare).split()).rstrip(". ")
    return re.sub(r"^\((.*)\)$", r"\1", bare).strip().casefold()
