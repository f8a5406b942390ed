"""The GPU backend: token scope on CUDA tensors (on the CPU with `TRITON_INTERPRET=1`), with the plain path's bits.

Each row is one Triton program. This file can be imported without Triton; `rows.py` is imported at the first launch.
"""

import math
import os
from functools import lru_cache

import torch
from torch import Tensor

from armlet.redistribution.cut import Cut
from armlet.redistribution.inward import Inward
from armlet.redistribution.near_zero import NearZero
from armlet.redistribution.noise import WORD
from armlet.redistribution.operands import Backend, BackendResult, Operands
from armlet.redistribution.outward import Outward
from armlet.redistribution.rows import Policy

MAX_WIDTH = 32_768
# The number of low bits of a float32 that are zero in every value of the dtype.
SPARE_BITS = {torch.float32: 0, torch.float16: 13, torch.bfloat16: 16}
MIN_TRITON_VERSION = (3, 5)


def _supports_rows(a: Tensor, policy: Policy) -> bool:
    """Excludes `Transport`, whose ranks need a sorted row, for which counting in registers is too slow."""
    fits = a.shape[1] == 1 and 0 < a.shape[2] <= MAX_WIDTH
    return fits and a.dtype in SPARE_BITS and type(policy) in (Outward, Inward, Cut) and _runs_on(a.device)


def _move_on_gpu(a: Tensor, policy: Policy, operands: Operands) -> BackendResult:
    return _launch(a, torch.empty_like(a), policy, None, operands)


def gated_rows(gate_up: Tensor, policy: Policy, activation: str, operands: Operands) -> BackendResult:
    """Computes ARM(activation(gate)) · up `[tokens, width]` in one pass; rounds the activated gate to the dtype.

    Args:
        gate_up: `[tokens, 2·width]`, contiguous: gate, then up.
        policy: `Outward`, `Inward` or `Cut`.
        activation: "silu", "gelu" or "gelu_tanh", in float32 with the GPU's exponential, without PyTorch's exact bits.
        operands: one scope per token: positions `[tokens]`, uniforms `[tokens, width]`, strength `[tokens]`.
    """
    values = gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2)
    return _launch(gate_up, values, policy, activation, operands)


def tally(totals: Tensor, result: BackendResult, tokens: int | Tensor, *, calls: int) -> bool:
    """Adds calls, tokens, values moved and scopes passed to `totals`, int64 `[4]`, in one launch.

    Args:
        totals: the counters, on the device of the result.
        result: of any backend.
        tokens: how many there were, or the padding mask, bool of any shape, whose True values count.
        calls: how many calls this is.

    Returns False, with nothing added, if Triton does not run on the device.
    """
    if totals.device != result.moved.device or not _runs_on(totals.device):
        return False
    from armlet.redistribution.backends.triton.tally import BLOCK, add_counts

    mask = tokens.contiguous() if isinstance(tokens, Tensor) else None
    count = tokens.numel() if isinstance(tokens, Tensor) else tokens
    moved, passed = result.moved.contiguous(), result.passed.contiguous()
    with torch.cuda.device_of(totals):
        add_counts[(1,)](  # type: ignore - a compiled program
            totals, moved, passed, mask, len(moved), count, calls, BLOCK=BLOCK
        )  # fmt: skip
    return True


TRITON = Backend(_supports_rows, _move_on_gpu, gated_rows=gated_rows, tally=tally)


@lru_cache
def _runs_on(device: torch.device) -> bool:
    """True for GPUs with bfloat16, and for CPUs with Triton's interpreter. The first call imports Triton."""
    if device.type == "cpu":
        supported = os.environ.get("TRITON_INTERPRET") == "1"
    else:
        nvidia = device.type == "cuda" and torch.version.hip is None
        supported = nvidia and torch.cuda.get_device_capability(device) >= (8, 0)
    if not supported:
        return False
    from triton import __version__ as version  # pyright: ignore[reportMissingImports] - optional

    return tuple(int(part) for part in version.split(".")[:2]) >= MIN_TRITON_VERSION


def _launch(source: Tensor, out: Tensor, policy: Policy, activation: str | None, operands: Operands) -> BackendResult:
    """Runs the kernel, which fills `out`."""
    from armlet.redistribution.backends.triton.rows import redistribute_rows

    rows, width = len(out), out.shape[-1]
    moved = torch.empty(rows, dtype=torch.int64, device=out.device)
    passed = torch.empty(rows, dtype=torch.bool, device=out.device)
    if rows:
        with torch.cuda.device_of(source):
            redistribute_rows[(rows,)](  # type: ignore - a compiled program
                source, out, moved, passed,
                **_pointers(operands),
                **launch_numbers(policy, width),
                **constants(policy, width, out.dtype, activation, operands.strength is not None),
                **compile_options(width),
            )  # fmt: skip
    return BackendResult(out, moved, passed)


def _pointers(operands: Operands) -> dict[str, object]:
    """Returns the tensors of a launch, the stride of positions, and the stream."""
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
    """Returns a policy's numbers and the ranks of its statistics at a width, from float64 as in the plain path."""
    near_zero = policy if isinstance(policy, NearZero) else Outward()  # `Inward` does not read these numbers
    index = _quantile(policy) * float(width - 1)
    below = math.floor(index)
    low, high = near_zero.share
    return {
        "width": width,
        "rank": (width - 1) // 2 + 1 if near_zero.proportion is None else _rank(near_zero.proportion, width),
        "lowest": _rank(low, width),
        "highest": _rank(high, width),
        "below": below,
        "nearer": int(index - below < 0.5),
        "weight": _as_float32(index - below),
        "rest": _as_float32(1 - (index - below)),
        "band": _as_float32(near_zero.band),
        "limit": _as_float32(_limit(policy) or 0.0),
        "strength": _as_float32(policy.strength),
    }


def _quantile(policy: Policy) -> float:
    return policy.ceiling if isinstance(policy, Outward) else policy.knee if isinstance(policy, Inward) else 0.0


def _limit(policy: Policy) -> float | None:
    """The number that takes the place of statistics; None if there is none."""
    return policy.limit if isinstance(policy, Inward) else policy.threshold if isinstance(policy, Cut) else None


def _rank(share: float, width: int) -> int:
    return max(1, round(share * float(width)))


def _as_float32(number: float) -> float:
    return torch.tensor(number, dtype=torch.float32).item()


@lru_cache
def constants(
    policy: Policy, width: int, dtype: torch.dtype, activation: str | None, by_row: bool
) -> dict[str, object]:
    """Returns the compile-time constants of a kernel."""
    outward = policy if isinstance(policy, Outward) else None
    inward = policy if isinstance(policy, Inward) else None
    strength = "none" if policy.strength == 0 else "part" if policy.strength < 1 else "whole"
    block = _power_of_two(width)
    return {
        "POLICY": policy.name,
        "RULE": inward.curve if inward else outward and outward.write,
        "BANDED": isinstance(policy, NearZero) and policy.proportion is None,
        "SIGNED": outward is not None and outward.ceiling_of == "signed",
        "LIMITED": _limit(policy) is not None,
        "ABOVE": inward is not None and inward.side == "above",
        "STRENGTH": "rows" if by_row else strength,
        "ACTIVATION": activation,
        "LOWEST": SPARE_BITS[dtype],
        "LARGEST": torch.finfo(dtype).max,
        "BLOCK": block,
        "PART": min(block, 128 * _warps(width)),
    }


def compile_options(width: int) -> dict[str, object]:
    """Returns options of the compiler; products are never fused with sums, which would round only once."""
    return {"num_warps": _warps(width), "num_stages": 1, "enable_fp_fusion": False}


def _warps(width: int) -> int:
    """Returns up to 32 warps: 16 values per thread, 32 for the widest rows."""
    return min(32, max(1, _power_of_two(width) // 512))


def _power_of_two(width: int) -> int:
    return 1 << (width - 1).bit_length()
