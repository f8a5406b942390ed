"""Grades: whether the final answer of a text equals the gold answer."""

import re
from dataclasses import dataclass
from decimal import Decimal

from armlet.evaluation.grading.equality import same_answer
from armlet.evaluation.grading.final_answer import NO_ANSWER, closed_boxes, final_answer
from armlet.redistribution.errors import ArgumentError


@dataclass(frozen=True)
class Grade:
    r"""The grade of one answer.

    Attributes:
        correct: the stated answer equals the gold answer.
        extracted: the extracted answer; None if nothing could be extracted.
        format_ok: the answer is in the requested form (a non-empty `\boxed{}`, a `#### x` line, or the task's marker).
        unreadable: why nothing could be extracted, such as "the thought does not end"; None if something was.
    """

    correct: bool
    extracted: str | None
    format_ok: bool
    unreadable: str | None = None


def grade(answer_text: str, gold: str | int) -> Grade:
    r"""Grade a mathematical answer by comparing the final answer that a text states with the gold answer.

    The final answer follows the model's thought (`</think>`). It is the last non-empty `\boxed{...}`, with the boxes
    that "and", "or" or a comma join to it, unless a line "Answer: B" ends the text; else the last line `#### x` with an
    expression x, else what follows the last "answer is", else what the last line states. A text of one line may also be
    an answer in a few words ("Paris", "It is cold."). What is ambiguous ("between 5 and 12") is no answer, and
    `unreadable` says why. An unclosed box and all text after it are ignored.

    Exact values (integers, fractions, roots, powers) are compared exactly, however large or small. A decimal of at
    least six digits also equals what it is rounded from, such as 0.333333 for 1/3, a relative difference of at most
    10⁻⁵. A unit that only one side states is implied; units of both are converted (1 h 20 min is 80 minutes).
    Handles any text in bounded time, from any thread; a comparison that times out counts as different.

    Args:
        answer_text: the text that the model wrote.
        gold: the gold answer, as LaTeX or a plain number, or an int.

    Raises:
        ArgumentError: another type of answer or gold.
    """
    gold = _gold_text(answer_text, gold)
    answer = final_answer(answer_text)
    correct = answer.text is not None and same_answer(answer.text, gold)
    return Grade(correct, answer.text, answer.in_form, answer.unreadable)


def grade_integer(answer_text: str, gold: str | int) -> Grade:
    """Grade the integer after the last #: an optional minus and digits, then white space or the end.

    Raises:
        ArgumentError: the answer is no text, or the gold neither text nor int.
    """
    gold = _gold_text(answer_text, gold)
    match = re.search(r"#[ \t]*(-?[0-9]+)(?!\S)[^#]*\Z", answer_text)
    if not match:
        return Grade(False, None, False, "no whole number follows the last #")
    return Grade(equal_integers(match[1], gold), match[1], True)


def grade_released(answer_text: str, gold: str | int) -> Grade:
    """Grade as the released code of arXiv 2510.01032 does: correct if the last box is a substring of the gold answer.

    Do not use it for evaluation: an empty or missing box is a substring of everything.
    """
    gold = _gold_text(answer_text, gold)
    boxes, _ = closed_boxes(answer_text)
    box = boxes[-1].content if boxes else ""
    return Grade(box.strip() in gold, box or None, bool(boxes), None if box else NO_ANSWER)


def equal(a: str, b: str) -> bool:
    """Whether two extracted answers are equal, compared in both directions."""
    return same_answer(a, b) and same_answer(b, a)


def equal_integers(a: str, b: str) -> bool:
    """Whether two integers of any length are equal (`int` refuses over 4,300 digits); 042 equals 42, -0 equals 0."""
    return all(re.fullmatch("-?[0-9]+", text) for text in (a, b)) and Decimal(a) == Decimal(b)


def _gold_text(answer_text: object, gold: object) -> str:
    """The gold as text; raises ArgumentError unless the answer is text and the gold text or an int."""
    if not isinstance(answer_text, str):
        raise ArgumentError(f"answer_text: expected a text, found {type(answer_text).__name__}")
    if isinstance(gold, bool) or not isinstance(gold, str | int):
        raise ArgumentError(f"gold: expected a text or an int, found {type(gold).__name__}")
    return gold if isinstance(gold, str) else f"{Decimal(gold):f}"  # `str` refuses over 4,300 digits
