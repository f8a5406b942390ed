"""The policy `Outward` pushes near-zero values away from zero (arXiv 2510.01032, Section 4, and its released code)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.near_zero import NearZero
from armlet.redistribution.order import MAD_TO_SIGMA, mad, minimum, ordered
from armlet.redistribution.rows import (
    BOUNDS,
    FRACTION,
    OPTIONAL_FRACTION,
    POSITIVE,
    Allowed,
    Draw,
    Rows,
    check_settings,
    one_of,
)


@dataclass(frozen=True)
class Outward(NearZero):
    """Pushes near-zero values away from zero: the ARM of arXiv 2510.01032.

    Values with |a| up to τ, which is ε limited by `share`, become u · (the `ceiling` quantile), or u · min(a) if they
    are negative, with u uniform on [0, 1).

    Args:
        band: width of the near-zero band in robust standard deviations: ε = 1.4826 · MAD(|a|) · band (the paper's c).
        ceiling: quantile in [0, 1] that bounds positive draws (the paper's p1, there in percent).
        share: lowest and highest share of values that move, in [0, 1] (the paper's p_min, p_max).
        proportion: share of values that move, in [0, 1]; replaces `band` and `share` (the paper's p, for Gemma).
        write: "replace" writes the draw (the released code), "add" adds it (the paper's text).
        ceiling_of: "signed" computes the ceiling from a, "magnitude" from |a| (the released Gemma file).
        strength: in [0, 1]; the result is a + strength · (a′ − a).

    Raises:
        ArgumentError: a value is out of its range.
    """

    band: float = 0.13
    ceiling: float = 0.995
    share: tuple[float, float] = (0.02, 0.25)
    proportion: float | None = None
    write: str = "replace"
    ceiling_of: str = "signed"
    strength: float = 1.0

    name: ClassVar[str] = "outward"
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"write": ("replace", "add"), "ceiling_of": ("signed", "magnitude")}
    allowed: ClassVar[dict[str, Allowed]] = {
        "band": POSITIVE,
        "ceiling": FRACTION,
        "share": BOUNDS,
        "proportion": OPTIONAL_FRACTION,
        "write": one_of(*choices["write"]),
        "ceiling_of": one_of(*choices["ceiling_of"]),
        "strength": FRACTION,
    }

    def __post_init__(self) -> None:
        check_settings(self, self.allowed)
        object.__setattr__(self, "share", tuple(self.share))

    def move(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor]:
        """Returns the redrawn values, and which values are near zero and move, `[rows, n]` each."""
        magnitude = rows.magnitude
        magnitudes = ordered(magnitude, rows.valid)
        values, signed = rows.values, rows.float32
        upper = (ordered(signed, rows.valid) if self.ceiling_of == "signed" else magnitudes).quantile(self.ceiling)
        value = draw() * _bound(values.detach(), minimum(signed, rows.valid), upper)
        near = self.near_zero(magnitude, magnitudes, rows.valid)
        return (value if self.write == "replace" else values + value), near


def near_zero_halfwidth(a: Tensor, band: float = 0.13) -> Tensor:
    """ε = 1.4826 · MAD · band, `[tokens, 1]` float32: values of smaller magnitude are near zero for `Outward`.

    `a` is an activated gate, `[tokens, width]`, finite and without padding; raises ArgumentError otherwise.
    """
    if a.dim() != 2 or not a.numel() or not a.isfinite().all():
        raise ArgumentError(f"near zero: expected finite values [tokens, width], found shape {list(a.shape)}")
    magnitudes = a.detach().float().abs()
    return MAD_TO_SIGMA * band * mad(magnitudes, None, ordered(magnitudes, None).median())


def _bound(values: Tensor, lowest: Tensor, upper: Tensor) -> Tensor:
    """Returns `[rows, n]` signed factors of the draws: `lowest` for negative values, otherwise `upper`."""
    if values.dtype is torch.float64:  # a negative value may be 0 in float32, from which `lowest` is computed
        return torch.where(values < 0, lowest.clamp(max=0), upper).to(values.dtype)
    # Infinity with the value's sign, clamped; selecting by sign with `where` takes four times as long.
    return torch.copysign(values.new_full((1, 1), torch.inf), values + 0.0).clamp(lowest, upper)
