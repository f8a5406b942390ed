"""Few-shot examples before a question, and the template of questions."""

from collections.abc import Sequence
from typing import NamedTuple

from armlet.redistribution.errors import ArgumentError

QUESTION = "{question}"
PLAIN_TEMPLATE = f"Question: {QUESTION}\nAnswer:"
"""lm-eval's template of a question in plain text; in a chat, a question stands alone by default."""


class Shot(NamedTuple):
    """A question and its answer, shown before the question that is asked."""

    question: str  # as it is asked, in its template
    answer: str


def check_template(template: str | None) -> None:
    """Raises ArgumentError unless a template contains the question exactly once."""
    if template is not None and template.count(QUESTION) != 1:
        raise ArgumentError(f"template: expected one {QUESTION}, found {template.count(QUESTION)} in {template!r}")


def in_template(template: str | None, question: str) -> str:
    """The question as it is asked; None is the question alone."""
    return (template or QUESTION).replace(QUESTION, question)


def shots_text(shots: Sequence[Shot]) -> str:
    """The examples as plain text, each followed by an empty line, as in lm-eval."""
    return "".join(f"{question} {answer}\n\n" for question, answer in shots)
