"""Redistribution on the CPU with numba, with the bits of the plain path."""

from collections.abc import Callable
from ctypes import c_bool, c_int64
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from armlet.redistribution.inward import Inward
from armlet.redistribution.kernels import inward_rows, outward_rows, rows, threads, transport_rows
from armlet.redistribution.noise import WORD
from armlet.redistribution.outward import Outward
from armlet.redistribution.rows import Policy
from armlet.redistribution.transport import Transport

DTYPES = {torch.float32: rows.FLOAT32, torch.bfloat16: rows.BFLOAT16, torch.float16: rows.FLOAT16}
WIDEST = {Outward: 57_344, Inward: 57_344, Transport: 40_960}
"""Rows up to here keep a thread's scratch below 1 MB."""

COUNTS = 16
"""Bytes for how many values of one row moved, and whether it passed through."""

Moved = tuple[Tensor, Tensor, Tensor]


def supports(a: Tensor, policy: Policy) -> bool:
    """Whether `move_rows` takes `a`, `[scopes, tokens, width]`, and the policy.

    `Transport` ranks the values of a scope by sorting them, which has room for a row alone.
    """
    return a.is_cpu and takes_row(a, policy) and (a.shape[1] == 1 or not isinstance(policy, Transport))


def takes_row(a: Tensor, policy: Policy) -> bool:
    """Whether `move_row` takes `a`, `[..., width]` with one row on the CPU, and the policy."""
    return a.dtype in DTYPES and 0 < a.shape[-1] <= WIDEST.get(type(policy), 0)


def move_row(
    a: Tensor, policy: Policy, keys: Tensor, positions: Tensor | None, stream: int, real: Tensor | None
) -> tuple[Tensor, int, bool]:
    """One row, `a` being contiguous: `move_rows` without what costs as much as the row itself.

    Args:
        a: `[..., width]`, the others being 1.
        policy: what moves.
        keys: as `move_rows` takes them.
        positions: int64, the row's one; None for 0.
        stream: of the keyed noise.
        real: bool, the row's one; None where it counts.

    Returns:
        Values, how many moved, and whether the row passed through.
    """
    width, values = a.shape[-1], torch.empty_like(a)
    words = _words(keys, stream) if isinstance(policy, Outward) else None
    loop, arguments = _LOOPS[type(policy)](policy, _draws(words, positions, None))
    size = _scratch_size(policy, width)
    scratch = threads.scratch(size + COUNTS)
    moved, passed = scratch + size, scratch + size + 8
    row = (a.data_ptr(), values.data_ptr(), DTYPES[a.dtype], width)
    loop(0, 1, *row, _address(real), 0, float(policy.strength), moved, passed, scratch, *arguments)
    return values, c_int64.from_address(moved).value, c_bool.from_address(passed).value


def move_rows(
    a: Tensor,
    policy: Policy,
    *,
    keys: Tensor | None = None,
    positions: Tensor | None = None,
    stream: int = 0,
    uniforms: Tensor | None = None,
    real: Tensor | None = None,
    strength: Tensor | None = None,
) -> Moved:
    """Scopes moved by the policy, as `plain.move_rows` moves them; see `supports` for which."""
    count, tokens, width = a.shape
    # The loops read by address, one value behind the other.
    positions, uniforms, real, strength = (
        tensor if tensor is None else tensor.contiguous() for tensor in (positions, uniforms, real, strength)
    )
    values = torch.empty_like(a)
    moved = torch.empty(count, dtype=torch.int64, device=a.device)
    passed = torch.empty(count, dtype=torch.bool, device=a.device)
    # The words live until the rows are written, whatever another thread keeps in their place.
    words = _words(keys, stream) if keys is not None and isinstance(policy, Outward) else None
    draws = _draws(words, positions, uniforms)
    if tokens > 1:
        kept = (a, values, words, positions, uniforms, real)
        _long_scopes(a, values, policy, draws, real, strength, moved, passed, kept)
        return values, moved, passed
    row = (a.data_ptr(), values.data_ptr(), DTYPES[a.dtype], width)
    where = (_address(real), _address(strength), float(policy.strength), moved.data_ptr(), passed.data_ptr())
    loop, arguments = _LOOPS[type(policy)](policy, draws)
    size = _scratch_size(policy, width)
    if count == 1:
        loop(0, 1, *row, *where, threads.scratch(size), *arguments)
    else:
        kept = (a, values, moved, passed, words, positions, uniforms, real, strength)
        part = partial(_part, kept, loop, (*row, *where), size, arguments)
        threads.over(count, count * width, part)
    return values, moved, passed


def _part(
    _kept: object, loop: Any, tensors: tuple[Any, ...], size: int, arguments: tuple[Any, ...], first: int, last: int
) -> None:
    """Rows `first` to `last`; a part that goes on where the call was interrupted still holds what it writes to."""
    loop(first, last, *tensors, threads.scratch(size), *arguments)


def _long_scopes(
    a: Tensor,
    values: Tensor,
    policy: Any,
    draws: tuple[int, ...],
    real: Tensor | None,
    strength: Tensor | None,
    moved: Tensor,
    passed: Tensor,
    kept: tuple[Tensor | None, ...],
) -> None:
    from armlet.redistribution.kernels.scopes import Scope, move

    count, tokens, width = a.shape
    sizes = [tokens] * count if real is None else real.sum(-1).tolist()
    strengths = [float(policy.strength)] * count if strength is None else strength.tolist()
    kind, base, step, positions, uniforms = draws
    size = tokens * width * a.element_size()
    for i in range(count):
        scope = Scope(
            tokens=tokens,
            real=0 if real is None else real.data_ptr() + i * tokens,
            size=sizes[i] * width,
            source=a.data_ptr() + i * size,
            dtype=DTYPES[a.dtype],
            width=width,
            kept=kept,
        )
        here = positions and positions + 8 * i * tokens, uniforms and uniforms + 4 * i * tokens * width
        moved[i], passed[i] = move(scope, policy, values.data_ptr() + i * size, strengths[i], (kind, base, step, *here))


def _outward(policy: Outward, draws: tuple[int, ...]) -> tuple[Any, tuple[Any, ...]]:
    proportion = -1.0 if policy.proportion is None else float(policy.proportion)
    low, high = policy.share
    numbers = float(policy.band), float(policy.ceiling), float(low), float(high), proportion
    return outward_rows.outward_rows, (*draws, *numbers, policy.write == "add", policy.ceiling_of == "magnitude")


def _inward(policy: Inward, _draws: tuple[int, ...]) -> tuple[Any, tuple[Any, ...]]:
    return inward_rows.inward_rows, (float(policy.knee), policy.curve == "log")


def _transport(policy: Transport, _draws: tuple[int, ...]) -> tuple[Any, tuple[Any, ...]]:
    return transport_rows.transport_rows, (float(policy.spread),)


def _scratch_size(policy: Policy, width: int) -> int:
    return (transport_rows if isinstance(policy, Transport) else rows).scratch_size(width)


_LOOPS: dict[type, Callable[..., tuple[Any, tuple[Any, ...]]]] = {
    Outward: _outward,
    Inward: _inward,
    Transport: _transport,
}


def _draws(words: Tensor | None, positions: Tensor | None, uniforms: Tensor | None) -> tuple[int, ...]:
    """Where the draws of `outward_rows` come from."""
    if uniforms is not None:
        return outward_rows.UNIFORMS, 0, 0, 0, uniforms.data_ptr()
    if words is None:
        return outward_rows.MIDPOINT, 0, 0, 0, 0
    start = words.data_ptr()
    return outward_rows.KEYED, start, start + words.shape[1] * words.element_size(), _address(positions), 0


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


_kept: dict[int, tuple[Any, int, int, Tensor]] = {}


def _words(keys: Tensor, stream: int) -> Tensor:
    """uint32 `[2, width]`: base + stream·stride and step, as long as the keys live."""
    version = -1 if keys.is_inference() else keys._version
    found = _kept.get(id(keys))
    if found is not None and found[0]() is keys and found[1:3] == (version, stream) and version >= 0:
        return found[3]
    base, step, stride = keys
    words = torch.stack((base + (stream & WORD) * stride, step)).bitwise_and_(WORD).to(torch.uint32)
    name = id(keys)
    _kept[name] = ref(keys, lambda _: _kept.pop(name, None)), version, stream, words
    return words
