"""The process in which math-verify reads and compares answers: a line of JSON in, a line of JSON out.

A process of its own, because math-verify cannot bound its time outside the main thread, and nothing but the end of a
process bounds `10**10**10`. Run as a script; it imports nothing of armlet, so it starts in a second.
"""

import contextlib
import json
import logging
import os
import sys
from functools import lru_cache
from typing import Any

CPU_SECONDS = 3  # of 64,262 comparisons of golds none took 2
MEMORY_BYTES = 4 << 30

Request = list[str]  # ["read", text] or ["same", answer, gold]


@lru_cache(maxsize=4096)
def parsed(latex: str) -> list[Any]:
    """What math-verify makes of one formula: an expression, if it is one, and its text."""
    from math_verify import LatexExtractionConfig, parse

    return parse(f"${latex}$", extraction_config=[LatexExtractionConfig()], parsing_timeout=None)  # type: ignore[arg-type]


def read(text: str) -> str | None:
    """The last expression of running text as math-verify finds it; None where there is none."""
    from math_verify import parse

    found = parse(text, parsing_timeout=None)  # type: ignore[arg-type]
    if len(found) < 2 or not isinstance(found[-1], str) or not found[-1].strip():
        return None
    return found[-1].strip()


def unordered(values: list[Any]) -> bool | None:
    """True for a set or a bare list, False for a point or an interval, None for what is neither."""
    from sympy import FiniteSet, Interval, Tuple

    value = values[0] if values else None
    if isinstance(value, FiniteSet):
        return True
    return False if isinstance(value, Interval | Tuple) else None


def same(answer: str, gold: str) -> bool:
    """Whether math-verify holds the answer to be the gold.

    math-verify lets `-2,1` pass for the interval `(-2,1)`, and a set for a point; here brackets say which is meant.
    """
    from math_verify import verify

    ours, theirs = parsed(answer), parsed(gold)
    if {unordered(ours), unordered(theirs)} == {True, False}:
        return False
    return verify(theirs, ours, allow_set_relation_comp=True, timeout_seconds=None)


def reply(request: Request) -> str | bool | None:
    """The result, or None where the library fails on what it was given."""
    try:
        return read(request[1]) if request[0] == "read" else same(request[1], request[2])
    except Exception:  # whatever a parser raises on foreign text: it could not be read
        return None


def limit_request() -> None:
    """Allow the next request its seconds of processor time, counted from now: a busy machine changes no verdict."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = int(used.ru_utime + used.ru_stime) + CPU_SECONDS + 1
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def limit_memory() -> None:
    """No answer is worth more memory than this; where the system refuses, time remains bounded."""
    import resource

    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def serve() -> None:
    """Answer requests until the other end closes."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no reply
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ImportError):  # no such limits on Windows
        limit_memory()
    for line in sys.stdin:
        with contextlib.suppress(ImportError):
            limit_request()
        replies.write(json.dumps(reply(json.loads(line))) + "\n")
        replies.flush()


if __name__ == "__main__":
    serve()
