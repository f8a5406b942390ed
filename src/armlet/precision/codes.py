"""Number formats of few bits for activations: encode, round and decode in one step, in the values' own dtype.

The rounding is torch's own; this file defines which values share a scale.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LARGEST_CODE = {"int8": 127, "int4": 7, "e4m3": 448}
"""The largest number of each format; −128 and −8 are not used: the values at down have both signs, and one range."""

SMALLEST_RANGE = 2.0**-100  # where all values are 0, any scale will do


@dataclass(frozen=True)
class Code:
    """A number format, symmetric and without a zero point, and what shares a scale."""

    number: Literal["int8", "int4", "e4m3"]  # e4m3: float8 with 4 bits of exponent and 3 of mantissa
    span: Literal["static", "tensor", "token"]  # everything, by calibration; a sequence; a token

    def __str__(self) -> str:
        return f"{self.number} {self.span}"

    def rows(self, z: Tensor) -> Tensor:
        """`[batch, seq, width]` → `[rows, n]`: the values of a row share a scale."""
        if self.span == "static":
            return z.reshape(1, -1)
        return z.reshape(-1, z.shape[-1]) if self.span == "token" else z.flatten(1)

    def round(self, rows: Tensor, limit: Tensor) -> Tensor:
        """`[rows, n]`, encoded and decoded; values beyond the limit become the limit, NaN and infinity are kept.

        `limit`, `[rows, 1]`, is the magnitude that the largest number represents.
        """
        largest = LARGEST_CODE[self.number]
        scale = limit.clamp(min=SMALLEST_RANGE) / largest
        if self.number == "e4m3":
            rounded = (rows / scale).clamp(-largest, largest).to(torch.float8_e4m3fn).to(rows.dtype) * scale
        else:
            zero, flat = torch.zeros(len(rows), dtype=torch.int32, device=rows.device), scale.float().flatten()
            rounded = torch.fake_quantize_per_channel_affine(rows.float(), flat, zero, 0, -largest, largest)
        return torch.where(rows.isfinite(), rounded.to(rows.dtype), rows)  # torch turns them into −limit


CODES = (
    *(Code(number, span) for number in ("int8", "int4") for span in ("static", "tensor", "token")),
    Code("e4m3", "tensor"),
)

REFERENCES = (Code("int8", "tensor"), Code("int4", "token"))
"""The codes for which settings are chosen and distributions measured; the first also stands for float8."""


def kth_smallest(rows: Tensor, share: float) -> Tensor:
    """`[rows, 1]`: the k-th smallest value of each row, k = max(1, round(share · n)); exact, without a sort."""
    k = min(max(round(share * rows.shape[-1]), 1), rows.shape[-1])
    return rows.kthvalue(k, dim=-1, keepdim=True).values
