"""Token scope on CUDA tensors (CPU under `TRITON_INTERPRET=1`) in Triton, a program a row, the bits of the plain path.

This file can be imported without Triton; the programs are in `rows.py`, imported at the first launch.
"""

import math
import os
from functools import lru_cache

import torch
from torch import Tensor

from armlet.redistribution.inward import Inward
from armlet.redistribution.noise import WORD
from armlet.redistribution.operands import Backend, Counted, Operands
from armlet.redistribution.outward import Outward
from armlet.redistribution.rows import Policy

WIDEST_ROW = 32_768
# Low bits of a float32 that are zero in every value of the dtype.
SPARE_BITS = {torch.float32: 0, torch.float16: 13, torch.bfloat16: 16}
OLDEST_TRITON = (3, 5)


def _is_for_triton(a: Tensor, policy: Policy) -> bool:
    """Not `Transport`: ranks of all values need a sorted row, which neither registers nor counting give cheaply."""
    fits = a.shape[1] == 1 and 0 < a.shape[2] <= WIDEST_ROW
    return fits and a.dtype in SPARE_BITS and type(policy) in (Outward, Inward) and _runs_on(a.device)


def _move_on_gpu(a: Tensor, policy: Policy, operands: Operands) -> Counted:
    return _launch_rows(a, torch.empty_like(a), policy, None, operands)


def gated_rows(gate_up: Tensor, policy: Policy, activation: str, operands: Operands) -> Counted:
    """ARM(activation(gate)) · up `[tokens, width]`, the activated gate rounded to the dtype before ARM, in one pass.

    Args:
        gate_up: `[tokens, 2·width]`, contiguous: gate, then up.
        policy: `Outward` or `Inward`.
        activation: "silu", "gelu" or "gelu_tanh", in float32 with the GPU's own exponential: not the bits of PyTorch.
        operands: with tokens for scopes: positions `[tokens]`, uniforms `[tokens, width]`, strength `[tokens]`.
    """
    values = gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2)
    return _launch_rows(gate_up, values, policy, activation, operands)


TRITON = Backend(_is_for_triton, _move_on_gpu, gated_rows=gated_rows)


@lru_cache
def _runs_on(device: torch.device) -> bool:
    """On GPUs with bfloat16, and interpreted on CPUs. The first call imports Triton."""
    if device.type == "cpu":
        able = os.environ.get("TRITON_INTERPRET") == "1"
    else:
        nvidia = device.type == "cuda" and torch.version.hip is None
        able = nvidia and torch.cuda.get_device_capability(device) >= (8, 0)
    if not able:
        return False
    from triton import __version__ as version  # pyright: ignore[reportMissingImports] - optional

    return tuple(int(part) for part in version.split(".")[:2]) >= OLDEST_TRITON


def _launch_rows(source: Tensor, target: Tensor, policy: Policy, activation: str | None, operands: Operands) -> Counted:
    """Fills `target`."""
    from armlet.redistribution.backends.triton.rows import redistribute_rows

    rows, width = len(target), target.shape[-1]
    moved = torch.empty(rows, dtype=torch.int64, device=target.device)
    passed = torch.empty(rows, dtype=torch.bool, device=target.device)
    if rows:
        with torch.cuda.device_of(source):
            redistribute_rows[(rows,)](  # type: ignore - a compiled program
                source, target, moved, passed,
                **_pointers(operands),
                **launch_numbers(policy, width),
                **constants(policy, width, target.dtype, activation, operands.strength is not None),
                **compiling(width),
            )  # fmt: skip
    return Counted(target, moved, passed)


def _pointers(operands: Operands) -> dict[str, object]:
    """The tensors of a launch, and where it reads positions and stream."""
    keys, positions, stream, uniforms, mask, strength = operands
    keyed = keys is not None and uniforms is None
    return {
        "keys": keys.contiguous().view(torch.int32) if keys is not None and keyed else None,
        "positions": positions if keyed else None,
        "position_stride": positions.stride(0) if positions is not None and keyed else 0,
        "stream": ((stream & WORD) ^ 1 << 31) - (1 << 31) if keyed else 0,  # as int32
        "uniforms": None if uniforms is None else uniforms.contiguous(),
        "mask": None if mask is None else mask.contiguous(),
        "strengths": None if strength is None else strength.contiguous(),
    }


@lru_cache
def launch_numbers(policy: Policy, width: int) -> dict[str, int | float]:
    """The numbers of a policy at a width: the ranks that its statistics have, in float64 as the plain path has them."""
    outward = policy if isinstance(policy, Outward) else Outward()  # `Inward` reads none of the numbers of `Outward`
    index = (policy.knee if isinstance(policy, Inward) else outward.ceiling) * float(width - 1)
    below = math.floor(index)
    low, high = outward.share
    return {
        "width": width,
        "rank": (width - 1) // 2 + 1 if outward.proportion is None else _rank(outward.proportion, width),
        "lowest": _rank(low, width),
        "highest": _rank(high, width),
        "below": below,
        "nearer": int(index - below < 0.5),
        "weight": _as_float32(index - below),
        "rest": _as_float32(1 - (index - below)),
        "band": _as_float32(outward.band),
        "strength": _as_float32(policy.strength),
    }


def _rank(share: float, width: int) -> int:
    return max(1, round(share * float(width)))


def _as_float32(number: float) -> float:
    return torch.tensor(number, dtype=torch.float32).item()


@lru_cache
def constants(
    policy: Policy, width: int, dtype: torch.dtype, activation: str | None, by_row: bool
) -> dict[str, object]:
    """What a kernel is compiled for."""
    outward = policy if isinstance(policy, Outward) else None
    strength = "none" if policy.strength == 0 else "part" if policy.strength < 1 else "whole"
    block = _power_of_two(width)
    return {
        "POLICY": policy.name,
        "RULE": policy.curve if isinstance(policy, Inward) else outward and outward.write,
        "BANDED": outward is not None and outward.proportion is None,
        "SIGNED": outward is not None and outward.ceiling_of == "signed",
        "STRENGTH": "rows" if by_row else strength,
        "ACTIVATION": activation,
        "LOWEST": SPARE_BITS[dtype],
        "LARGEST": torch.finfo(dtype).max,
        "BLOCK": block,
        "PART": min(block, 128 * _warps(width)),
    }


def compiling(width: int) -> dict[str, object]:
    """How a kernel is compiled: products are never fused with sums, which would round once."""
    return {"num_warps": _warps(width), "num_stages": 1, "enable_fp_fusion": False}


def _warps(width: int) -> int:
    """Up to 32 warps, 16 values a thread, 32 of the widest rows."""
    return min(32, max(1, _power_of_two(width) // 512))


def _power_of_two(width: int) -> int:
    return 1 << (width - 1).bit_length()
