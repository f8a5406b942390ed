"""Token scope on CUDA tensors in Triton, one program a row, with the bits of the plain path.

This file can be imported without Triton; the programs are in `rows.py`, imported at the first launch.
Under `TRITON_INTERPRET=1` they run on CPU tensors.
"""

import math
import os
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

from armlet.redistribution.inward import Inward
from armlet.redistribution.noise import WORD
from armlet.redistribution.operands import Operands
from armlet.redistribution.outward import Outward
from armlet.redistribution.rows import Policy

WIDEST_ROW = 32_768
# Low bits of a float32 that are zero in every value of the dtype.
SPARE_BITS = {torch.float32: 0, torch.float16: 13, torch.bfloat16: 16}
OLDEST_TRITON = (3, 5)


def supports(a: Tensor, policy: Policy) -> bool:
    """Whether `move_rows` takes `a`, `[scopes, tokens, width]`, and the policy here.

    Not `Transport`: the rank of every value needs a sorted row, which neither registers nor counting give cheaply.
    """
    return (
        _runs_on(a.device)
        and a.dtype in SPARE_BITS
        and a.shape[1] == 1
        and 0 < a.shape[2] <= WIDEST_ROW
        and type(policy) in (Outward, Inward)
    )


def move_rows(a: Tensor, policy: Outward | Inward, operands: Operands) -> tuple[Tensor, Tensor, Tensor]:
    """Rows moved by the policy, as `plain.move_rows` moves them; see `supports` for which."""
    values = torch.empty_like(a)
    return values, *_launch_rows(a, values, policy, None, operands)


def gated_rows(
    gate_up: Tensor, policy: Outward | Inward, activation: str, operands: Operands
) -> tuple[Tensor, Tensor, Tensor]:
    """ARM(activation(gate)) · up, the activated gate rounded to the dtype before ARM: one read and one write.

    Args:
        gate_up: `[tokens, 2·width]`, contiguous: gate, then up.
        policy: what moves.
        activation: "silu", "gelu" or "gelu_tanh", computed in float32 with the GPU's own exponential: not the bits of
            `torch.nn.functional`.
        operands: with tokens for scopes: positions `[tokens]`, uniforms `[tokens, width]`, strength `[tokens]`.

    Returns:
        `[tokens, width]`; how many moved, int64 `[tokens]`; and bool `[tokens]`: passed through ARM unchanged.
    """
    values = gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2)
    return values, *_launch_rows(gate_up, values, policy, activation, operands)


def interpreted() -> bool:
    """Whether Triton was told to run on the CPU: `TRITON_INTERPRET=1` before its first import."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def available() -> bool:
    """Whether a Triton is installed that can compile the programs; the first call imports it."""
    if find_spec("triton") is None:
        return False
    import triton  # pyright: ignore[reportMissingImports] - optional

    version: str = triton.__version__
    return tuple(int(part) for part in version.split(".")[:2]) >= OLDEST_TRITON


@lru_cache
def _runs_on(device: torch.device) -> bool:
    if device.type == "cpu":
        return interpreted() and available()
    return (
        device.type == "cuda"
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device) >= (8, 0)  # bfloat16
        and available()
    )


def _launch_rows(
    source: Tensor, target: Tensor, policy: Outward | Inward, activation: str | None, operands: Operands
) -> tuple[Tensor, Tensor]:
    """Fills `target`, and returns how many values moved and which rows passed."""
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
    return moved, passed


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
def launch_numbers(policy: Outward | Inward, width: int) -> dict[str, int | float]:
    """The numbers of a policy at a width: the ranks that its statistics have, in float64 as the plain path has them."""
    outward = policy if isinstance(policy, Outward) else None
    index = (policy.ceiling if isinstance(policy, Outward) else policy.knee) * float(width - 1)
    below = math.floor(index)
    proportion = outward.proportion if outward else None
    low, high = outward.share if outward else (0.0, 0.0)
    return {
        "width": width,
        "rank": (width - 1) // 2 + 1 if proportion is None else _rank_of_share(proportion, width),
        "lowest": _rank_of_share(low, width),
        "highest": _rank_of_share(high, width),
        "below": below,
        "nearer": int(index - below < 0.5),
        "weight": _as_float32(index - below),
        "rest": _as_float32(1 - (index - below)),
        "band": _as_float32(outward.band if outward else 0.0),
        "strength": _as_float32(policy.strength),
    }


@lru_cache
def constants(
    policy: Outward | Inward, width: int, dtype: torch.dtype, activation: str | None, by_row: bool
) -> dict[str, object]:
    """What a kernel is compiled for."""
    outward = policy if isinstance(policy, Outward) else None
    strength = "none" if policy.strength == 0 else "part" if policy.strength < 1 else "whole"
    return {
        "POLICY": policy.name,
        "RULE": policy.write if isinstance(policy, Outward) else policy.curve,
        "BANDED": outward is not None and outward.proportion is None,
        "SIGNED": outward is not None and outward.ceiling_of == "signed",
        "STRENGTH": "rows" if by_row else strength,
        "ACTIVATION": activation,
        "LOWEST": SPARE_BITS[dtype],
        "LARGEST": torch.finfo(dtype).max,
        **sizes(width),
    }


def sizes(width: int) -> dict[str, object]:
    """Room for a row, a power of two, and how much of it is moved at a time."""
    block = 1 << (width - 1).bit_length()
    return {"BLOCK": block, "PART": min(block, 128 * warps(width))}


def warps(width: int) -> int:
    """Up to 32 warps, 16 values a thread, 32 of the widest rows."""
    return min(32, max(1, (1 << (width - 1).bit_length()) // 512))


def compiling(width: int) -> dict[str, object]:
    """How a kernel is compiled: products are never fused with sums, which would round once."""
    return {"num_warps": warps(width), "num_stages": 1, "enable_fp_fusion": False}


def _rank_of_share(share: float, width: int) -> int:
    return max(1, round(share * float(width)))


def _as_float32(number: float) -> float:
    return torch.tensor(number, dtype=torch.float32).item()
