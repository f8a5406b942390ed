"""Exact order statistics of rows of values, one scope a row (definitions: docs/equations.md).

From rows without padding what is asked for is selected; others, whose ranks differ, are sorted once, padding last.
"""

from math import floor

import torch
from torch import Tensor

from armlet.redistribution.rows import finite, known

MAD_TO_SIGMA = 1.4826
"""Median absolute deviation → standard deviation of a normal distribution (the paper's κ)."""

SMALLEST_MAD = 1e-12


def wide(device: torch.device) -> torch.dtype:
    """The widest float of `device`: float64, but float32 on Apple's MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class Ordered:
    """Order statistics of rows without padding: `values`, `[rows, n]` float32, finite, n ≥ 1."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.count = values, values.shape[-1]
        self._smallest = values  # the last ones selected, among which those of a lower rank are

    def kth(self, share: float) -> Tensor:
        """`[rows, 1]`: the k-th smallest, k = max(1, round(share · n)), halves rounded to even."""
        return self._at(max(1, round(share * self.count)) - 1)

    def quantile(self, q: float) -> Tensor:
        """`[rows, 1]`: linear interpolation between neighbours (Hyndman & Fan type 7), with the bits of `np.quantile`.

        The index is float64, the interpolation float32, from the nearer neighbour.
        """
        index = q * (self.count - 1)
        below = floor(index)
        weight, upper = index - below, self.values.topk(self.count - below, sorted=False).values
        # −0 and 0 are ties, in whatever order they are selected: every zero counts as positive.
        neighbours = upper.topk(min(2, self.count - below), largest=False).values + 0.0
        low, high = neighbours[:, :1], neighbours[:, -1:]
        rise = high - low
        inner = low + rise * weight if weight < 0.5 else high - rise * (1 - weight)
        return inner if known(rise, finite) else _where_finite(rise, inner, low * (1 - weight) + high * weight)

    def median(self) -> Tensor:
        """`[rows, 1]`: the lower median."""
        if len(self.values) == 1:  # without the indices that PyTorch selects, too, which take a quarter longer
            return self.values.flatten().median().view(1, 1) + 0.0
        return self._at((self.count - 1) // 2)

    def _at(self, rank: int) -> Tensor:
        """`[rows, 1]`: the value of this rank, from 0."""
        among = self._smallest if self._smallest.shape[-1] > rank else self.values
        self._smallest = among.topk(rank + 1, largest=False, sorted=False).values
        return self._smallest.amax(-1, keepdim=True) + 0.0


class Sorted:
    """`Ordered` of rows with padding, which never counts, or of a size that a compiler leaves open.

    `values` are `[rows, n]` float32, finite; `real`, bool, is False for padding, or None. A row needs one real value.
    """

    def __init__(self, values: Tensor, real: Tensor | None) -> None:
        self.ascending = padding_last(values, real).sort(dim=-1).values
        whole = torch.full((len(values), 1), values.shape[-1], device=values.device)
        self.count = whole if real is None else real.sum(-1, keepdim=True)

    def kth(self, share: float) -> Tensor:
        """As `Ordered.kth`."""
        k = torch.round(share * self.count.to(wide(self.count.device))).long()
        return self._at(k.clamp(min=1) - 1)

    def quantile(self, q: float) -> Tensor:
        """As `Ordered.quantile`."""
        index = q * (self.count - 1).to(wide(self.count.device))
        below = index.floor().long()
        low, high = self._at(below), self._at((below + 1).clamp(max=self.count - 1))
        rise, weight = high - low, index - below
        near, far = weight.to(low.dtype), (1 - weight).to(low.dtype)
        inner = torch.where(weight < 0.5, low + rise * near, high - rise * far)
        return _where_finite(rise, inner, low * far + high * near)

    def median(self) -> Tensor:
        """As `Ordered.median`."""
        return self._at((self.count - 1) // 2)

    def _at(self, index: Tensor) -> Tensor:
        return self.ascending.gather(-1, index) + 0.0


def ordered(values: Tensor, real: Tensor | None) -> Ordered | Sorted:
    """Order statistics of the real values of each row; `real` is None where all are."""
    return Ordered(values) if real is None and isinstance(values.shape[-1], int) else Sorted(values, real)


def mad(values: Tensor, real: Tensor | None, median: Tensor) -> Tensor:
    """`[rows, 1]`: the lower median of |values − median|, at least 1e-12 so that a constant row has a scale."""
    return ordered((values - median).abs_(), real).median().clamp(min=SMALLEST_MAD)


def minimum(values: Tensor, real: Tensor | None) -> Tensor:
    """`[rows, 1]`: the smallest real value."""
    return padding_last(values, real).amin(-1, keepdim=True)


def padding_last(values: Tensor, real: Tensor | None) -> Tensor:
    """`[rows, n]`: the values, padding as infinity, which an ascending sort leaves at the end."""
    return values if real is None else values.masked_fill(~real, torch.inf)


def _where_finite(rise: Tensor, inner: Tensor, weighted: Tensor) -> Tensor:
    """Neighbours of other sign near the largest float32 have no finite difference, but a weighted mean."""
    return torch.where(rise < torch.inf, inner, weighted)
