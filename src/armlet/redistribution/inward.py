"""Inward: the tails pulled to the centre, on a logarithmic curve or by clipping."""

from dataclasses import dataclass
from math import floor
from typing import ClassVar

import torch
from torch import Tensor

from armlet.redistribution.functions import log
from armlet.redistribution.order import ordered, wide
from armlet.redistribution.rows import Draw, Rows, check_choices, check_numbers


@dataclass(frozen=True)
class Inward:
    """Values beyond the knee T = Q(|a|, knee) pulled towards the centre; the rest stay bit for bit.

    Args:
        knee: quantile in [0, 1] of |a| beyond which values move.
        curve: "log": sign(a)·T·(1 + ln(|a|/T)), the A-law compander of ITU-T G.711 with its knee at T: slope 1 at T,
            monotone, invertible. "clip": sign(a)·T, percentile clipping as in quantisation calibration.
        strength: a + strength · (a′ − a), in [0, 1].

    Where T is 0 (nearly all values are zero) both curves have the limit 0.

    Raises:
        ArgumentError: a value is out of its range.
    """

    knee: float = 0.99
    curve: str = "log"
    strength: float = 1.0

    name: ClassVar[str] = "inward"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"curve": ("log", "clip")}

    def __post_init__(self) -> None:
        check_numbers(self, "knee", "strength")
        check_choices(self, self.choices)

    def move(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor]:
        """`[rows, n]` each: the contracted values, and the tails that take them. Draws nothing."""
        magnitude = rows.magnitude
        knee = ordered(magnitude, rows.real).quantile(self.knee)
        moved = magnitude > knee
        if self.curve == "clip":
            return torch.copysign(knee.to(rows.values.dtype), rows.values.detach()), moved
        values, width = rows.values, magnitude.shape[-1]
        if not isinstance(width, int):  # that a compiler leaves open
            return values.detach().sign() * _compand(values.abs(), knee), moved
        # The curve is dear, and no more values than these lie beyond the quantile.
        real = magnitude if rows.real is None else magnitude.masked_fill(~rows.real, -1)
        tail = real.topk(width - floor(self.knee * (width - 1)), sorted=False).indices
        beyond = values.gather(-1, tail)
        return values.scatter(-1, tail, beyond.detach().sign() * _compand(beyond.abs(), knee)), moved

    @staticmethod
    def compand(a: Tensor, knee: Tensor | float) -> Tensor:
        """The log curve at strength 1, which `expand` inverts: sign(a)·T·(1 + ln(|a|/T)) where |a| > T, else a.

        A companded float32 has ln(|a|/T) to half an ulp of itself, so that expanding it is exact to about
        (1 + ln(|a|/T))/2 ulp of `a`; companded in float64, every float32 comes back. Here a knee of 0 moves nothing,
        so that the curve can be inverted; as a policy `Inward` takes the limit 0.

        Args:
            a: any shape and float dtype, which the result has too.
            knee: T, in the unit of `a`; broadcasts to it.
        """
        threshold = torch.as_tensor(knee, dtype=wide(a.device), device=a.device)
        beyond = (a.detach().abs() > threshold) & (threshold > 0)
        return torch.where(beyond, a.sign() * _compand(a.abs(), threshold), a)

    @staticmethod
    def expand(a: Tensor, knee: Tensor | float) -> Tensor:
        """The inverse of the log curve at strength 1: sign(a)·T·exp(|a|/T − 1) where |a| > T, else a.

        Args:
            a: contracted values, any shape and float dtype.
            knee: T, in the unit of `a`; broadcasts to it.
        """
        dtype = wide(a.device)
        threshold = torch.as_tensor(knee, dtype=dtype, device=a.device)
        beyond = (a.detach().abs() > threshold) & (threshold > 0)
        excess = torch.where(beyond, a.abs().to(dtype) / threshold - 1, 0)
        return torch.where(beyond, a.sign() * (threshold * excess.exp()).to(a.dtype), a)


def _compand(magnitude: Tensor, knee: Tensor) -> Tensor:
    """T·(1 + ln(m/T)) for m ≥ T, T below, where a ratio of 1 keeps ln(0) out of the gradient.

    In float64 and rounded once: m/T overflows float32 for a tiny knee, and every device has the same bits.
    """
    dtype = wide(magnitude.device)
    threshold = torch.where(knee > 0, knee, 1).to(dtype)
    ratio = (magnitude.to(dtype) / threshold).clamp(min=1)
    return (knee.to(dtype) * (1 + log(ratio))).to(magnitude.dtype)
