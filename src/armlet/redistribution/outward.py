"""Outward: near-zero values pushed away from zero (arXiv 2510.01032, Section 4, and its released code)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.order import MAD_TO_SIGMA, Ordered, Sorted, mad, minimum, ordered
from armlet.redistribution.rows import Draw, Rows, check_choices, check_numbers, known


@dataclass(frozen=True)
class Outward:
    """Near-zero values pushed away from zero: the ARM of arXiv 2510.01032.

    Values with |a| below τ are redrawn as sign(a)·u·upper (or ·lower where negative), u uniform on [0, 1).

    Args:
        band: width of the near-zero band in robust standard deviations: ε = 1.4826 · MAD(|a|) · band (the paper's c).
        ceiling: quantile in [0, 1] that bounds positive draws (the paper's p1, there in percent).
        share: lowest and highest share in [0, 1] of the values that move (the paper's p_min, p_max).
        proportion: share in [0, 1] of the values that move, in place of `band` and `share` (the paper's p, for Gemma).
        write: "replace" writes the draw (the released code), "add" adds it (the paper's text).
        ceiling_of: "signed" takes the ceiling from a, "magnitude" from |a| (the released Gemma file).
        strength: a + strength · (a′ − a), in [0, 1].

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

    def __post_init__(self) -> None:
        check_numbers(self, "band", positive=True)
        check_numbers(self, "ceiling", "strength")
        check_choices(self, self.choices)
        if self.proportion is not None:
            check_numbers(self, "proportion")
        object.__setattr__(self, "share", _share(self.share))

    def move(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor]:
        """`[rows, n]` each: the drawn (or added) values, and the near-zero positions that take them."""
        magnitude = rows.magnitude
        magnitudes = ordered(magnitude, rows.real)
        upper = (ordered(rows.single, rows.real) if self.ceiling_of == "signed" else magnitudes).quantile(self.ceiling)
        values = rows.values
        value = draw() * _bound(values.detach(), minimum(rows.single, rows.real), upper)
        return (value if self.write == "replace" else values + value), self._near(magnitude, magnitudes, rows.real)

    def _near(self, magnitude: Tensor, magnitudes: Ordered | Sorted, real: Tensor | None) -> Tensor:
        if self.proportion is not None:
            return magnitude <= magnitudes.kth(self.proportion)
        width = MAD_TO_SIGMA * mad(magnitude, real, magnitudes.median()) * self.band
        near = magnitude < width
        if real is None and known(near, self._within):
            return near
        high, low = (magnitudes.kth(share) for share in reversed(self.share))  # low is among those up to high
        edge = width.clamp(min=low, max=high)
        return torch.where(edge == width, near, magnitude <= edge)

    def _within(self, near: Tensor) -> bool:
        """Whether in each row so many values are below ε that it lies within the share's bounds; no row has padding."""
        least, most = (max(1, round(share * near.shape[-1])) for share in self.share)
        fewest, greatest = near.sum(-1).aminmax()
        return least <= fewest.item() and greatest.item() < most


def near_zero_halfwidth(a: Tensor, band: float = 0.13) -> Tensor:
    """ε = 1.4826 · MAD · band, `[tokens, 1]` float32: the half-width inside which `Outward` calls a value near zero.

    `a` is an activated gate, `[tokens, width]`, finite and without padding: anything else is an `ArgumentError`.
    """
    if a.dim() != 2 or not a.numel() or not a.isfinite().all():
        raise ArgumentError(f"near zero: expected finite values [tokens, width], found shape {list(a.shape)}")
    magnitudes = a.detach().float().abs()
    return MAD_TO_SIGMA * band * mad(magnitudes, None, ordered(magnitudes, None).median())


def _bound(values: Tensor, lowest: Tensor, upper: Tensor) -> Tensor:
    """`[rows, n]`: what a draw is multiplied by, with its sign: `lowest` where values are negative, else `upper`."""
    if values.dtype is torch.float64:  # a negative value may be 0 in float32, where `lowest` is found
        return torch.where(values < 0, lowest.clamp(max=0), upper).to(values.dtype)
    # Infinity of the value's sign, cut to its bound: choosing by random signs takes four times as long.
    return torch.copysign(values.new_full((1, 1), torch.inf), values + 0.0).clamp(lowest, upper)


def _share(share: object) -> tuple[float, float]:
    numbers = tuple(share) if isinstance(share, tuple | list) else ()
    if len(numbers) == 2 and all(isinstance(s, int | float) for s in numbers) and 0 <= numbers[0] <= numbers[1] <= 1:
        return numbers
    raise ArgumentError(f"Outward: share must be (low, high) with 0 <= low <= high <= 1, found {share!r}")
