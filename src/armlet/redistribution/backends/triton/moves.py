"""Token scope on CUDA tensors in Triton, one program a row, with the bits of the plain path.

This file can be imported without Triton; the programs themselves stand in `cuda_rows.py`, imported at the first launch.
Under `TRITON_INTERPRET=1` they run on CPU tensors.
"""

import math
import os
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from armlet.redistribution.inward import Inward
from armlet.redistribution.outward import Outward
from armlet.redistribution.rows import Policy

WIDEST = 32_768
ACTIVATIONS = ("silu", "gelu", "gelu_tanh")
# Low bits of a float32 that are zero in every value of the dtype.
SPARE_BITS = {torch.float32: 0, torch.float16: 13, torch.bfloat16: 16}
WORD = 0xFFFFFFFF
OLDEST_TRITON = (3, 5)


def supports(a: Tensor, policy: Policy) -> bool:
    """Whether `move_rows` takes `a`, `[scopes, tokens, width]`, and the policy here.

    Not `Transport`: the rank of every value needs a sorted row, which neither registers nor counting give cheaply.
    """
    return (
        _runs_on(a.device)
        and a.dtype in SPARE_BITS
        and a.shape[1] == 1
        and 0 < a.shape[2] <= WIDEST
        and type(policy) in (Outward, Inward)
    )


def move_rows(
    a: Tensor,
    policy: Outward | Inward,
    *,
    keys: Tensor | None = None,
    positions: Tensor | None = None,
    stream: int = 0,
    uniforms: Tensor | None = None,
    real: Tensor | None = None,
    strength: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows moved by the policy; see `supports` for which.

    Args:
        a: `[scopes, 1, width]`, contiguous.
        policy: what moves.
        keys: int64 `[3, width]`, of `Noise.keys`; without keys and `uniforms` every draw is ½.
        positions: int64 `[scopes, 1]`, the tokens' absolute positions, with `keys`.
        stream: of the keyed noise.
        uniforms: float32 `[scopes, 1, width]`, other draws.
        real: bool `[scopes, 1]`; False: the token neither counts nor moves.
        strength: float32 `[scopes]`, in place of the policy's.

    Returns:
        Values as `a`; how many moved, int64 `[scopes]`; and bool `[scopes]`: the row held NaN or Inf and is unchanged.
    """
    values = torch.empty_like(a)
    draws = _Draws(keys, positions, stream, uniforms)
    return values, *_launch(a, values, policy, None, draws, real, strength)


def gated_rows(
    gate_up: Tensor,
    policy: Outward | Inward,
    activation: str = "silu",
    *,
    keys: Tensor | None = None,
    positions: Tensor | None = None,
    stream: int = 0,
    uniforms: Tensor | None = None,
    strength: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """ARM(activation(gate)) · up, the activated gate rounded to the dtype before ARM: one read and one write.

    Args:
        gate_up: `[tokens, 2·width]`, contiguous: gate, then up.
        policy: what moves.
        activation: "silu", "gelu" or "gelu_tanh", computed in float32 with the GPU's own exponential: not the bits of
            `torch.nn.functional`.
        keys: as for `move_rows`, and so are the rest, with tokens for scopes.
        positions: `[tokens]`.
        stream: of the keyed noise.
        uniforms: `[tokens, width]`.
        strength: `[tokens]`.

    Returns:
        `[tokens, width]`; how many moved, int64 `[tokens]`; and bool `[tokens]`: passed through ARM unchanged.
    """
    values = gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2)
    draws = _Draws(keys, positions, stream, uniforms)
    return values, *_launch(gate_up, values, policy, activation, draws, None, strength)


def interpreted() -> bool:
    """Whether Triton was told to run on the CPU: `TRITON_INTERPRET=1` before its first import."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def available() -> bool:
    """Whether a Triton is there in which the programs have been compiled; the first call imports it."""
    if find_spec("triton") is None:
        return False
    import triton  # type: ignore - optional

    return tuple(int(part) for part in triton.__version__.split(".")[:2]) >= OLDEST_TRITON


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


@dataclass(frozen=True, eq=False)
class _Draws:
    """Where the draws of a launch come from."""

    keys: Tensor | None
    positions: Tensor | None
    stream: int
    uniforms: Tensor | None

    def arguments(self) -> dict[str, object]:
        if self.keys is None:
            uniforms = None if self.uniforms is None else self.uniforms.contiguous()
            return {"keys": None, "positions": None, "uniforms": uniforms, "position_stride": 0, "stream": 0}
        assert self.positions is not None
        return {
            "keys": self.keys.contiguous().view(torch.int32),
            "positions": self.positions,
            "uniforms": None,
            "position_stride": self.positions.stride(0),
            "stream": ((self.stream & WORD) ^ 1 << 31) - (1 << 31),  # as int32
        }


def _launch(
    source: Tensor,
    target: Tensor,
    policy: Outward | Inward,
    activation: str | None,
    draws: _Draws,
    real: Tensor | None,
    strength: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Fills `target`, and returns how many values moved and which rows passed."""
    from armlet.redistribution.backends.triton.rows import redistribute_rows

    program: Any = redistribute_rows
    rows, width = len(target), target.shape[-1]
    moved = torch.empty(rows, dtype=torch.int64, device=target.device)
    passed = torch.empty(rows, dtype=torch.bool, device=target.device)
    if rows:
        with torch.cuda.device_of(source):
            program[(rows,)](
                source, target, moved, passed,
                real=None if real is None else real.contiguous(),
                strengths=None if strength is None else strength.contiguous(),
                **draws.arguments(),
                **settings(policy, width),
                **constants(policy, width, target.dtype, activation, strength is not None),
                **compiling(width),
            )  # fmt: skip
    return moved, passed


@lru_cache
def settings(policy: Outward | Inward, width: int) -> dict[str, int | float]:
    """The numbers of a policy at a width: the ranks that its statistics have, in float64 as the plain path has them."""
    outward = policy if isinstance(policy, Outward) else None
    index = (policy.ceiling if isinstance(policy, Outward) else policy.knee) * float(width - 1)
    below = math.floor(index)
    proportion = outward.proportion if outward else None
    low, high = outward.share if outward else (0.0, 0.0)
    return {
        "width": width,
        "rank": (width - 1) // 2 + 1 if proportion is None else _rank(proportion, width),
        "lowest": _rank(low, width),
        "highest": _rank(high, width),
        "below": below,
        "nearer": int(index - below < 0.5),
        "weight": _single(index - below),
        "rest": _single(1 - (index - below)),
        "band": _single(outward.band if outward else 0.0),
        "strength": _single(policy.strength),
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


def _rank(share: float, width: int) -> int:
    return max(1, round(share * float(width)))


def _single(number: float) -> float:
    return torch.tensor(number, dtype=torch.float32).item()
