"""Inward on rows: the knee of each, then one pass that writes the tails."""

import numpy as np

from armlet.redistribution.backends.cpu.compiled import LANES, array, compiled, lanes_between, loop, lowest_bit, share
from armlet.redistribution.backends.cpu.jobs import job_at
from armlet.redistribution.backends.cpu.rows import (
    FLOAT32,
    LARGEST,
    PASSED,
    REAL,
    SIZES,
    carve,
    coarse_keys,
    copy,
    largest_magnitude,
    narrow,
    open_row,
    state,
    weight_of,
)
from armlet.redistribution.backends.cpu.selection import (
    ABSOLUTE,
    HALF,
    INFINITE,
    MAGNITUDE,
    bits_of,
    float_of,
    quantile,
)
from armlet.redistribution.functions import MANTISSA_BITS, SQRT_HALF_BITS, log_of_parts, part_of_the_way, polynomial

for formula in (polynomial, log_of_parts, part_of_the_way):
    share(formula)


@compiled
def log(x):
    """`functions.log` of one number."""
    number = np.float64(x)
    bits = number.view(np.int64)
    exponent = (bits - SQRT_HALF_BITS) >> MANTISSA_BITS
    rest = np.int64(bits - (exponent << MANTISSA_BITS))
    return log_of_parts(rest.view(np.float64), np.float64(exponent))


@compiled
def contracted(magnitude, knee, curve_is_log):
    """Where a magnitude beyond the knee goes, as `inward` computes it."""
    if not curve_is_log:
        return knee
    threshold = np.float64(knee) if knee > 0 else 1.0
    ratio = max(np.float64(magnitude) / threshold, 1.0)
    return np.float32(np.float64(knee) * (1.0 + log(ratio)))


@compiled
def pulled(bits, knee, curve_is_log, strength, largest):
    """Where a value beyond the knee comes to lie, as bits."""
    value = float_of(bits)
    target = contracted(float_of(np.int32(bits & np.int32(ABSOLUTE))), knee, curve_is_log)
    target = np.float32(-target) if value < 0 else target
    if strength != np.float32(1):
        target = np.float32(part_of_the_way(value, target, strength))
    return bits_of(min(max(target, -largest), largest))


@compiled
def write_inward(bits, out, length, coarse, knee, job, weight):
    """Writes the row, of whose magnitudes `coarse` is the upper halves; how many values moved."""
    curve_is_log, strength, largest = job.log != 0, np.float32(weight), np.float32(LARGEST[job.dtype])
    edge, moved, whole, address = bits_of(knee), 0, length // LANES * LANES, coarse.ctypes.data
    first = np.int16(edge >> np.int32(HALF))
    for i in range(length):
        out[i] = bits[i]
    for start in range(0, whole, LANES):
        hits = lanes_between(address + 2 * start, first, np.int16(INFINITE >> HALF))
        while hits != 0:
            i = start + lowest_bit(hits)
            hits &= hits - np.uint64(1)
            if np.int32(bits[i] & np.int32(ABSOLUTE)) > edge:
                out[i] = pulled(bits[i], knee, curve_is_log, strength, largest)
                moved += 1
    for i in range(whole, length):
        if np.int32(bits[i] & np.int32(ABSOLUTE)) > edge:
            out[i] = pulled(bits[i], knee, curve_is_log, strength, largest)
            moved += 1
    return moved


@loop
def inward_rows(first, last, address, scratch):
    """Rows moved by `Inward`."""
    job = job_at(address)
    dtype, length = job.dtype, job.length
    size = SIZES[dtype] * length
    signed, magnitudes, values, results, work = carve(scratch, length)
    moved_counts, passed_rows = array(job.moved, last, np.int64), array(job.passed, last, np.uint8)
    for row in range(first, last):
        here, there = job.source + row * size, job.target + row * size
        bits = open_row(here, dtype, length, values)
        lowest, highest = coarse_keys(bits, length, signed, magnitudes)
        weight = weight_of(row, job.strengths, job.strength)
        kind = state(row, lowest, highest, job.real, weight)
        moved_counts[row], passed_rows[row] = 0, kind == PASSED
        if kind != REAL:
            copy(here, there, size)
            continue
        most = largest_magnitude(lowest, highest)
        edge = quantile(magnitudes, bits, length, MAGNITUDE, job.knee, 0, most, work)
        out = array(there if dtype == FLOAT32 else results, length, np.int32)
        moved_counts[row] = write_inward(bits, out, length, magnitudes, edge, job, weight)
        if dtype != FLOAT32:
            narrow(out, dtype, length, there)
