"""The policy `Transport` moves every value onto a half-normal of the value's sign and keeps the order."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from armlet.redistribution.functions import half_normal_quantile
from armlet.redistribution.order import MAD_TO_SIGMA, ordered, padding_last, wide
from armlet.redistribution.rows import FRACTION, POSITIVE, Allowed, Draw, Rows, check_settings, one_of


@dataclass(frozen=True)
class Transport:
    """Moves the magnitudes of each sign onto a half-normal, along the geodesic of one-dimensional optimal transport.

    m′ = s·√2·erf⁻¹((rank + ½)/n) with s = spread·1.4826·median(|a|). The rank among the n values of the same sign
    starts at 0, ties share their mean rank, and both zeros count as positive. Sign and order are kept. At strength 1
    the result has a single mode, at 0, for any input.

    Args:
        target: the target distribution; "normal".
        spread: scale of the target, as a multiple of the robust scale of the values; above 0.
        strength: (1 − strength)·a + strength·sign(a)·m′, in [0, 1].

    Raises:
        ArgumentError: a value is out of its range.
    """

    target: str = "normal"
    spread: float = 1.0
    strength: float = 1.0

    name: ClassVar[str] = "transport"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"target": ("normal",)}
    allowed: ClassVar[dict[str, Allowed]] = {
        "target": one_of(*choices["target"]),
        "spread": POSITIVE,
        "strength": FRACTION,
    }

    def __post_init__(self) -> None:
        check_settings(self, self.allowed)

    def move(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor]:
        """Returns the transported values, and all True, `[rows, n]` each. Draws nothing."""
        scale = self.spread * MAD_TO_SIGMA * ordered(rows.magnitude, rows.valid).median()
        normal = _half_normal_score(rows)
        score = (scale.to(normal.dtype) * normal).to(rows.values.dtype)
        # The gradient of a′ is 0, because the sign is constant and rank and scale are statistics.
        return rows.sign * score, torch.ones_like(rows.values, dtype=torch.bool)


def _half_normal_score(rows: Rows) -> Tensor:
    """Returns `[rows, n]` √2·erf⁻¹((rank + ½)/n) in float64; float32 is too coarse for quotients close to 1."""
    values = rows.float32
    ascending = padding_last(values, rows.valid).sort(dim=-1).values
    smaller = torch.searchsorted(ascending, values)
    not_larger = torch.searchsorted(ascending, values, right=True)
    negatives = torch.searchsorted(ascending, torch.zeros_like(values[:, :1]))
    negative = values < 0
    # Ranks by magnitude, which ascend from zero for positive values and descend from zero for negative values.
    first = torch.where(negative, negatives - not_larger, smaller - negatives)
    last = torch.where(negative, negatives - smaller, not_larger - negatives) - 1
    count = values.shape[-1] if rows.valid is None else rows.valid.sum(-1, keepdim=True)
    size = torch.where(negative, negatives, count - negatives)
    dtype = wide(values.device)
    share = ((first + last).to(dtype) / 2 + 0.5) / size.to(dtype)
    return half_normal_quantile(share)
