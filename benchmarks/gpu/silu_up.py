# type: ignore - Triton's language has Python's syntax but other types.
"""SiLU(gate) · up in one pass: what a served model does without ARM, by which ARM's fused program is measured."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from armlet.redistribution.backends.triton.arithmetic import activated, narrowed, widened

BLOCK = 1024


@triton.jit
def _silu_up(gate_up, target, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    source = gate_up + row * width * 2
    gate = activated(tl.load(source + column, inside, 0), "silu")
    up = tl.load(source + width + column, inside, 0)
    tl.store(target + row * width + column, narrowed(widened(gate) * widened(up), gate.dtype), inside)


def silu_up(gate_up: Tensor) -> Tensor:
    """Returns silu(gate) · up, `[tokens, width]`, for `[tokens, 2·width]`: gate, then up."""
    tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    target = gate_up.new_empty(tokens, width)
    with torch.cuda.device_of(gate_up):
        _silu_up[(tokens, triton.cdiv(width, BLOCK))](gate_up, target, width, BLOCK=BLOCK, enable_fp_fusion=False)
    return target
