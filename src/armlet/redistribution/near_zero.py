"""The near-zero set of a row, which `Outward` redraws and `Cut` sets to 0."""

import torch
from torch import Tensor

from armlet.redistribution.order import MAD_TO_SIGMA, Ordered, Sorted, mad
from armlet.redistribution.rows import cheaply_true

NEAR_LIMIT = 0.01
"""How near, in proportion, the share of moved values is to a limit if another band can hardly change it."""


class NearZero:
    """A policy whose moving values are |a| < ε = 1.4826 · MAD(|a|) · band, limited by `share`, or a `proportion`."""

    band: float
    share: tuple[float, float]
    proportion: float | None
    strength: float

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


def limited_by_share(policy: object, share_moved: float, width: int) -> str | None:
    """Says that `share` decided in every row in place of a band; otherwise None.

    A row moves as many values as `share` allows only if its band is limited, so the mean over all rows tells. If the
    mean is only near a limit, it does not tell how many rows were limited, but how little another band can change: no
    row goes beyond the limit. Both are certain without ties, which are common only in a gate with many exact zeros.

    Args:
        policy: a policy; only `Outward` and `Cut` without a proportion or a threshold have such a limit.
        share_moved: the share of the values that moved, at scope "token", in rows without NaN or Inf.
        width: the number of values of a row.
    """
    if not isinstance(policy, NearZero) or not policy.uses_band or policy.strength == 0:
        return None
    fewest, most = (count / width for count in policy.counts(width))
    low, high = (f"{share:g}" for share in policy.share)
    if share_moved == fewest == most:
        return f"band {policy.band:g} has no effect: share lets {high} of the values move, whatever the band"
    if share_moved >= most:
        ties = ", and those tied with them" if share_moved > most else ""
        return f"band {policy.band:g} is limited by share: at most {high} of the values move{ties}"
    if share_moved == fewest:
        return f"band {policy.band:g} is limited by share: at least {low} of the values move"
    if share_moved >= (1 - NEAR_LIMIT) * most:
        return _little_effect(f"wider than {policy.band:g}", share_moved, f"allows at most {high}")
    if fewest < share_moved <= (1 + NEAR_LIMIT) * fewest:
        return _little_effect(f"narrower than {policy.band:g}", share_moved, f"makes at least {low} move")
    return None


def _little_effect(band: str, share_moved: float, limit: str) -> str:
    return f"a band {band} would have little effect: {share_moved:.4g} of the values moved on average, share {limit}"
