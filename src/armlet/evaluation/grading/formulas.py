"""Compares formulas with sympy, in a process of its own that `math_worker` starts. It imports nothing of armlet."""

import json
import logging
import os
import re
import signal
import sys
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from sympy import Basic, Eq, Expr
    from sympy.matrices import MatrixBase

REQUEST_CPU_SECONDS = 4  # of 64,262 comparisons of gold answers, none took 2 seconds
MEMORY_BYTES = 4 << 30
DIGITS = 60  # number of digits to which constants are evaluated
MOST_DIGITS = 1000  # two irrational constants that agree in so many are equal
ROUNDED_DIGITS = 6  # a decimal with at least this many digits equals what rounds to it: 0.333333 is 1/3
DECIMAL = re.compile(r"-?(\d+)\.(\d+)")
GARBLED = re.compile(r"(?<![\d_^])\d+\s+\d|:.*:|\\ldots|\w\s*[\"']\s*\d")
SAMPLES = ((-1.375, 0.71, 2.3, -3.14), (0.62, 5.25, 1.125, 0.47), (4.7, -0.31, -2.9, 1.6))
"""Values of the unknowns at which two expressions are compared, as many times as there are rows."""


def serve() -> None:
    """Answers requests until the pipe closes; the reply is None if sympy fails."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that no output of a library is taken for a reply
    logging.disable(logging.CRITICAL)
    with suppress(ImportError, OSError, ValueError):  # some systems refuse, and Windows has no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for line in sys.stdin:
        if hasattr(signal, "setitimer"):  # not on Windows. Processor time does not depend on how busy the machine is
            signal.setitimer(signal.ITIMER_PROF, REQUEST_CPU_SECONDS)  # then SIGPROF ends this process
        answer, gold = json.loads(line)
        try:
            reply = is_same(answer, gold)
        except Exception:  # a parser may raise anything on arbitrary text
            reply = None
        print(json.dumps(reply), file=replies, flush=True)


def is_same(answer: str, gold: str) -> bool:
    """Whether two formulas in plain notation are equal.

    Expressions and matrices are compared here: math-verify rounds to 6 decimal places, so that 2^-60 would
    equal 2^-61. It compares sets, intervals and relations.
    """
    left, right = parse_formula(answer), parse_formula(gold)
    if is_matrix(left) and is_matrix(right):
        return left.shape == right.shape and all(map(same_expressions, left.flat(), right.flat()))
    if is_expression(left) and is_expression(right):
        return same_expressions(left, right) or same_rounded(answer, right) or same_rounded(gold, left)
    if any(map(is_matrix, (left, right))):
        return False
    if is_equation(left) and is_equation(right):
        return are_proportional(left, right)
    from math_verify import verify

    return verify(right, left, numeric_precision=DIGITS, allow_set_relation_comp=True, timeout_seconds=None)


def same_numbers(answer: str, gold: str) -> bool:
    """Whether two integers, decimals or fractions of integers are equal, or one is rounded from the other."""
    left, right = exact_value(answer), exact_value(gold)
    return (
        left is not None and right is not None and (left == right or rounds_to(answer, right) or rounds_to(gold, left))
    )


def exact_value(text: str) -> Fraction | None:
    """The value of an integer, a decimal or a fraction of integers; None for other formulas."""
    text = re.sub(r"\\frac\{(-?\d+)\}\{(\d+)\}", r"\1/\2", text.replace(" ", "").removeprefix("+"))
    if not re.fullmatch(r"-?\d+(\.\d*)?|-?\d+/\d*[1-9]\d*", text) or len(text) > 4000:
        return None
    return Fraction(text)


def rounds_to(decimal: str, value: Fraction) -> bool:
    """Whether a decimal with enough digits is the value, rounded or truncated to its decimal places."""
    match = DECIMAL.fullmatch(decimal.replace(" ", ""))
    if not match or len((match[1] + match[2]).lstrip("0")) < ROUNDED_DIGITS:
        return False
    stated, unit = abs(Fraction(match[0])), Fraction(1, 10 ** len(match[2]))
    shift = abs(value) / unit
    same_sign = (value < 0) == match[0].startswith("-")
    return same_sign and stated / unit in (int(shift), int(shift + Fraction(1, 2)))


def same_rounded(decimal: str, value: "Expr") -> bool:
    """Whether a decimal is a rounded constant, such as 3.14159 for pi."""
    if value.free_symbols or not value.is_real or not DECIMAL.fullmatch(decimal.replace(" ", "")):
        return False
    return rounds_to(decimal, Fraction(str(value.evalf(DIGITS))))


def is_matrix(value: object) -> "TypeGuard[MatrixBase]":
    """Whether a parsed formula is a matrix or a vector."""
    from sympy import MatrixBase

    return isinstance(value, MatrixBase)


def is_expression(value: object) -> "TypeGuard[Expr]":
    """Whether a parsed formula has one value; a set, a relation or a matrix has not."""
    from sympy import Expr

    return isinstance(value, Expr)


def is_equation(value: object) -> "TypeGuard[Eq]":
    """Whether a parsed formula is an equation of two expressions."""
    from sympy import Eq

    return isinstance(value, Eq) and is_expression(value.lhs) and is_expression(value.rhs)


def are_proportional(left: "Eq", right: "Eq") -> bool:
    """Whether two equations differ by a constant factor, as x - 2y = 6 and 4y = 2x - 12."""
    first, second = (equation.lhs - equation.rhs for equation in (left, right))  # type: ignore[operator]
    names = sorted(map(str, first.free_symbols | second.free_symbols))
    at_point, other = (at(value, dict(zip(names, SAMPLES[0] * len(names), strict=False))) for value in (first, second))
    return bool(at_point and other) and same_expressions(first * other, second * at_point)


def same_expressions(left: "Expr", right: "Expr") -> bool:
    """Whether two expressions have the same unknowns and the same values: as constants, or at some points."""
    names = sorted(map(str, left.free_symbols))
    if names != sorted(map(str, right.free_symbols)):
        return same_symbolically(left, right)
    if not names:
        return same_constants(left, right)
    verdicts = [same_at(left, right, dict(zip(names, row * len(names), strict=False))) for row in SAMPLES]
    return same_symbolically(left, right) if None in verdicts else all(verdicts)


def same_at(left: "Expr", right: "Expr", point: dict[str, float]) -> bool | None:
    """Whether two expressions are equal at a point; None if they have no value there."""
    values = [at(value, point) for value in (left, right)]
    return same_constants(*values) if all(value.evalf(DIGITS).is_number for value in values) else None


def at(value: "Expr", point: dict[str, float]) -> "Expr":
    """The value of an expression at a point, exactly."""
    from sympy import Rational

    return value.subs({symbol: Rational(str(point[str(symbol)])) for symbol in value.free_symbols})


def same_constants(left: "Expr", right: "Expr") -> bool:
    """Whether two constants are equal: rational ones exactly, others in 1,000 digits."""
    if left.is_Rational and right.is_Rational:
        return left == right
    a, b = left.evalf(DIGITS), right.evalf(DIGITS)
    if not (a.is_finite and b.is_finite):
        return a == b
    larger = max(abs(a), abs(b))
    if abs(a - b) > larger * 10 ** (10 - DIGITS):
        return 0 in (a, b) and (left - right).equals(0) is True
    return bool(abs((left - right).evalf(2, maxn=2 * MOST_DIGITS)) * 10**MOST_DIGITS <= larger)


def same_symbolically(left: "Expr", right: "Expr") -> bool:
    """Whether sympy simplifies the difference to 0."""
    from sympy import simplify

    return simplify(left - right) == 0


@lru_cache(maxsize=4096)
def parse_formula(latex: str) -> "Basic | MatrixBase":
    """Parses one formula with the parser of math-verify; decimals become exact fractions.

    Raises ValueError for formulas that this parser misreads, such as "5 7" as 12, and 1:2:3 as 1/6.
    """
    if GARBLED.search(latex):
        raise ValueError(latex)
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy
    from math_verify.grader import should_treat_as_complex
    from sympy import Basic

    parsed: object = latex2sympy(
        latex,
        is_real=not should_treat_as_complex(latex),
        normalization_config=NormalizationConfig(basic_latex=True, malformed_operators=True, nits=True, boxed="none"),
        conversion_config=ConversionConfig(lowercase_symbols=False, interpret_as_mixed_fractions=False),
    )
    if is_matrix(parsed):
        return parsed.applyfunc(exactly)
    assert isinstance(parsed, Basic)
    return exactly(parsed)


def exactly(value: "Basic") -> "Basic":
    """A value with exact fractions for decimals, and the imaginary unit for the letter i."""
    from sympy import Float, I, Rational, Symbol

    value = value.replace(lambda part: isinstance(part, Float), lambda part: Rational(str(part)))
    imaginary = [symbol for symbol in value.free_symbols if isinstance(symbol, Symbol) and symbol.name == "i"]
    return value.doit().subs(dict.fromkeys(imaginary, I))


if __name__ == "__main__":
    serve()
