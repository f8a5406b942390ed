"""Number formats of few bits for activations: encode, round and decode in one step, in the values' own dtype.

The rounding is torch's own (`fake_quantize_per_channel_affine`, `float8_e4m3fn`); this file defines which values share
a scale. A code is symmetric, without a zero point: the values at the input of down have both signs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError

LARGEST_NUMBER = {"int8": 127, "int4": 7, "e4m3": 448}
"""The largest number of each format: −128 and −8 are not used, so that both signs have the same range."""

SPANS = ("static", "tensor", "token")
"""What shares a scale: everything, by calibration; the values of one sequence; the values of one token."""

SMALLEST_LIMIT = 2.0**-100
"""The smallest range: where all values are 0, any scale will do."""


@dataclass(frozen=True)
class Code:
    """A number format, and what shares a scale.

    Args:
        number: one of `LARGEST_NUMBER`: int8, int4, or float8 with 4 bits of exponent and 3 of mantissa.
        span: one of `SPANS`.

    Raises:
        ArgumentError: no such format or span.
    """

    number: str
    span: str

    def __post_init__(self) -> None:
        if self.number not in LARGEST_NUMBER or self.span not in SPANS:
            raise ArgumentError(f"code: expected {', '.join(LARGEST_NUMBER)} with {', '.join(SPANS)}, found {self}")

    def __str__(self) -> str:
        return f"{self.number} {self.span}"

    def rows(self, z: Tensor) -> Tensor:
        """`[batch, seq, width]` → `[rows, n]`: the values of a row share a scale."""
        if self.span == "static":
            return z.reshape(1, -1)
        return z.reshape(-1, z.shape[-1]) if self.span == "token" else z.flatten(1)

    def round(self, rows: Tensor, limit: Tensor) -> Tensor:
        """Encodes and decodes; values beyond the limit become the limit, NaN and infinity are kept.

        Args:
            rows: `[rows, n]` float.
            limit: `[rows, 1]`, the magnitude that the largest number represents.

        Returns:
            `[rows, n]`, of the same dtype.
        """
        largest = LARGEST_NUMBER[self.number]
        scale = limit.clamp(min=SMALLEST_LIMIT) / largest
        if self.number == "e4m3":
            rounded = (rows / scale).clamp(-largest, largest).to(torch.float8_e4m3fn).to(rows.dtype) * scale
        else:
            zero, flat = torch.zeros(len(rows), dtype=torch.int32, device=rows.device), scale.float().flatten()
            rounded = torch.fake_quantize_per_channel_affine(rows.float(), flat, zero, 0, -largest, largest)
        return torch.where(rows.isfinite(), rounded.to(rows.dtype), rows)  # torch turns them into −limit


CODES = (
    *(Code(number, span) for number in ("int8", "int4") for span in SPANS),
    Code("e4m3", "tensor"),
)


def kth_smallest(rows: Tensor, share: float) -> Tensor:
    """`[rows, 1]`: the k-th smallest value of each row, k = max(1, round(share · n)); exact, without a sort."""
    k = min(max(round(share * rows.shape[-1]), 1), rows.shape[-1])
    return rows.kthvalue(k, dim=-1, keepdim=True).values
