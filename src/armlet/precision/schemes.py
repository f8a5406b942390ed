"""Quantisation of activations to few bits: quantise and dequantise in one step, in the values' own dtype.

torch does the rounding; this file defines which values share a scale.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

MAX_QUANTIZED = {"int8": 127, "int4": 7, "e4m3": 448}
"""The largest number of each dtype; −128 and −8 are not used, so that both signs have the same range."""

SMALLEST_RANGE = 2.0**-100  # for rows in which all values are 0; any scale works for them


@dataclass(frozen=True)
class QuantScheme:
    """A number format, symmetric and without a zero point, and the granularity of its scales."""

    dtype: Literal["int8", "int4", "e4m3"]  # e4m3: float8 with 4 bits of exponent and 3 of mantissa
    granularity: Literal["static", "tensor", "token"]  # a scale for a layer, calibrated; for a sequence; for a token

    def __str__(self) -> str:
        return f"{self.dtype} {self.granularity}"

    def rows(self, z: Tensor) -> Tensor:
        """Reshapes `[batch, seq, width]` to `[rows, n]`, in which the values of a row share a scale."""
        shapes = {"static": (1, -1), "tensor": (len(z), -1), "token": (-1, z.shape[-1])}
        return z.reshape(shapes[self.granularity])

    def round(self, rows: Tensor, limit: Tensor) -> Tensor:
        """Quantises and dequantises `[rows, n]`; clips values beyond the limit; leaves NaN and infinity unchanged.

        `limit`, `[rows, 1]`, is the magnitude that the largest number represents.
        """
        largest = MAX_QUANTIZED[self.dtype]
        scale = limit.clamp(min=SMALLEST_RANGE) / largest
        if self.dtype == "e4m3":
            rounded = (rows / scale).clamp(-largest, largest).to(torch.float8_e4m3fn).to(rows.dtype) * scale
        else:
            zero, flat = torch.zeros(len(rows), dtype=torch.int32, device=rows.device), scale.float().flatten()
            rounded = torch.fake_quantize_per_channel_affine(rows.float(), flat, zero, 0, -largest, largest)
        return torch.where(rows.isfinite(), rounded.to(rows.dtype), rows)  # torch turns them into −limit


SCHEMES = (
    *(QuantScheme(dtype, granularity) for dtype in ("int8", "int4") for granularity in ("static", "tensor", "token")),
    QuantScheme("e4m3", "tensor"),
)

REFERENCES = (QuantScheme("int8", "tensor"), QuantScheme("int4", "token"))
"""The schemes for which settings are chosen and distributions measured; the first also stands for float8."""


def kth_smallest(rows: Tensor, share: float) -> Tensor:
    """`[rows, 1]`: the k-th smallest value of each row, k = max(1, round(share · n)); exact, without a sort."""
    k = min(max(round(share * rows.shape[-1]), 1), rows.shape[-1])
    return rows.kthvalue(k, dim=-1, keepdim=True).values
