"""`Inward` for one row: computes the knee, then writes the tails in one pass."""

import numpy as np

from armlet.redistribution.backends.cpu.compiled import (
    LANES,
    NativeFunction,
    array,
    compiled,
    lanes_between,
    lowest_bit,
)
from armlet.redistribution.backends.cpu.jobs import job_at, open_row, strength_and_largest
from armlet.redistribution.backends.cpu.rows import largest_magnitude
from armlet.redistribution.backends.cpu.selection import (
    ABSOLUTE,
    HALF,
    INFINITE,
    MAGNITUDE,
    bits_of,
    float_of,
    row_quantile,
)
from armlet.redistribution.functions import MANTISSA_BITS, SQRT_HALF_BITS, log_of_parts, part_of_the_way


@compiled
def log_of_number(x):
    """`functions.log` for one number."""
    number = np.float64(x)
    bits = number.view(np.int64)
    exponent = (bits - SQRT_HALF_BITS) >> MANTISSA_BITS
    rest = np.int64(bits - (exponent << MANTISSA_BITS))
    return log_of_parts(rest.view(np.float64), np.float64(exponent))


@compiled
def compressed_bits(bits, knee, curve_is_log, strength, largest):
    """Returns the bits of a value beyond the knee after its move, as `Inward` computes it."""
    value, target = float_of(bits), knee
    if curve_is_log:
        threshold = np.float64(knee) if knee > 0 else 1.0
        ratio = max(np.float64(abs(value)) / threshold, 1.0)
        target = np.float32(np.float64(knee) * (1.0 + log_of_number(ratio)))
    target = np.float32(-target) if value < 0 else target
    if strength != np.float32(1):
        target = np.float32(part_of_the_way(value, target, strength))
    return bits_of(min(max(target, -largest), largest))


@compiled
def write_inward(bits, out, coarse, job, row, knee):
    """Writes the row, given the upper halves of its magnitudes as `coarse`; returns the number of values moved."""
    length, curve_is_log, (strength, largest) = job.length, job.log != 0, strength_and_largest(job, row)
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
                out[i] = compressed_bits(bits[i], knee, curve_is_log, strength, largest)
                moved += 1
    for i in range(whole, length):
        if np.int32(bits[i] & np.int32(ABSOLUTE)) > edge:
            out[i] = compressed_bits(bits[i], knee, curve_is_log, strength, largest)
            moved += 1
    return moved


@NativeFunction
def move_inward(address, row, values, out, lowest, highest, work):
    """Moves a row by `Inward`."""
    job = job_at(address)
    bits, results, _, magnitudes, scratch = open_row(job, values, out, work)
    largest = largest_magnitude(lowest, highest)
    knee = row_quantile(magnitudes, bits, job.length, MAGNITUDE, job.knee, 0, largest, scratch)
    array(job.moved, row + 1, np.int64)[row] = write_inward(bits, results, magnitudes, job, row, knee)
