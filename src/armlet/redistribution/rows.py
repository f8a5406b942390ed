"""The values of each scope as rows, and the vocabulary that policies and `redistribute` share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError

Draw = Callable[[], Tensor]
LARGEST_NUMBER = torch.finfo(torch.float64).max


@dataclass(frozen=True, eq=False)
class Rows:
    """One scope a row.

    Args:
        values: `[rows, n]` float32 or float64, finite.
        real: `[rows, n]` bool, False for padding; None where all are real. Every row has a real value.
    """

    values: Tensor
    real: Tensor | None

    @property
    def single(self) -> Tensor:
        """`[rows, n]` float32, without gradient: what statistics are computed from, whatever the dtype."""
        return self.values.detach().to(torch.float32)

    @cached_property
    def magnitude(self) -> Tensor:
        """`[rows, n]` float32 |values|, without gradient."""
        return self.single.abs()

    @property
    def sign(self) -> Tensor:
        """`[rows, n]`: −1 for negative values, else 1: both zeros count as positive."""
        return torch.where(self.values < 0, -1.0, 1.0).to(self.values.dtype)


class Policy(Protocol):
    """How values move. A frozen dataclass of plain numbers, without tensors; `strength` scales the move."""

    name: ClassVar[str]

    @property
    def strength(self) -> float:
        """0 leaves the values, 1 moves them the whole way."""
        ...

    def move(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor]:
        """`[rows, n]` each: where values go at strength 1, in the dtype of `rows.values`; and which of them move.

        `draw()` gives uniforms on [0, 1), float32 of the same shape; a policy without noise does not call it.
        """
        ...


def known(tensor: Tensor, condition: Callable[[Tensor], bool]) -> bool:
    """Whether a condition is known to hold for a tensor, so that what it would have taken is left out.

    Not known means the general way, to the same bits: a GPU would have to be waited for, and to a compiler or inside
    `torch.vmap` the answer is no single one.
    """
    if not tensor.is_cpu or torch.compiler.is_compiling():
        return False
    try:
        return condition(tensor)
    except RuntimeError:  # vmap, fake tensors
        return False


def finite(tensor: Tensor) -> bool:
    """Whether no NaN and no +Inf is in it; a condition for `known`."""
    return tensor.max().item() < inf


def check_number(policy: object, name: str, low: float, high: float, *, above: bool = False) -> None:
    """Refuses a field that is not a finite number in [low, high], or in (low, high] where `above`.

    Raises:
        ArgumentError: names policy, field, range and what was found.
    """
    value = getattr(policy, name)
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER
    if not number or not (low < value if above else low <= value) or value > high:
        interval = f"{'(' if above else '['}{low:g}, {high:g}{')' if high == float('inf') else ']'}"
        raise ArgumentError(f"{type(policy).__name__}: {name} must be a number in {interval}, found {value!r}")


def check_choices(policy: object, choices: Mapping[str, tuple[str, ...]]) -> None:
    """Refuses a field that is not one of its choices.

    Raises:
        ArgumentError: names policy, field, choices and what was found.
    """
    for name, options in choices.items():
        value = getattr(policy, name)
        if value not in options:
            listed = " or ".join(repr(option) for option in options)
            raise ArgumentError(f"{type(policy).__name__}: {name} must be {listed}, found {value!r}")
