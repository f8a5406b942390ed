"""The policy `Inward` pulls the tails towards the centre: on a logarithmic curve, by clipping, or by tanh."""

from dataclasses import dataclass
from math import floor
from typing import ClassVar

import torch
from torch import Tensor

from armlet.redistribution.arguments import check_floating
from armlet.redistribution.functions import log, tanh
from armlet.redistribution.order import ordered, wide
from armlet.redistribution.rows import FRACTION, OPTIONAL_LIMIT, Allowed, Draw, Rows, check_settings, one_of


@dataclass(frozen=True)
class Inward:
    """Pulls values beyond T towards the centre; the others stay bit for bit. T is Q(|a|, knee), or the limit.

    Args:
        knee: quantile in [0, 1] of |a| beyond which values move.
        limit: T as a number, rounded to float32, in place of the quantile: no statistics are taken.
        side: "both": values with |a| > T move. "above": values with a > T move, as in a clamp with a maximum only.
        curve: "log": sign(a)·T·(1 + ln(|a|/T)), the A-law compander of ITU-T G.711 with its knee at T: slope 1 at T,
            monotone, invertible. "clip": sign(a)·T, percentile clipping as in quantisation calibration, or with a
            limit the clamp of models that were trained with one. "tanh": T·tanh(a/T), with slope 1 at 0, which moves
            every value (with side "above", every positive one).
        strength: a + strength · (a′ − a), in [0, 1].

    If T is 0 (nearly all values are zero), all curves have the limit 0.

    Raises:
        ArgumentError: a value is out of its range.
    """

    knee: float = 0.99
    limit: float | None = None
    side: str = "both"
    curve: str = "log"
    strength: float = 1.0

    name: ClassVar[str] = "inward"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"side": ("both", "above"), "curve": ("log", "clip", "tanh")}
    allowed: ClassVar[dict[str, Allowed]] = {
        "knee": FRACTION,
        "limit": OPTIONAL_LIMIT,
        "side": one_of(*choices["side"]),
        "curve": one_of(*choices["curve"]),
        "strength": FRACTION,
    }

    def __post_init__(self) -> None:
        check_settings(self, self.allowed)

    def move(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor]:
        """Returns the contracted values, and which values move, `[rows, n]` each. Draws nothing."""
        values, magnitude = rows.values, rows.magnitude
        knee = self._knee(rows)
        on_side = magnitude if self.side == "both" else rows.float32
        if self.curve == "tanh":
            moved = torch.ones_like(on_side, dtype=torch.bool) if self.side == "both" else on_side > 0
            return _saturated(values, knee), moved
        moved = on_side > knee
        if self.curve == "clip":
            return torch.copysign(knee.to(values.dtype), values.detach()), moved
        width = magnitude.shape[-1]
        if self.limit is not None or not isinstance(width, int):  # a dynamic size under a compiler
            return values.detach().sign() * _compand(values.abs(), knee), moved
        # The curve is expensive, and at most this many values lie beyond the quantile.
        candidates = magnitude if rows.valid is None else magnitude.masked_fill(~rows.valid, -1)
        tail = candidates.topk(width - floor(self.knee * (width - 1)), sorted=False).indices
        tail_values = values.gather(-1, tail)
        return values.scatter(-1, tail, tail_values.detach().sign() * _compand(tail_values.abs(), knee)), moved

    def _knee(self, rows: Rows) -> Tensor:
        """T for each row, float32 `[rows, 1]`."""
        if self.limit is None:
            return ordered(rows.magnitude, rows.valid).quantile(self.knee)
        return torch.full_like(rows.magnitude[:, :1], self.limit)

    @staticmethod
    def compand(a: Tensor, knee: Tensor | float) -> Tensor:
        """The log curve at strength 1, which `expand` inverts: sign(a)·T·(1 + ln(|a|/T)) where |a| > T, else a.

        A companded float32 is rounded by up to half an ulp, so expanding it returns `a` to about (1 + ln(|a|/T))/2 ulp;
        with companded float64, every float32 is returned exactly. A knee of 0 moves nothing here, so that the curve can
        be inverted; the policy `Inward` uses the limit 0 instead.

        Args:
            a: values of any shape and float dtype; the result has the same.
            knee: T, in the unit of `a`; broadcasts to it.
        """
        check_floating("Inward.compand", a)
        threshold = torch.as_tensor(knee, dtype=wide(a.device), device=a.device)
        in_tail = (a.detach().abs() > threshold) & (threshold > 0)
        return torch.where(in_tail, a.sign() * _compand(a.abs(), threshold), a)

    @staticmethod
    def expand(a: Tensor, knee: Tensor | float) -> Tensor:
        """The inverse of the log curve at strength 1: sign(a)·T·exp(|a|/T − 1) where |a| > T, else a.

        Args:
            a: contracted values, any shape and float dtype.
            knee: T, in the unit of `a`; broadcasts to it.
        """
        check_floating("Inward.expand", a)
        dtype = wide(a.device)
        threshold = torch.as_tensor(knee, dtype=dtype, device=a.device)
        in_tail = (a.detach().abs() > threshold) & (threshold > 0)
        excess = torch.where(in_tail, a.abs().to(dtype) / threshold - 1, 0)
        return torch.where(in_tail, a.sign() * (threshold * excess.exp()).to(a.dtype), a)


def _saturated(a: Tensor, knee: Tensor) -> Tensor:
    """T·tanh(a/T), computed in float64 and rounded once."""
    dtype = wide(a.device)
    threshold = torch.where(knee > 0, knee, 1).to(dtype)
    return (knee.to(dtype) * tanh(a.to(dtype), threshold)).to(a.dtype)


def _compand(magnitude: Tensor, knee: Tensor) -> Tensor:
    """T·(1 + ln(m/T)) for m ≥ T, and T for smaller m, where a ratio of 1 keeps ln(0) out of the gradient.

    Computed in float64 and rounded once, because m/T overflows float32 for a tiny knee; bits are equal on all devices.
    """
    dtype = wide(magnitude.device)
    threshold = torch.where(knee > 0, knee, 1).to(dtype)
    ratio = (magnitude.to(dtype) / threshold).clamp(min=1)
    return (knee.to(dtype) * (1 + log(ratio))).to(magnitude.dtype)
