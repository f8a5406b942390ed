"""Arithmetic: endless problems with worked steps, at nine levels of difficulty, split into training and testing."""

import ast
import operator
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, get_args

from armlet.redistribution.errors import ArgumentError

Split = Literal["train", "test"]
TEST_BYTES = 32  # number of values of a hash's first byte (256 in all) that mean test: one question in eight
MAX_QUESTION_CHARACTERS = 400  # far below the limits of Python's parser and integers
CHARACTERS = re.compile(r"[0-9+*()-]+")
ANSWER = re.compile(r"[^#]*#(-?[0-9]+)")

OPERATIONS: dict[type[ast.operator], tuple[str, Callable[[int, int], int]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
}


@dataclass(frozen=True)
class Level:
    """A level of difficulty. A problem is a chain of terms, some of them with products or brackets."""

    operations: int  # operations in the question, and steps in its answer
    products: int  # terms that are products
    brackets: int  # terms with two numbers in brackets; such a term may also be a product
    number: int  # the largest summand
    factor: int  # the largest number by which a number or a bracket is multiplied


LEVELS = {
    1: Level(operations=2, products=0, brackets=0, number=99, factor=9),
    2: Level(operations=3, products=1, brackets=0, number=99, factor=9),
    3: Level(operations=4, products=1, brackets=1, number=99, factor=9),
    4: Level(operations=5, products=2, brackets=1, number=99, factor=9),
    5: Level(operations=6, products=2, brackets=1, number=199, factor=9),
    6: Level(operations=7, products=2, brackets=2, number=399, factor=9),
    7: Level(operations=8, products=3, brackets=2, number=599, factor=9),
    8: Level(operations=9, products=3, brackets=3, number=999, factor=19),
    9: Level(operations=10, products=4, brackets=3, number=999, factor=99),
}

DIFFICULTY = 5
"""The level at which the embedded model abacus is evaluated: it answers seven questions in ten correctly."""


@dataclass(frozen=True)
class Exercise:
    """A question and its answer."""

    question: str  # such as (47+86)*3-58
    steps: str  # one operation each, such as 47+86=133;133*3=399;399-58=341
    value: int  # the last step's result

    @property
    def answer(self) -> str:
        """The correct answer of a model: the steps, "#" and the value."""
        return f"{self.steps}#{self.value}"


def exercise(index: int, *, seed: int = 0, difficulty: int = DIFFICULTY, split: Split = "test") -> Exercise:
    """The problem with that index, which depends only on these arguments; the sequence is endless.

    No question is in both splits. Two indices may have the same question, which sometimes happens at level 1.

    Raises ArgumentError if the index is negative, or the level or split does not exist.
    """
    if index < 0:
        raise ArgumentError(f"index: problems are counted from 0, found {index}")
    if difficulty not in LEVELS:
        raise ArgumentError(f"difficulty: expected {min(LEVELS)} to {max(LEVELS)}, found {difficulty}")
    if split not in get_args(Split):
        raise ArgumentError(f"split: expected one of {', '.join(get_args(Split))}, found {split!r}")
    rng = random.Random(f"{seed}/{difficulty}/{split}/{index}")
    while split_of(question := _random_question(rng, LEVELS[difficulty])) != split:
        pass
    return worked(question)


def split_of(question: str) -> Split:
    """The split of a question, which depends only on its text, not on the seed or the level."""
    return "test" if sha256(question.encode()).digest()[0] < TEST_BYTES else "train"


def _random_question(rng: random.Random, level: Level) -> str:
    terms = range(level.operations - level.products - level.brackets + 1)
    multiplied, bracketed = rng.sample(terms, level.products), rng.sample(terms, level.brackets)
    return _random_chain(rng, [_random_term(rng, level, i in multiplied, i in bracketed) for i in terms])


def _random_term(rng: random.Random, level: Level, multiplied: bool, bracketed: bool) -> str:
    numbers = [str(rng.randint(2, level.number)) for _ in range(1 + bracketed)]
    term = f"({_random_chain(rng, numbers)})" if bracketed else numbers[0]
    factors = [term, str(rng.randint(2, level.factor))]
    rng.shuffle(factors)
    return "*".join(factors) if multiplied else term


def _random_chain(rng: random.Random, parts: list[str]) -> str:
    return parts[0] + "".join(rng.choice("+-") + part for part in parts[1:])


def worked(question: str) -> Exercise:
    """Solves a question step by step from the left; an operation follows as soon as both its numbers are known.

    Raises ArgumentError if the text contains more than whole numbers, + - * and brackets, or is too long.
    """
    if len(question) > MAX_QUESTION_CHARACTERS or not CHARACTERS.fullmatch(question):
        raise _not_arithmetic(question)
    try:
        node = ast.parse(question, mode="eval").body
    except SyntaxError as error:
        raise _not_arithmetic(question) from error
    steps: list[str] = []
    value = _reduce(node, steps)
    return Exercise(question, ";".join(steps), value)


def _not_arithmetic(question: str) -> ArgumentError:
    return ArgumentError(f"question: expected whole numbers, + - * and brackets, found {question[:60]!r}")


def _reduce(node: ast.expr, steps: list[str]) -> int:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_reduce(inner, steps)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in OPERATIONS:
            symbol, apply = OPERATIONS[type(sign)]
            first, second = _reduce(left, steps), _reduce(right, steps)
            value = apply(first, second)
            steps.append(f"{first}{symbol}{second if second >= 0 else f'({second})'}={value}")
            return value
    raise _not_arithmetic(ast.unparse(node))


def stated(answer: str) -> int | None:
    """The stated value of an answer, right or wrong: the integer after its only "#"; None if there is none."""
    match = ANSWER.fullmatch(answer)
    return int(match[1]) if match else None
