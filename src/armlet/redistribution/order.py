"""Exact order statistics of rows, one scope per row (definitions: docs/concepts/equations.md).

Rows without padding use selection. Rows with padding, whose ranks differ, are sorted once, with padding last.
"""

from math import floor

import torch
from torch import Tensor

from armlet.redistribution.rows import all_below_infinity, cheaply_true

MAD_TO_SIGMA = 1.4826
"""Median absolute deviation → standard deviation of a normal distribution (the paper's κ)."""

SMALLEST_MAD = 1e-12


def wide(device: torch.device) -> torch.dtype:
    """The widest float type of `device`: float64, or float32 on Apple's MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class Ordered:
    """Order statistics of rows without padding: `values`, `[rows, n]` float32, finite, n ≥ 1."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.count = values, values.shape[-1]
        self._smallest = values  # the values selected last, which contain all lower ranks

    def kth(self, share: float) -> Tensor:
        """Returns `[rows, 1]`: the k-th smallest value, k = max(1, round(share · n)), halves rounded to even."""
        return self._at(max(1, round(share * self.count)) - 1)

    def quantile(self, q: float) -> Tensor:
        """Returns `[rows, 1]` by linear interpolation (Hyndman & Fan type 7), with the bits of `np.quantile`.

        The index is float64. The interpolation is float32 and starts at the nearer neighbour.
        """
        index = q * (self.count - 1)
        below = floor(index)
        weight, upper = index - below, self.values.topk(self.count - below, sorted=False).values
        # −0 and 0 are ties, selected in any order; adding 0 makes every zero positive.
        neighbours = upper.topk(min(2, self.count - below), largest=False).values + 0.0
        low, high = neighbours[:, :1], neighbours[:, -1:]
        rise = high - low
        inner = low + rise * weight if weight < 0.5 else high - rise * (1 - weight)
        is_finite = cheaply_true(rise, all_below_infinity)
        return inner if is_finite else _where_finite(rise, inner, low * (1 - weight) + high * weight)

    def median(self) -> Tensor:
        """Returns `[rows, 1]`: the lower median."""
        if len(self.values) == 1:  # does not compute indices, which takes a quarter longer
            return self.values.flatten().median().view(1, 1) + 0.0
        return self._at((self.count - 1) // 2)

    def _at(self, rank: int) -> Tensor:
        """Returns `[rows, 1]`: the value of `rank`, counted from 0."""
        candidates = self._smallest if self._smallest.shape[-1] > rank else self.values
        self._smallest = candidates.topk(rank + 1, largest=False, sorted=False).values
        return self._smallest.amax(-1, keepdim=True) + 0.0


class Sorted:
    """Order statistics of the valid values of rows with padding, or of rows whose size is dynamic under a compiler.

    `values` are `[rows, n]` float32, finite; `valid` is bool, False for padding, or None. A row needs a valid value.
    """

    def __init__(self, values: Tensor, valid: Tensor | None) -> None:
        self.ascending = padding_last(values, valid).sort(dim=-1).values
        size = torch.full((len(values), 1), values.shape[-1], device=values.device)
        self.count = size if valid is None else valid.sum(-1, keepdim=True)

    def kth(self, share: float) -> Tensor:
        """See `Ordered.kth`."""
        k = torch.round(share * self.count.to(wide(self.count.device))).long()
        return self._at(k.clamp(min=1) - 1)

    def quantile(self, q: float) -> Tensor:
        """See `Ordered.quantile`."""
        index = q * (self.count - 1).to(wide(self.count.device))
        below = index.floor().long()
        low, high = self._at(below), self._at((below + 1).clamp(max=self.count - 1))
        rise, weight = high - low, index - below
        near, far = weight.to(low.dtype), (1 - weight).to(low.dtype)
        inner = torch.where(weight < 0.5, low + rise * near, high - rise * far)
        return _where_finite(rise, inner, low * far + high * near)

    def median(self) -> Tensor:
        """See `Ordered.median`."""
        return self._at((self.count - 1) // 2)

    def _at(self, index: Tensor) -> Tensor:
        return self.ascending.gather(-1, index) + 0.0


def ordered(values: Tensor, valid: Tensor | None) -> Ordered | Sorted:
    """Order statistics of the valid values of each row; `valid` is None if all are valid."""
    return Ordered(values) if valid is None and isinstance(values.shape[-1], int) else Sorted(values, valid)


def mad(values: Tensor, valid: Tensor | None, median: Tensor) -> Tensor:
    """Returns `[rows, 1]`: the lower median of |values − median|, at least 1e-12 so that constant rows have a scale."""
    return ordered((values - median).abs_(), valid).median().clamp(min=SMALLEST_MAD)


def minimum(values: Tensor, valid: Tensor | None) -> Tensor:
    """Returns `[rows, 1]`: the smallest valid value."""
    return padding_last(values, valid).amin(-1, keepdim=True)


def padding_last(values: Tensor, valid: Tensor | None) -> Tensor:
    """Returns `[rows, n]`: the values, with padding replaced by infinity so that it is sorted last."""
    return values if valid is None else values.masked_fill(~valid, torch.inf)


def _where_finite(rise: Tensor, inner: Tensor, weighted: Tensor) -> Tensor:
    """Returns `weighted` if the difference overflows, as between neighbours near ± the largest float32."""
    return torch.where(rise < torch.inf, inner, weighted)
