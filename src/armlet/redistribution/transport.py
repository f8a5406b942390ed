"""Transport: every value moved, rank preserved, onto a half-normal of its own sign."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from armlet.redistribution.functions import half_normal_quantile
from armlet.redistribution.order import MAD_TO_SIGMA, ordered, padding_last, wide
from armlet.redistribution.rows import Draw, Rows, check_choices, check_numbers


@dataclass(frozen=True)
class Transport:
    """One-dimensional optimal transport of the magnitudes, sign by sign, onto a half-normal, along its geodesic.

    m′ = s·√2·erf⁻¹((rank + ½)/n) with s = spread·1.4826·median(|a|); rank counts from 0 among the n values of the same
    sign, ties share their mean rank, both zeros count as positive. Sign and order are kept; at strength 1 the result
    has one mode, at 0, whatever the number of modes before.

    Args:
        target: the shape to move to; "normal".
        spread: its scale, as a multiple of the values' own robust scale; above 0.
        strength: (1 − strength)·a + strength·sign(a)·m′, in [0, 1].

    Raises:
        ArgumentError: a value is out of its range.
    """

    target: str = "normal"
    spread: float = 1.0
    strength: float = 1.0

    name: ClassVar[str] = "transport"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"target": ("normal",)}

    def __post_init__(self) -> None:
        check_choices(self, self.choices)
        check_numbers(self, "spread", positive=True)
        check_numbers(self, "strength")

    def move(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor]:
        """`[rows, n]` each: the transported values, and all True. Draws nothing."""
        scale = self.spread * MAD_TO_SIGMA * ordered(rows.magnitude, rows.real).median()
        normal = _half_normal_score(rows)
        score = (scale.to(normal.dtype) * normal).to(rows.values.dtype)
        # The gradient of a′ is that of the sign, 0: rank and scale are statistics.
        return rows.sign * score, torch.ones_like(rows.values, dtype=torch.bool)


def _half_normal_score(rows: Rows) -> Tensor:
    """`[rows, n]` √2·erf⁻¹((rank + ½)/n), in float64: close to 1 the quotient has no float32 left to round to."""
    values = rows.single
    ascending = padding_last(values, rows.real).sort(dim=-1).values
    smaller = torch.searchsorted(ascending, values)
    not_larger = torch.searchsorted(ascending, values, right=True)
    negatives = torch.searchsorted(ascending, torch.zeros_like(values[:, :1]))
    negative = values < 0
    # Ranks by magnitude: upwards from zero among the positives, downwards from zero among the negatives.
    first = torch.where(negative, negatives - not_larger, smaller - negatives)
    last = torch.where(negative, negatives - smaller, not_larger - negatives) - 1
    count = values.shape[-1] if rows.real is None else rows.real.sum(-1, keepdim=True)
    size = torch.where(negative, negatives, count - negatives)
    dtype = wide(values.device)
    share = ((first + last).to(dtype) / 2 + 0.5) / size.to(dtype)
    return half_normal_quantile(share)
