"""Redistribution on the CPU with numba, with the bits of the plain path."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from armlet.redistribution.backends.cpu import inward as inward_rows
from armlet.redistribution.backends.cpu import outward as outward_rows
from armlet.redistribution.backends.cpu import rows, threads
from armlet.redistribution.backends.cpu import transport as transport_rows
from armlet.redistribution.backends.cpu.jobs import RESULTS, Job, take_one
from armlet.redistribution.inward import Inward
from armlet.redistribution.noise import WORD
from armlet.redistribution.outward import Outward
from armlet.redistribution.rows import Policy
from armlet.redistribution.transport import Transport

DTYPES = {torch.float32: rows.FLOAT32, torch.bfloat16: rows.BFLOAT16, torch.float16: rows.FLOAT16}
WIDEST = {Outward: 57_344, Inward: 57_344, Transport: 40_832}
"""Rows up to here keep a thread's scratch below 1 MB."""

Moved = tuple[Tensor, Tensor, Tensor]


def supports(a: Tensor, policy: Policy) -> bool:
    """Whether `move_rows` takes `a`, `[scopes, tokens, width]`, and the policy.

    `Transport` ranks the values of a scope by sorting them, which has room for a row alone.
    """
    return (
        a.is_cpu and takes_row(a.dtype, a.shape[-1], policy) and (a.shape[1] == 1 or not isinstance(policy, Transport))
    )


def takes_row(dtype: torch.dtype, width: int, policy: Policy) -> bool:
    """Whether there are rows of this dtype and width here for the policy."""
    return dtype in DTYPES and 0 < width <= WIDEST.get(type(policy), 0)


def row_mover(policy: Policy, width: int, dtype: torch.dtype, keys: Tensor, stream: int) -> Callable[..., Tensor]:
    """`move_rows` of one row at a time, without what costs as much as the row itself: all that calls share is here.

    Args:
        policy: what moves.
        width: of the row.
        dtype: of the row.
        keys: as `move_rows` takes them; they do not change.
        stream: of the keyed noise.

    Returns:
        A function of `a`, `[..., width]` of the dtype, contiguous, on the CPU, the other sizes being 1; its position,
        int64 or None for 0; its mask, bool or None where it counts; and the address that `take_one` adds to, or 0. It
        gives the row's values.
    """
    words = _words(keys, stream) if isinstance(policy, Outward) else None
    base, step = (0, 0) if words is None else (word.data_ptr() for word in words)
    idle, run, empty_like = _idle_jobs(policy, width, dtype), take_one.call, torch.empty_like

    def move(a: Tensor, position: Tensor | None, real: Tensor | None, counts: int, _alive: object = words) -> Tensor:
        try:
            job = idle.pop()  # no other thread has it until it is put back
        except IndexError:
            job = _RowJob(policy, width, dtype)
        values = empty_like(a)
        place = 0 if position is None else position.data_ptr()
        mask = 0 if real is None else real.data_ptr()
        run(job.address, a.data_ptr(), values.data_ptr(), place, mask, base, step, counts)
        idle.append(job)
        return values

    return move


class _RowJob:
    """A job of one row, but for what `take_one` is given."""

    def __init__(self, policy: Policy, width: int, dtype: torch.dtype) -> None:
        self.job = job = Job(dtype=DTYPES[dtype], length=width, count=1, draws=outward_rows.KEYED)
        _set_policy(job, policy)
        self.address, self.results = job.address, job.results
        self.memory, job.scratch = threads.memory(_scratch_size(policy, width))
        job.loop, job.moved, job.passed = (
            _LOOPS[type(policy)].address,
            self.address + RESULTS,
            self.address + RESULTS + 8,
        )


@lru_cache
def _idle_jobs(_policy: Policy, _width: int, _dtype: torch.dtype) -> list[_RowJob]:
    """Those of all layers: what one has used is warm for the next."""
    return []


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
    job = _job(a, values, policy, _draws(words, positions, uniforms))
    job.real, job.kept = _address(real), (a, values, moved, passed, words, positions, uniforms, real, strength)
    if tokens > 1:
        _move_scopes(job, a, policy, real, strength, moved, passed)
        return values, moved, passed
    job.count, job.strengths = count, _address(strength)
    job.moved, job.passed = moved.data_ptr(), passed.data_ptr()
    threads.run(job, _LOOPS[type(policy)], _scratch_size(policy, width))
    return values, moved, passed


def _move_scopes(
    job: Job, a: Tensor, policy: Any, real: Tensor | None, strength: Tensor | None, moved: Tensor, passed: Tensor
) -> None:
    """Scopes of several rows each, one behind the other."""
    from armlet.redistribution.backends.cpu.scopes import Scope, move

    count, tokens, width = a.shape
    sizes = [tokens] * count if real is None else real.sum(-1).tolist()
    strengths = [job.strength] * count if strength is None else strength.tolist()
    size, job.count = tokens * width, tokens
    steps = {"source": size * a.element_size(), "target": size * a.element_size()}
    steps |= {"real": tokens, "positions": 8 * tokens, "uniforms": 4 * size}
    for i in range(count):
        job.strength = strengths[i]
        moved[i], passed[i] = move(Scope(job, sizes[i] * width), policy)
        for name, step in steps.items():
            setattr(job, name, (address := getattr(job, name)) and address + step)


def _job(a: Tensor, values: Tensor, policy: Any, draws: tuple[int, ...]) -> Job:
    """Without its rows."""
    job = Job(source=a.data_ptr(), target=values.data_ptr(), dtype=DTYPES[a.dtype], length=a.shape[-1])
    _set_policy(job, policy)
    if isinstance(policy, Outward):
        job.draws, job.base, job.step, job.positions, job.uniforms = draws
    return job


def _set_policy(job: Job, policy: Any) -> None:
    job.strength = policy.strength
    if isinstance(policy, Outward):
        job.band, job.ceiling, (job.low, job.high) = policy.band, policy.ceiling, policy.share
        job.proportion = -1.0 if policy.proportion is None else policy.proportion
        job.add, job.of_magnitude = policy.write == "add", policy.ceiling_of == "magnitude"
    elif isinstance(policy, Inward):
        job.knee, job.log = policy.knee, policy.curve == "log"
    else:
        job.spread = policy.spread


_LOOPS = {
    Outward: outward_rows.outward_rows,
    Inward: inward_rows.inward_rows,
    Transport: transport_rows.transport_rows,
}


def _scratch_size(policy: Policy, width: int) -> int:
    return (transport_rows if isinstance(policy, Transport) else rows).scratch_size(width)


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
    words = keys[:2]
    if stream & WORD:
        words = torch.stack((keys[0] + (stream & WORD) * keys[2], keys[1])).bitwise_and_(WORD)
    words = words.to(torch.uint32)
    name = id(keys)
    _kept[name] = ref(keys, lambda _: _kept.pop(name, None)), version, stream, words
    return words
