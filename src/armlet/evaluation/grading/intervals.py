r"""Inequalities in one letter as the intervals that they state: x < 3, 0 \le x < 5, "x < -2 or x > 5"."""

import re

from armlet.evaluation.grading.lists import split_top

COMPARISON = r"\s*(<|>|\\(?:le|ge|ne)(?![a-zA-Z]))\s*"
LETTER = r"\s*\\?[a-zA-Z]\w*\s*"
ONE_SIDED = re.compile(rf"(?:{LETTER})?{COMPARISON}(.+)")
REVERSED = re.compile(rf"(.+?){COMPARISON}{LETTER}")
TWO_SIDED = re.compile(rf"(.+?){COMPARISON}{LETTER}{COMPARISON}(.+)")
MIRROR = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}


def as_intervals(text: str) -> str | None:
    """The union or intersection of intervals that inequalities state; None if the text is something else."""
    parts = split_top(text, frozenset({"or", "and", ","}))
    intervals = [_interval(part) for part in parts]
    if None in intervals:
        return None
    joint = r" \cup " if re.search(r"\bor\b", text) else r" \cap "
    return joint.join(interval for interval in intervals if interval)


def _interval(text: str) -> str | None:
    if match := TWO_SIDED.fullmatch(text):
        low, first, second, high = match.groups()
        if r"\ne" in (first, second) or (first in ("<", r"\le")) != (second in ("<", r"\le")):
            return None
        if first in (">", r"\ge"):
            low, first, second, high = high, MIRROR[second], MIRROR[first], low
        return ("(" if first == "<" else "[") + f"{low}, {high}" + (")" if second == "<" else "]")
    if match := ONE_SIDED.fullmatch(text):
        relation, bound = match.groups()
    elif match := REVERSED.fullmatch(text):
        bound, relation = match[1], MIRROR[match[2]]
    else:
        return None
    return {
        "<": rf"(-\infty, {bound})",
        r"\le": rf"(-\infty, {bound}]",
        ">": rf"({bound}, \infty)",
        r"\ge": rf"[{bound}, \infty)",
        r"\ne": rf"(-\infty, {bound}) \cup ({bound}, \infty)",
    }[relation]
