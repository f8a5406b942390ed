"""Number formats: their largest numbers, and what blocks with shared scales lose to a large value."""

import torch
from torch import Tensor

E2M1_MAX = 6.0  # of 4-bit floats: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives
E4M3_MAX = torch.finfo(torch.float8_e4m3fn).max
NVFP4_BLOCK, Q8_1_BLOCK = 16, 32  # values that share a scale
INT8_MAX = 127

FLOAT_FORMATS = {
    "float16": torch.finfo(torch.float16).max,
    "bfloat16": torch.finfo(torch.bfloat16).max,
    "e4m3": E4M3_MAX,
    "e5m2": torch.finfo(torch.float8_e5m2).max,
}
"""The largest number of each format that stores a value by itself, without a scale."""

NVFP4, INT8_STATIC, Q8_1 = "nvfp4", "int8 static", "q8_1 sum"

MAXIMA = {**FLOAT_FORMATS, NVFP4: E2M1_MAX * E4M3_MAX, Q8_1: FLOAT_FORMATS["float16"]}
"""The largest magnitude that a format can express.

- nvfp4: in units of the tensor's float32 scale: the largest e2m1 number times the largest e4m3 scale of a block.
- q8_1 sum: of the sum that llama.cpp stores with each block of 32 int8 values, as float16.
"""

VALUE_BOUNDS = {**FLOAT_FORMATS, NVFP4: MAXIMA[NVFP4], "q8_1": MAXIMA[Q8_1] / Q8_1_BLOCK}
"""The magnitude that a value may have for a limit to keep it inside; for q8_1, so that no sum of 32 can overflow."""


def q8_1_sums(values: Tensor) -> Tensor | None:
    """The magnitude of s = d · Σq of each block, `[..., width / 32]`, in float32; None if blocks do not fill the width.

    As llama.cpp computes it: d = max|x| / 127, q = round(x / d).
    """
    if values.shape[-1] % Q8_1_BLOCK:
        return None
    blocks = values.float().unflatten(-1, (-1, Q8_1_BLOCK))
    scale = blocks.abs().amax(-1, keepdim=True) / INT8_MAX
    codes = torch.where(scale > 0, blocks / scale, 0).round()
    return (scale * codes.sum(-1, keepdim=True)).abs().squeeze(-1)


def nvfp4_zeros(values: Tensor, tensor_scale: float) -> tuple[int, int] | None:
    """How many values other than 0 NVFP4 stores as 0, and how many of these are in blocks whose scale is 0.

    None if blocks do not fill the width. A block's scale is max|x| / 6, in units of the tensor's scale, rounded to
    e4m3; a value becomes 0 if its magnitude is at most a quarter of the scale (ties to even).
    """
    if values.shape[-1] % NVFP4_BLOCK:
        return None
    magnitudes = values.float().abs().unflatten(-1, (-1, NVFP4_BLOCK))
    scale = magnitudes.amax(-1, keepdim=True) / E2M1_MAX / tensor_scale
    stored = scale.clamp(max=E4M3_MAX).to(torch.float8_e4m3fn).float()
    zero = (magnitudes > 0) & (magnitudes <= stored * tensor_scale / 4)
    return int(zero.sum() + ((magnitudes > 0) & (stored == 0)).sum()), int(((magnitudes > 0) & (stored == 0)).sum())


def rounded_down(value: float, dtype: torch.dtype) -> float:
    """The largest number of a dtype, and of float32 as `Inward` rounds a limit, that is at most `value`, positive.

    0 if even the smallest number above 0 is larger.
    """
    dtype = torch.float32 if dtype == torch.float64 else dtype
    number = torch.tensor(min(value, torch.finfo(dtype).max), dtype=torch.float64).to(dtype)
    return (number if number.item() <= value else torch.nextafter(number, torch.zeros_like(number))).item()
