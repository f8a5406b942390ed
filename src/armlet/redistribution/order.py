"""Exact order statistics of rows of values, one scope a row (definitions: docs/equations.md).

Nothing is sampled or approximated: a row is sorted once and every statistic is read off the sorted row.
Padding is sorted to the end as infinity and never counted.
"""

import torch
from torch import Tensor

MAD_TO_SIGMA = 1.4826
"""Median absolute deviation → standard deviation of a normal distribution (the paper's κ)."""

SMALLEST_MAD = 1e-12


def wide(device: torch.device) -> torch.dtype:
    """The widest float of `device`: float64, but float32 on Apple's MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class Ordered:
    """The real values of each row in ascending order.

    Args:
        values: `[rows, n]` float32, finite.
        real: `[rows, n]` bool, False for padding; None where every value is real. A row needs one real value.
    """

    def __init__(self, values: Tensor, real: Tensor | None) -> None:
        self.ascending = _last(values, real).sort(dim=-1).values
        if real is None:
            self.count = torch.full((len(values), 1), values.shape[-1], device=values.device)
        else:
            self.count = real.sum(-1, keepdim=True)

    def kth(self, share: float) -> Tensor:
        """`[rows, 1]`: the k-th smallest, k = max(1, round(share · n)), halves rounded to even."""
        k = torch.round(share * self.count.to(wide(self.count.device))).long()
        return self._at(k.clamp(min=1) - 1)

    def quantile(self, q: float) -> Tensor:
        """`[rows, 1]`: linear interpolation between neighbours (Hyndman & Fan type 7), with the bits of `np.quantile`.

        The index is float64, the interpolation float32, from the nearer neighbour.
        """
        index = q * (self.count - 1).to(wide(self.count.device))
        below = index.floor().long()
        low, high = self._at(below), self._at((below + 1).clamp(max=self.count - 1))
        rise, weight = high - low, index - below
        from_low, from_high = low + rise * weight.to(low.dtype), high - rise * (1 - weight).to(low.dtype)
        inner = torch.where(weight < 0.5, from_low, from_high)
        # Neighbours of other sign near the largest float32 have no finite difference.
        weighted = low * (1 - weight).to(low.dtype) + high * weight.to(low.dtype)
        return torch.where(rise.isfinite(), inner, weighted)

    def median(self) -> Tensor:
        """`[rows, 1]`: the lower median."""
        return self._at((self.count - 1) // 2)

    def _at(self, index: Tensor) -> Tensor:
        # −0 and 0 are ties, in whatever order a sort leaves them: every zero counts as positive.
        return self.ascending.gather(-1, index) + 0.0


def mad(values: Tensor, real: Tensor | None, median: Tensor) -> Tensor:
    """`[rows, 1]`: the lower median of |values − median|, at least 1e-12 so that a constant row has a scale."""
    return Ordered((values - median).abs(), real).median().clamp(min=SMALLEST_MAD)


def minimum(values: Tensor, real: Tensor | None) -> Tensor:
    """`[rows, 1]`: the smallest real value."""
    return _last(values, real).amin(-1, keepdim=True)


def _last(values: Tensor, real: Tensor | None) -> Tensor:
    return values if real is None else values.masked_fill(~real, torch.inf)
