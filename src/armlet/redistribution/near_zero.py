"""The near-zero set of a row, which `Outward` redraws and `Cut` sets to 0."""

import torch
from torch import Tensor

from armlet.redistribution.order import MAD_TO_SIGMA, Ordered, Sorted, mad
from armlet.redistribution.rows import cheaply_true


class NearZero:
    """A policy whose moving values are |a| < ε = 1.4826 · MAD(|a|) · band, limited by `share`, or a `proportion`."""

    band: float
    share: tuple[float, float]
    proportion: float | None

    @property
    def uses_band(self) -> bool:
        """Whether `band` and `share` decide which values move."""
        return self.proportion is None

    def near_zero(self, magnitude: Tensor, magnitudes: Ordered | Sorted, valid: Tensor | None) -> Tensor:
        """Returns which values are near zero, bool `[rows, n]`; `magnitudes` has the statistics of `magnitude`."""
        if self.proportion is not None:
            return magnitude <= magnitudes.kth(self.proportion)
        width = MAD_TO_SIGMA * mad(magnitude, valid, magnitudes.median()) * self.band
        near = magnitude < width
        if valid is None and cheaply_true(near, self._is_within_share):
            return near
        high, low = (magnitudes.kth(share) for share in reversed(self.share))  # high first: its selection includes low
        edge = width.clamp(min=low, max=high)
        return torch.where(edge == width, near, magnitude <= edge)

    def counts(self, width: int) -> tuple[int, int]:
        """The smallest and the largest number of values that `share` lets move in a row, ties at τ aside."""
        low, high = (max(1, round(share * width)) for share in self.share)
        return low, high

    def _is_within_share(self, near: Tensor) -> bool:
        """Whether the number of values below ε is within the bounds of `share` in each row; there is no padding."""
        lowest, highest = self.counts(near.shape[-1])
        fewest, greatest = near.sum(-1).aminmax()
        return lowest <= fewest.item() and greatest.item() < highest
