"""Scopes as rows of a tensor, and the types and checks shared by policies and `redistribute`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import ClassVar, NamedTuple, Protocol, TypeGuard

import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError, description

LARGEST_NUMBER = torch.finfo(torch.float64).max
SMALLEST_LIMIT, LARGEST_LIMIT = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max


class Draw(Protocol):
    """The random draws of rows, from the noise of the call: `draw()`."""

    def __call__(self) -> Tensor:
        """Returns float32 `[rows, n]`, uniform on [0, 1); the same values each time."""
        ...


@dataclass(frozen=True, eq=False)
class Rows:
    """The values of a tensor, one scope per row.

    Args:
        values: `[rows, n]` float32 or float64, finite.
        valid: `[rows, n]` bool, False for padding; None if all values are valid. Each row has a valid value.
    """

    values: Tensor
    valid: Tensor | None

    @property
    def float32(self) -> Tensor:
        """`[rows, n]` float32 values without gradient, from which statistics are computed for all dtypes."""
        return self.values.detach().to(torch.float32)

    @cached_property
    def magnitude(self) -> Tensor:
        """`[rows, n]` float32 |values|, without gradient."""
        return self.float32.abs()

    @property
    def sign(self) -> Tensor:
        """`[rows, n]`: −1 for negative values, otherwise 1, also for both zeros."""
        return torch.where(self.values < 0, -1.0, 1.0).to(self.values.dtype)


class Policy(Protocol):
    """Defines how values move: a frozen dataclass whose settings are numbers, words, pairs of numbers or None.

    Every setting has a default, and one is `strength`, by which armlet scales the move. A class may also have `search`,
    a `ClassVar` with the values of each setting that `tune` tries first, as in {"share": (0.05, 0.1, 0.2)}.
    docs/howto/own_policy.md has an example, and what is checked.
    """

    name: ClassVar[str]

    @property
    def strength(self) -> float:
        """0 leaves the values unchanged, 1 moves them fully."""
        ...

    def move(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor]:
        """Returns the values at strength 1, in the dtype of `rows.values`, and which of them move, `[rows, n]` each.

        A row is a scope. Nothing may depend on other rows, on padding or on `strength`; nothing is changed in place.
        `draw()` returns uniforms on [0, 1), float32 of the same shape; a policy without noise does not call it.
        """
        ...


def cheaply_true(tensor: Tensor, condition: Callable[[Tensor], bool]) -> bool:
    """Whether a condition holds and can be checked cheaply, which allows a fast path with identical bits.

    False on a GPU (needs a synchronisation), and under a compiler or `torch.vmap` (no single answer).
    """
    if not tensor.is_cpu or torch.compiler.is_compiling():
        return False
    try:
        return condition(tensor)
    except RuntimeError:  # vmap, fake tensors
        return False


def all_below_infinity(tensor: Tensor) -> bool:
    """Whether a tensor has no NaN and no +Inf (−Inf is not checked); a condition for `cheaply_true`."""
    return tensor.max().item() < inf


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER


def _is_fraction(value: object) -> TypeGuard[float]:
    return _is_number(value) and 0 <= value <= 1


def _are_bounds(value: object) -> bool:
    pair = tuple(value) if isinstance(value, tuple | list) else ()
    return len(pair) == 2 and all(map(_is_fraction, pair)) and pair[0] <= pair[1]


class Allowed(NamedTuple):
    """The values that a setting may have: in words, as in "band must be ...", and as a test of one value."""

    words: str
    includes: Callable[[object], bool]


FRACTION = Allowed("a number in [0, 1]", _is_fraction)
OPTIONAL_FRACTION = Allowed("a number in [0, 1], or None", lambda value: value is None or _is_fraction(value))
OPTIONAL_MAGNITUDE = Allowed(
    "a number in [0, inf), or None", lambda value: value is None or (_is_number(value) and value >= 0)
)
POSITIVE = Allowed("a number in (0, inf)", lambda value: _is_number(value) and value > 0)
OPTIONAL_LIMIT = Allowed(
    f"a number in [{SMALLEST_LIMIT:.3g}, {LARGEST_LIMIT:.3g}], or None",
    lambda value: value is None or (_is_number(value) and SMALLEST_LIMIT <= value <= LARGEST_LIMIT),
)
BOUNDS = Allowed("(low, high) with 0 <= low <= high <= 1", _are_bounds)


def one_of(*options: str) -> Allowed:
    """One of these texts."""
    *others, last = map(repr, options)
    words = f"{', '.join(others)} or {last}" if others else last
    return Allowed(words, lambda value: isinstance(value, str) and value in options)


def check_settings(policy: object, allowed: Mapping[str, Allowed]) -> None:
    """Raises ArgumentError for a field whose value is not allowed."""
    for name, values in allowed.items():
        value = getattr(policy, name)
        if not values.includes(value):
            raise ArgumentError(f"{type(policy).__name__}: {name} must be {values.words}, found {description(value)}")
