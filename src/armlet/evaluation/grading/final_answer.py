r"""Finds the final answer in what a model wrote.

Only the text after the thought is read. The answer is the last box, or several boxes of one answer, unless a line
"Answer: B" ends the text; without a box, the last line `#### x`; without either, what a sentence or the last line
states.
"""

import re
from dataclasses import dataclass

from armlet.evaluation.grading.notation import closing_brace, in_plain_notation
from armlet.evaluation.grading.statements import last_row, stated_in_words
from armlet.evaluation.grading.thoughts import after_thought

ANSWER_TAG = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL | re.IGNORECASE)
BOX_START = re.compile(r"\\(?:f?box(?:ed)?|framebox|bbox)\s*(?:\[[^\]]{0,40}\]\s*){0,2}\{")
BARE_BOX = re.compile(r"\\boxed\s+(-?\d+(?:\.\d+)?|\\?[a-zA-Z]+)(?![{\w])")
# Between two boxes of one answer: "and", "or", a comma, and the name whose value is in the second box.
CONNECTOR = re.compile(
    r"[\s$]*(?:,|;|\band\b|\bor\b|&|\\text\s*\{\s*,?\s*(?:and|or)\s*\})[\s$,]*(?:and|or)?[\s$]*(?:[a-zA-Z]\w?\s*=\s*)?"
)
VALUE_NAME = re.compile(r"([a-zA-Z]\w?)\s*=\s*$")
# GSM8K's `#### x`. In a Markdown heading of this level, words follow the marks, perhaps after a "1. ".
ANSWER_LINE = re.compile(
    r"^[ \t]*####(?!#)[ \t]*(?!\d+[.)][ \t])((?:\*\*)?(?:[-+−–]?[\d.$€£\\(\[{]|[^\W\d_]\b)[^\n]*)",
    re.MULTILINE,
)
CHOICE_BELOW = re.compile(r"\n\W*(?i:(?:final )?answer)\W*:\W*([A-J])\W*$")  # after a box of something else
NO_ANSWER = "no answer is stated"


@dataclass(frozen=True)
class FinalAnswer:
    """A final answer as it was written.

    Attributes:
        text: the answer; None if none could be read.
        in_form: it is in the requested form, a box or a line `#### x`.
        unreadable: why no answer could be read; None if one was.
    """

    text: str | None
    in_form: bool = False
    unreadable: str | None = None


def final_answer(text: str) -> FinalAnswer:
    """The final answer that a text states, or why there is none."""
    text, problem = after_thought(text)
    if problem:
        return FinalAnswer(None, unreadable=problem)
    text = BARE_BOX.sub(r"\\boxed{\1}", [text, *ANSWER_TAG.findall(text)][-1])
    boxes, closed = closed_boxes(text)
    if boxes and (choice := CHOICE_BELOW.search(closed, boxes[-1].end)):
        return FinalAnswer(choice[1])
    boxed = _boxed_answer(boxes, closed)
    if boxed:
        return FinalAnswer(boxed, in_form=True)
    lines = [line for line in map(_line_answer, ANSWER_LINE.findall(closed)) if has_content(line)]
    if lines:
        return FinalAnswer(lines[-1], in_form=True)
    if closed != text:
        return FinalAnswer(None, unreadable="the box is not closed")
    stated, problem = stated_in_words(text)
    if stated and has_content(stated):
        return FinalAnswer(stated)
    return FinalAnswer(None, unreadable=problem or NO_ANSWER)


@dataclass(frozen=True)
class Box:
    """A closed box: what it contains, and where it starts and ends in the text."""

    content: str
    start: int
    end: int


def closed_boxes(text: str) -> tuple[list[Box], str]:
    """The outermost closed boxes, and the text before the first unclosed box."""
    boxes, start = [], 0
    while match := BOX_START.search(text, start):
        end = closing_brace(text, match.end())
        if end is None:
            return boxes, text[: match.start()]
        boxes.append(Box(text[match.end() : end], match.start(), end + 1))
        start = end
    return boxes, text


def _boxed_answer(boxes: list[Box], text: str) -> str | None:
    """The last box with content; the boxes before it that are parts of the same answer make it a list."""
    boxes = [box for box in boxes if has_content(box.content)]
    if not boxes:
        return None
    first = len(boxes) - 1
    while first and CONNECTOR.fullmatch(text, boxes[first - 1].end, boxes[first].start):
        first -= 1
    parts = boxes[first:]
    if len(parts) == 1:
        return plain_edges(last_row(parts[0].content))
    names = [VALUE_NAME.search(text, 0, box.start) for box in parts]
    named = [f"{name[1]} = {box.content}" if name else box.content for name, box in zip(names, parts, strict=True)]
    return ", ".join(named)


def _line_answer(line: str) -> str:
    return plain_edges(re.sub(r"\*\*|<[^<>]*>", "", line))


def plain_edges(answer: str) -> str:
    """An answer without the spaces, dollar signs and full stops around it."""
    answer = answer.strip()
    while len(answer) > 2 and answer[0] == answer[-1] == "$":
        answer = answer[1:-1].strip()
    return answer if answer.endswith((r"\right.", "...")) else answer.rstrip(" \t\n.")


def has_content(answer: str) -> bool:
    """Whether an answer contains more than spacing, punctuation and empty groups."""
    return re.search(r"[^\W_]|\\[{}]|\\(?:infty|pi|emptyset|varnothing|mathbb)", in_plain_notation(answer)) is not None
