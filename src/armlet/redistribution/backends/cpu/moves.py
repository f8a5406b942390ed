"""The CPU backend: moves rows with numba kernels, with the bits of the plain path."""

from collections.abc import Callable
from ctypes import addressof
from functools import lru_cache
from weakref import ref

import torch
from torch import Tensor

from armlet.redistribution.backends.cpu import rows, threads
from armlet.redistribution.backends.cpu.cut import move_cut
from armlet.redistribution.backends.cpu.inward import CURVES, move_inward
from armlet.redistribution.backends.cpu.jobs import RESULTS, RowJob, take_one
from armlet.redistribution.backends.cpu.outward import move_outward
from armlet.redistribution.backends.cpu.transport import move_by_transport
from armlet.redistribution.cut import Cut
from armlet.redistribution.inward import Inward
from armlet.redistribution.near_zero import NearZero
from armlet.redistribution.noise import WORD
from armlet.redistribution.operands import Backend, BackendResult, Operands
from armlet.redistribution.outward import Outward
from armlet.redistribution.rows import Policy
from armlet.redistribution.transport import Transport

DTYPE_CODES = {torch.float32: rows.FLOAT32, torch.bfloat16: rows.BFLOAT16, torch.float16: rows.FLOAT16}
MOVERS = {Outward: move_outward, Inward: move_inward, Transport: move_by_transport, Cut: move_cut}
MAX_WIDTHS = {Outward: 57_344, Inward: 57_344, Transport: 40_832, Cut: 57_344}
"""The widest rows for which a thread's scratch memory stays below 1 MB."""


def _supports(a: Tensor, policy: Policy) -> bool:
    """Supports scopes of one row each, up to a width."""
    return a.is_cpu and a.dtype in DTYPE_CODES and a.shape[1] == 1 and 0 < a.shape[2] <= MAX_WIDTHS.get(type(policy), 0)


def _move_scopes(a: Tensor, policy: Policy, operands: Operands) -> BackendResult:
    count, _, width = a.shape
    keys, positions, stream, uniforms, mask, strength = operands
    values = torch.empty_like(a, memory_format=torch.contiguous_format)
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
    tensors = (a, values, moved, passed, positions, uniforms, mask, strength)  # contiguous, as `Backend` requires
    job.source, job.target, job.moved, job.passed, job.positions, job.uniforms, job.mask, job.strengths = (
        0 if tensor is None else tensor.data_ptr() for tensor in tensors
    )
    job.count, job.owners = count, (words, tensors)
    threads.run_job(job)
    return BackendResult(values, moved, passed)


def row_mover(policy: Policy, width: int, dtype: torch.dtype, keys: Tensor, stream: int) -> Callable[..., Tensor]:
    """Returns a function that moves one row per call; calls share everything that costs as much as the row itself.

    Its arguments are `a`, `[..., width]`, contiguous, on the CPU, with all other sizes 1; the position, int64 or None
    for 0; the mask, bool or None; and the address that `take_one` adds to, or 0. The keys must not change.
    """
    words = _noise_words(keys, stream) if isinstance(policy, Outward) else None
    base, step = (0, 0) if words is None else (word.data_ptr() for word in words)
    free_jobs, run, empty_like = _free_jobs(policy, width, dtype), take_one.call, torch.empty_like

    def move(a: Tensor, position: Tensor | None, mask: Tensor | None, counts: int, _alive: object = words) -> Tensor:
        try:
            job = free_jobs.pop()  # no other thread uses it until it is appended again
        except IndexError:
            job = _single_row_job(policy, width, dtype)
        values = empty_like(a)
        position_address = 0 if position is None else position.data_ptr()
        mask_address = 0 if mask is None else mask.data_ptr()
        run(job[0], a.data_ptr(), values.data_ptr(), position_address, mask_address, base, step, counts)
        free_jobs.append(job)
        return values

    return move


CPU = Backend(_supports, _move_scopes, row_mover)


def _single_row_job(policy: Policy, width: int, dtype: torch.dtype) -> tuple[int, RowJob]:
    """Returns the address of a job of one row, and the job, without the arguments of `take_one`."""
    job = _job(policy, width, dtype)
    address = addressof(job)
    memory, job.scratch = threads.memory(job.room)
    job.count, job.moved, job.passed, job.owners = 1, address + RESULTS, address + RESULTS + 8, (memory,)
    return address, job


@lru_cache
def _free_jobs(_policy: Policy, _width: int, _dtype: torch.dtype) -> list[tuple[int, RowJob]]:
    """The jobs that no thread uses, shared by all layers, so that their memory stays in the CPU's cache."""
    return []


def _job(policy: Policy, width: int, dtype: torch.dtype) -> RowJob:
    """Makes a job with the policy's settings and no rows."""
    job = RowJob(dtype=DTYPE_CODES[dtype], length=width, strength=policy.strength)
    job.room = rows.scratch_size(width, sorts=isinstance(policy, Transport))
    job.mover = MOVERS[type(policy)].address  # type: ignore[index] - `_supports` checked the policy
    if isinstance(policy, NearZero):
        job.band, (job.low, job.high) = policy.band, policy.share
        job.proportion = -1.0 if policy.proportion is None else policy.proportion
    if isinstance(policy, Outward):
        job.ceiling = policy.ceiling
        job.add, job.of_magnitude = policy.write == "add", policy.ceiling_of == "magnitude"
    elif isinstance(policy, Inward):
        job.knee, job.limit = policy.knee, -1.0 if policy.limit is None else policy.limit
        job.above, job.curve = policy.side == "above", CURVES.index(policy.curve)
        job.keyless = policy.limit is not None and policy.curve != "log"
    elif isinstance(policy, Transport):
        job.spread = policy.spread
    elif isinstance(policy, Cut):
        job.threshold = -1.0 if policy.threshold is None else policy.threshold
    return job


_cached_words: dict[int, tuple[ref[Tensor], int, int, Tensor]] = {}


def _noise_words(keys: Tensor, stream: int) -> Tensor:
    """Returns uint32 `[2, width]`: base + stream·stride, and step; cached while the keys exist and do not change."""
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
