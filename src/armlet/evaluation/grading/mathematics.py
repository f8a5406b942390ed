"""The process in which math-verify reads and compares answers: a line of JSON in, a line of JSON out.

It is a separate process because math-verify cannot limit its time outside the main thread, and because only ending a
process stops `10**10**10`. It is run as a script and imports nothing of armlet, so it starts within a second.
"""

import contextlib
import json
import logging
import os
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sympy import Basic
    from sympy.matrices import MatrixBase

    Parsed = list[Basic | MatrixBase | str]

REQUEST_CPU_SECONDS = 3  # of 64,262 comparisons of golds none took 2
MATHEMATICS_MEMORY_BYTES = 4 << 30


@lru_cache(maxsize=4096)
def parse_formula(latex: str) -> "Parsed":
    """What math-verify makes of one formula: an expression, if it could be parsed, and its text."""
    from math_verify import LatexExtractionConfig, parse

    return parse(f"${latex}$", extraction_config=[LatexExtractionConfig()], parsing_timeout=None)  # type: ignore[arg-type]


def read_expression(text: str) -> str | None:
    """The last expression that math-verify finds in running text; None where there is none."""
    from math_verify import parse

    parsed = parse(text, parsing_timeout=None)  # type: ignore[arg-type]
    if len(parsed) < 2 or not isinstance(parsed[-1], str):
        return None
    return parsed[-1].strip() or None


def is_same(answer: str, gold: str) -> bool:
    """Whether math-verify takes the answer to be the gold.

    math-verify accepts `-2,1` as the interval `(-2,1)`, and a set as a point; here the brackets decide which is meant.
    """
    from math_verify import verify
    from sympy import FiniteSet, Interval, Tuple

    stated, right = parse_formula(answer), parse_formula(gold)
    values = [parsed[0] for parsed in (stated, right) if parsed]
    unordered = any(isinstance(value, FiniteSet) for value in values)
    if unordered and any(isinstance(value, Interval | Tuple) for value in values):
        return False
    return verify(right, stated, allow_set_relation_comp=True, timeout_seconds=None)


def reply(operation: str, *texts: str) -> str | bool | None:
    """The result of "read" or "same", or None where the library fails on these texts."""
    try:
        return read_expression(*texts) if operation == "read" else is_same(*texts)
    except Exception:  # whatever a parser raises on arbitrary text: it could not be read
        return None


def limit(name: str, most: int) -> None:
    """Set a soft limit of this process."""
    import resource

    kind = getattr(resource, name)
    resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))


def limit_request() -> None:
    """Limit the next request's processor time, counted from now: a busy machine changes no verdict."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    limit("RLIMIT_CPU", int(used.ru_utime + used.ru_stime) + REQUEST_CPU_SECONDS + 1)


def serve() -> None:
    """Answer requests until the other end closes."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not a reply
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ImportError, OSError, ValueError):  # the system refuses; Windows has no such limits
        limit("RLIMIT_AS", MATHEMATICS_MEMORY_BYTES)
    for line in sys.stdin:
        with contextlib.suppress(ImportError):
            limit_request()
        replies.write(json.dumps(reply(*json.loads(line))) + "\n")
        replies.flush()


if __name__ == "__main__":
    serve()
