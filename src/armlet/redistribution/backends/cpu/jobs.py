"""The input of the kernels: addresses and numbers of a call, in memory that machine code reads."""

from ctypes import Structure, c_double, c_int64
from typing import ClassVar

import numpy as np

from armlet.redistribution.backends.cpu import rows
from armlet.redistribution.backends.cpu.compiled import NativeFunction, add_to, array, call_mover, compiled
from armlet.redistribution.backends.cpu.rows import (
    FLOAT32,
    LARGEST_FINITE,
    key_arrays,
    largest_magnitude,
    padded,
    selection_arrays,
)
from armlet.redistribution.backends.cpu.selection import INFINITE


class RowJob(Structure):
    """The rows of a call, and the settings of its policy; unused fields are 0.

    Args:
        next, count, chunk: first row that no thread has taken, number of rows, and number of rows taken at a time.
        members: number of threads that have taken rows.
        mover: address of the policy's row function, see `call_mover`.
        scratch: address of the first thread's scratch memory, followed by the other threads', `room` bytes each.
        results: values moved and rows passed of a single row, see `take_one`.
        source, target, mask, strengths, moved, passed: addresses of tensors, 0 for None.
        dtype, length: dtype code and length of a row.
        strength: strength of all rows, used if `strengths` is 0.
        base, step, positions, uniforms: addresses for keyed noise, or of explicit draws (0 for keyed noise).
        band, low, high, proportion: settings of `Outward` and `Cut`; proportion is negative for None.
        ceiling, add, of_magnitude: settings of `Outward`; threshold: setting of `Cut`, negative for None.
        knee, limit, above, curve: settings of `Inward`; limit is negative for None, and curve an index of `CURVES`.
        keyless: whether the row function needs no keys and no extremes.
        spread: setting of `Transport`.
    """

    _fields_: ClassVar = [
        *((name, c_int64) for name in ("next", "count", "chunk", "members", "mover", "scratch", "room")),
        ("results", c_int64 * 2),
        *((name, c_int64) for name in ("source", "target", "dtype", "length", "mask", "strengths")),
        ("strength", c_double),
        *((name, c_int64) for name in ("moved", "passed", "base", "step", "positions", "uniforms")),
        *((name, c_double) for name in ("band", "ceiling", "low", "high", "proportion")),
        *((name, c_int64) for name in ("add", "of_magnitude")),
        *((name, c_double) for name in ("knee", "limit")),
        *((name, c_int64) for name in ("above", "curve", "keyless")),
        ("spread", c_double),
        ("threshold", c_double),
    ]

    owners: tuple[object, ...] = ()
    """The objects that own the addresses, which a thread may still use after the call was interrupted."""


LAYOUT = np.dtype(RowJob)
NEXT, MEMBERS, RESULTS = RowJob.next.offset, RowJob.members.offset, RowJob.results.offset


@compiled
def job_at(address):
    """Returns the fields of the job at an address."""
    return array(address, 1, LAYOUT)[0]


@compiled
def open_row(job, values, out, work):
    """Returns a row's bits, results, signed keys and magnitudes, and the scratch memory of `select`."""
    bits, results = array(values, job.length, np.int32), array(out, job.length, np.int32)
    signed, magnitudes = key_arrays(work, job.length)
    return bits, results, signed, magnitudes, selection_arrays(work, job.length)


@compiled
def strength_and_largest(job, row):
    """Returns the strength of a row and the largest value of its dtype, as float32."""
    return np.float32(strength_of(job, row)), np.float32(LARGEST_FINITE[job.dtype])


@compiled
def strength_of(job, row):
    """Returns the strength of a row."""
    return np.float64(array(job.strengths, row + 1, np.float32)[row]) if job.strengths != 0 else job.strength


@compiled
def move_row(job, address, row, scratch):
    """Moves a row by the policy's function, or copies it, and stores it in its dtype."""
    dtype, length = job.dtype, job.length
    size, room = rows.ITEM_SIZES[dtype] * length, 4 * padded(length)
    source, target = job.source + row * size, job.target + row * size
    values, out, work = source, target, scratch + 2 * room
    if dtype != FLOAT32:
        values, out = scratch, scratch + room
        rows.widen(source, dtype, length, array(values, length, np.int32))
    bits = array(values, length, np.int32)
    if job.keyless:
        lowest, highest = np.int32(0), rows.largest_bits(bits, length)
    else:
        lowest, highest = rows.coarse_keys(bits, length, work)
    valid = job.mask == 0 or array(job.mask, row + 1, np.uint8)[row] != 0
    finite = largest_magnitude(lowest, highest) < np.int32(INFINITE)
    array(job.moved, row + 1, np.int64)[row] = 0
    array(job.passed, row + 1, np.uint8)[row] = valid and not finite
    if not valid or not finite or strength_of(job, row) <= 0:
        rows.copy(source, target, size)
        return
    call_mover(job.mover, address, row, values, out, np.int64(lowest), np.int64(highest), work)
    if dtype != FLOAT32:
        rows.narrow(array(out, length, np.int32), dtype, length, target)


@NativeFunction
def take_part(address):
    """Takes rows of a job until none are left; a thread on a busy core takes fewer."""
    job = job_at(address)
    first = add_to(address + NEXT, job.chunk)
    if first >= job.count:
        return
    scratch = job.scratch + job.room * add_to(address + MEMBERS, 1)
    while first < job.count:
        for row in range(first, min(first + job.chunk, job.count)):
            move_row(job, address, row, scratch)
        first = add_to(address + NEXT, job.chunk)


@NativeFunction
def take_one(address, source, target, positions, mask, base, step, counts):
    """Moves a job's only row, and adds to calls, tokens, values moved and rows passed at `counts`, unless it is 0."""
    job = job_at(address)
    job.source, job.target, job.positions, job.mask = source, target, positions, mask
    job.base, job.step = base, step
    move_row(job, address, 0, job.scratch)
    if counts != 0:
        add_to(counts, 1)
        add_to(counts + 8, np.int64(mask == 0 or array(mask, 1, np.uint8)[0] != 0))
        add_to(counts + 16, job.results[0])
        add_to(counts + 24, job.results[1] & 1)
