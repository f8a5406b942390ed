"""Passes over the rows of one long scope: what is counted, and what is written once its statistics are known.

Each leaves what it finds in the results of its job; whole numbers come to the same in whatever order threads add them.
"""

import numpy as np

from armlet.redistribution.backends.cpu.compiled import add_to, array, compiled, loop, lower_to, raise_to
from armlet.redistribution.backends.cpu.inward import write_inward
from armlet.redistribution.backends.cpu.jobs import RESULTS, job_at
from armlet.redistribution.backends.cpu.outward import write_outward
from armlet.redistribution.backends.cpu.rows import (
    FLOAT32,
    SIZES,
    carve,
    coarse_keys,
    copy,
    narrow,
    open_row,
    signed_extremes,
)
from armlet.redistribution.backends.cpu.selection import ABSOLUTE, DEVIATION, MAGNITUDE, SIGNED, key_of, next_key


@compiled
def is_real(row, real):
    """Whether a row counts; `real` is an address, or 0 where all do."""
    return real == 0 or array(real, row + 1, np.uint8)[row] != 0


@compiled
def row_of(job, row, values):
    """The float32 bits of a row of the job: its own, or widened at `values`."""
    return open_row(job.source + row * SIZES[job.dtype] * job.length, job.dtype, job.length, values)


@loop
def extremes(first, last, address, scratch):
    """The smallest and the largest signed key."""
    job = job_at(address)
    lowest, highest = np.int32(ABSOLUTE), np.int32(-ABSOLUTE - 1)
    values = carve(scratch, job.length)[2]
    for row in range(first, last):
        if is_real(row, job.real):
            low, high = signed_extremes(row_of(job, row, values), job.length)
            lowest, highest = min(lowest, low), max(highest, high)
    lower_to(address + RESULTS, np.int64(lowest))
    raise_to(address + RESULTS + 8, np.int64(highest))


@compiled
def count_kind(bits, length, kind, middle, first, second, third, fourth):
    """How many of a row's keys of one kind, a constant, are below each threshold."""
    a, b, c, d = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
    for i in range(length):
        key = key_of(bits[i], kind, middle)
        a = np.int32(a + np.int32(key < first))
        b = np.int32(b + np.int32(key < second))
        c = np.int32(c + np.int32(key < third))
        d = np.int32(d + np.int32(key < fourth))
    return np.int64(a), np.int64(b), np.int64(c), np.int64(d)


@loop
def counts(first, last, address, scratch):
    """How many keys are below each threshold."""
    job = job_at(address)
    kind, length, centre, thresholds = job.kind, job.length, np.float32(job.middle), job.thresholds
    t, u, v, w = (np.int32(thresholds[0]), np.int32(thresholds[1]), np.int32(thresholds[2]), np.int32(thresholds[3]))
    a = b = c = d = 0
    values = carve(scratch, length)[2]
    for row in range(first, last):
        if is_real(row, job.real):
            bits = row_of(job, row, values)
            if kind == SIGNED:
                found = count_kind(bits, length, SIGNED, centre, t, u, v, w)
            elif kind == MAGNITUDE:
                found = count_kind(bits, length, MAGNITUDE, centre, t, u, v, w)
            else:
                found = count_kind(bits, length, DEVIATION, centre, t, u, v, w)
            a, b, c, d = a + found[0], b + found[1], c + found[2], d + found[3]
    add_to(address + RESULTS, a)
    add_to(address + RESULTS + 8, b)
    add_to(address + RESULTS + 16, c)
    add_to(address + RESULTS + 24, d)


@loop
def following(first, last, address, scratch):
    """The smallest key above the first threshold."""
    job = job_at(address)
    found, key = np.int32(ABSOLUTE), np.int32(job.thresholds[0])
    values = carve(scratch, job.length)[2]
    for row in range(first, last):
        if is_real(row, job.real):
            found = min(found, next_key(row_of(job, row, values), job.length, job.kind, key))
    lower_to(address + RESULTS, np.int64(found))


@loop
def write_outwards(first, last, address, scratch):
    """Writes the rows; how many values moved."""
    job = job_at(address)
    dtype, length, moved = job.dtype, job.length, 0
    size = SIZES[dtype] * length
    limit, upper, lower = np.int32(job.limit), np.float32(job.upper), np.float32(job.lower)
    _, _, values, results, _ = carve(scratch, length)
    for row in range(first, last):
        there = job.target + row * size
        if not is_real(row, job.real):
            copy(job.source + row * size, there, size)
            continue
        bits, out = row_of(job, row, values), array(there if dtype == FLOAT32 else results, length, np.int32)
        moved += write_outward(bits, out, length, row, job, limit, upper, lower, job.strength)
        if dtype != FLOAT32:
            narrow(out, dtype, length, there)
    add_to(address + RESULTS, moved)


@loop
def write_inwards(first, last, address, scratch):
    """Writes the rows; how many values moved."""
    job = job_at(address)
    dtype, length, moved = job.dtype, job.length, 0
    size = SIZES[dtype] * length
    signed, magnitudes, values, results, _ = carve(scratch, length)
    for row in range(first, last):
        there = job.target + row * size
        if not is_real(row, job.real):
            copy(job.source + row * size, there, size)
            continue
        bits, out = row_of(job, row, values), array(there if dtype == FLOAT32 else results, length, np.int32)
        coarse_keys(bits, length, signed, magnitudes)
        moved += write_inward(bits, out, length, magnitudes, np.float32(job.upper), job, job.strength)
        if dtype != FLOAT32:
            narrow(out, dtype, length, there)
    add_to(address + RESULTS, moved)
