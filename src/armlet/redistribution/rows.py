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
    """Whether a condition is known to be true of a tensor, so that a shorter way to the same bits may be taken.

    Not on a GPU, which would have to be waited for, nor for a compiler or `torch.vmap`, where there is no one answer.
    """
    if not tensor.is_cpu or torch.compiler.is_compiling():
        return False
    try:
        return condition(tensor)
    except RuntimeError:  # vmap, fake tensors
        return False


def finite(tensor: Tensor) -> bool:
    """Whether a tensor has no NaN and no +Inf; a condition for `known`."""
    return tensor.max().item() < inf


def check_numbers(policy: object, *names: str, positive: bool = False) -> None:
    """Refuses fields that are not numbers in [0, 1], or finite numbers above 0 where `positive`."""
    for name in names:
        value = getattr(policy, name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER
        if not number or not (value > 0 if positive else 0 <= value <= 1):
            interval = "(0, inf)" if positive else "[0, 1]"
            raise ArgumentError(f"{type(policy).__name__}: {name} must be a number in {interval}, found {value!r}")


def check_choices(policy: object, choices: Mapping[str, tuple[str, ...]]) -> None:
    """Refuses a field that is not one of its choices."""
    for name, options in choices.items():
        value = getattr(policy, name)
        if value not in options:
            listed = " or ".join(repr(option) for option in options)
            raise ArgumentError(f"{type(policy).__name__}: {name} must be {listed}, found {value!r}")
