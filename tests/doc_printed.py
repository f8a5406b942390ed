"""What a page says that its code prints, compared with what was printed.

Whole numbers are equal. Others may differ by 1 % or one unit of their last digit, because another processor rounds
gates otherwise.
"""

import ast
import re
from typing import Any

import pytest

from doc_blocks import Block

NUMBER = re.compile(r"[+−-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
TOLERANCE = 0.01  # relative


def beside(block: Block) -> dict[int, Any]:
    """What a comment after a call of print says that it prints, by its line, where that is a number or a collection."""
    stated = {}
    for number, line in enumerate(block.text.split("\n"), block.line):
        call, mark, comment = line.partition("  # ")
        if call.lstrip().startswith("print(") and mark:
            try:
                stated[number] = ast.literal_eval(comment.strip())
            except (ValueError, SyntaxError):
                continue  # a remark
    return stated


def same_value(stated: Any, printed: Any) -> bool:
    """Whether two values agree, collections member by member."""
    if isinstance(stated, dict):
        return stated.keys() == printed.keys() and all(same_value(stated[key], printed[key]) for key in stated)
    if isinstance(stated, list | tuple):
        return len(stated) == len(printed) and all(map(same_value, stated, printed))
    return stated == printed or stated == pytest.approx(printed, rel=TOLERANCE)


def same_line(stated: str, printed: str) -> bool:
    """Whether two lines agree: equal words, however many spaces stand between them, and numbers that agree."""
    numbers = list(zip(NUMBER.findall(stated), NUMBER.findall(printed), strict=False))
    return _words(stated) == _words(printed) and all(abs(value(a) - value(b)) <= slack(a) for a, b in numbers)


def value(number: str) -> float:
    """A printed number."""
    return float(number.replace("−", "-"))


def slack(number: str) -> float:
    """How far another number may be from a printed one."""
    digits, _, exponent = number.partition("e")
    if "." not in digits and not exponent:
        return 0.0
    unit = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
    return max(TOLERANCE * abs(value(number)), 1.0000001 * unit)


def _words(line: str) -> list[str]:
    """The text around the numbers, and a mark for each number."""
    return NUMBER.sub(" # ", line).split()


def missing_lines(stated: str, printed: str) -> list[str]:
    """The lines of a page that were not printed, in their order; what was printed may have more lines."""
    rest = iter(printed.splitlines())
    return [line for line in stated.splitlines() if not any(same_line(line, other) for other in rest)]
