"""Redistribution on the CPU with numba, with the bits of the plain path."""

from collections.abc import Callable
from ctypes import addressof
from functools import lru_cache
from weakref import ref

import torch
from torch import Tensor

from armlet.redistribution.backends.cpu import rows, threads
from armlet.redistribution.backends.cpu.inward import move_inward
from armlet.redistribution.backends.cpu.jobs import RESULTS, RowJob, take_one
from armlet.redistribution.backends.cpu.outward import move_outward
from armlet.redistribution.backends.cpu.transport import move_by_transport
from armlet.redistribution.inward import Inward
from armlet.redistribution.noise import WORD
from armlet.redistribution.operands import Backend, Counted, Operands
from armlet.redistribution.outward import Outward
from armlet.redistribution.rows import Policy
from armlet.redistribution.transport import Transport

DTYPE_CODES = {torch.float32: rows.FLOAT32, torch.bfloat16: rows.BFLOAT16, torch.float16: rows.FLOAT16}
MOVERS = {Outward: move_outward, Inward: move_inward, Transport: move_by_transport}
WIDEST_ROWS = {Outward: 57_344, Inward: 57_344, Transport: 40_832}
"""Rows up to these widths keep a thread's scratch below 1 MB."""


def _takes(a: Tensor, policy: Policy) -> bool:
    """Scopes of one row each."""
    return (
        a.is_cpu and a.dtype in DTYPE_CODES and a.shape[1] == 1 and 0 < a.shape[2] <= WIDEST_ROWS.get(type(policy), 0)
    )


def _move_scopes(a: Tensor, policy: Policy, operands: Operands) -> Counted:
    count, _, width = a.shape
    keys, positions, stream, uniforms, mask, strength = operands
    values = torch.empty_like(a)
    moved = torch.empty(count, dtype=torch.int64, device=a.device)
    passed = torch.empty(count, dtype=torch.bool, device=a.device)
    job = _job(policy, width, a.dtype)
    words = None
    if isinstance(policy, Outward) and uniforms is None:
        if keys is None:
            uniforms = torch.full(a.shape, 0.5, device=a.device)
        else:
            words = _noise_words(keys, stream)
            job.base, job.step = (word.data_ptr() for word in words)
    results = {"source": a, "target": values, "moved": moved, "passed": passed}
    tensors = {**results, "positions": positions, "uniforms": uniforms, "mask": mask, "strengths": strength}
    given = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
    for name, tensor in given.items():
        setattr(job, name, tensor.data_ptr())
    job.count, job.kept = count, (words, *given.values())
    threads.run_job(job)
    return Counted(values, moved, passed)


def row_mover(policy: Policy, width: int, dtype: torch.dtype, keys: Tensor, stream: int) -> Callable[..., Tensor]:
    """A function that moves one row, without what costs as much as the row itself: calls share all that they can.

    It takes `a`, `[..., width]` of the dtype, contiguous, on the CPU, the other sizes being 1; its position, int64 or
    None for 0; its mask, bool or None; and the address that `take_one` adds to, or 0. The keys must not change.
    """
    words = _noise_words(keys, stream) if isinstance(policy, Outward) else None
    base, step = (0, 0) if words is None else (word.data_ptr() for word in words)
    idle, run, empty_like = _idle_jobs(policy, width, dtype), take_one.call, torch.empty_like

    def move(a: Tensor, position: Tensor | None, mask: Tensor | None, counts: int, _alive: object = words) -> Tensor:
        try:
            job = idle.pop()  # no other thread has it until it is put back
        except IndexError:
            job = _single_row_job(policy, width, dtype)
        values = empty_like(a)
        place = 0 if position is None else position.data_ptr()
        valid = 0 if mask is None else mask.data_ptr()
        run(job[0], a.data_ptr(), values.data_ptr(), place, valid, base, step, counts)
        idle.append(job)
        return values

    return move


CPU = Backend(_takes, _move_scopes, row_mover)


def _single_row_job(policy: Policy, width: int, dtype: torch.dtype) -> tuple[int, RowJob]:
    """A job of one row, without what `take_one` is given, by its address."""
    job = _job(policy, width, dtype)
    address = addressof(job)
    memory, job.scratch = threads.memory(job.room)
    job.count, job.moved, job.passed, job.kept = 1, address + RESULTS, address + RESULTS + 8, (memory,)
    return address, job


@lru_cache
def _idle_jobs(_policy: Policy, _width: int, _dtype: torch.dtype) -> list[tuple[int, RowJob]]:
    """Those of all layers: the memory that one has used is in the cache for the next."""
    return []


def _job(policy: Policy, width: int, dtype: torch.dtype) -> RowJob:
    """With the policy's settings, without rows."""
    job = RowJob(dtype=DTYPE_CODES[dtype], length=width, strength=policy.strength)
    job.room = rows.scratch_size(width, sorts=isinstance(policy, Transport))
    job.mover = MOVERS[type(policy)].address  # type: ignore[index] - `_takes` knows the policies
    if isinstance(policy, Outward):
        job.band, job.ceiling, (job.low, job.high) = policy.band, policy.ceiling, policy.share
        job.proportion = -1.0 if policy.proportion is None else policy.proportion
        job.add, job.of_magnitude = policy.write == "add", policy.ceiling_of == "magnitude"
    elif isinstance(policy, Inward):
        job.knee, job.log = policy.knee, policy.curve == "log"
    elif isinstance(policy, Transport):
        job.spread = policy.spread
    return job


_cached_words: dict[int, tuple[ref[Tensor], int, int, Tensor]] = {}


def _noise_words(keys: Tensor, stream: int) -> Tensor:
    """uint32 `[2, width]`: base + stream·stride and step; cached as long as the keys live and do not change."""
    name, version = id(keys), -1 if keys.is_inference() else getattr(keys, "_version", -1)
    cached = _cached_words.get(name)
    if cached is not None and cached[0]() is keys and cached[1:3] == (version, stream) and version >= 0:
        return cached[3]
    words = keys[:2]
    if stream & WORD:
        words = torch.stack((keys[0] + (stream & WORD) * keys[2], keys[1])).bitwise_and_(WORD)
    words = words.to(torch.uint32)
    _cached_words[name] = ref(keys, lambda _: _cached_words.pop(name, None)), version, stream, words
    return words
