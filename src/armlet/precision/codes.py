"""Number codes of few bits for activations: encode, round and decode in one step, in the values' own dtype.

The rounding is torch's own (`fake_quantize_per_channel_affine`, `float8_e4m3fn`); this file says over which values a
scale spans. A code is symmetric, without a zero point: the values at the input of down have both signs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError

LARGEST = {"int8": 127, "int4": 7, "e4m3": 448}
"""The largest number of each code: −128 and −8 are left out, so that both signs reach as far."""

SPANS = ("static", "tensor", "token")
"""What shares a scale: everything, by calibration; one sequence's values; one token's values."""

SMALLEST = 2.0**-100
"""The smallest range: where all values are 0, any scale will do."""


@dataclass(frozen=True)
class Code:
    """A number format, and what shares a scale in it.

    Args:
        number: one of `LARGEST`: int8, int4, or float8 with 4 bits of exponent and 3 of mantissa.
        span: one of `SPANS`.

    Raises:
        ArgumentError: no such format or span.
    """

    number: str
    span: str

    def __post_init__(self) -> None:
        if self.number not in LARGEST or self.span not in SPANS:
            raise ArgumentError(f"code: expected {', '.join(LARGEST)} with {', '.join(SPANS)}, found {self}")

    def __str__(self) -> str:
        return f"{self.number} {self.span}"

    def rows(self, z: Tensor) -> Tensor:
        """`[batch, seq, width]` → `[rows, n]`: the values of a row share a scale."""
        if self.span == "static":
            return z.reshape(1, -1)
        return z.reshape(-1, z.shape[-1]) if self.span == "token" else z.flatten(1)

    def round(self, rows: Tensor, limit: Tensor) -> Tensor:
        """Rounds to the code and back; what lies beyond the limit becomes the limit. NaN and infinity stay.

        Args:
            rows: `[rows, n]` float.
            limit: `[rows, 1]`, the magnitude that the largest number stands for.

        Returns:
            `[rows, n]`, of the same dtype.
        """
        largest = LARGEST[self.number]
        scale = limit.clamp(min=SMALLEST) / largest
        if self.number == "e4m3":
            rounded = (rows / scale).clamp(-largest, largest).to(torch.float8_e4m3fn).to(rows.dtype) * scale
        else:
            zero, flat = torch.zeros(len(rows), dtype=torch.int32, device=rows.device), scale.float().flatten()
            rounded = torch.fake_quantize_per_channel_affine(rows.float(), flat, zero, 0, -largest, largest)
        return torch.where(rows.isfinite(), rounded.to(rows.dtype), rows)  # torch makes −limit of them


CODES = (
    *(Code(number, span) for number in ("int8", "int4") for span in SPANS),
    Code("e4m3", "tensor"),
)


def kth(rows: Tensor, share: float) -> Tensor:
    """`[rows, 1]`: the k-th smallest of each row, k = round(share · n), at least the first; exact, without a sort."""
    k = min(max(round(share * rows.shape[-1]), 1), rows.shape[-1])
    return rows.kthvalue(k, dim=-1, keepdim=True).values
