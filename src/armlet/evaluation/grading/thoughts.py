"""Finds the end of the thought that a reasoning model writes before its answer."""

import re

THOUGHT_END = re.compile(
    r"</(?:think|thinking|thought|thoughts|reasoning|reflection)>|◁/think▷|<\|end_of_thought\|>", re.I
)
THOUGHT_START = re.compile(r"<(?:think|thinking|thought|thoughts|reasoning)>|◁think▷|<\|begin_of_thought\|>", re.I)


def after_thought(text: str) -> tuple[str, str | None]:
    """The text after the model's thought, and what is wrong if there is none."""
    rest = THOUGHT_END.split(text)[-1]
    if THOUGHT_START.search(rest):
        return "", "the thought does not end"
    return rest, None if rest.strip() or rest == text else "nothing follows the thought"
