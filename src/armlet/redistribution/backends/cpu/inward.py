"""`Inward` for one row: computes the knee, unless there is a limit, then writes what moves in one pass."""

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
from armlet.redistribution.functions import (
    LARGEST_DOUBLINGS,
    MANTISSA_BITS,
    ROUNDER,
    SQRT_HALF_BITS,
    TWO_PER_LN2,
    log_of_parts,
    part_of_the_way,
    tanh_of_parts,
)

LOG, CLIP, TANH = range(3)
CURVES = ("log", "clip", "tanh")


@compiled
def log_of_number(x):
    """`functions.log` for one number."""
    number = np.float64(x)
    bits = number.view(np.int64)
    exponent = (bits - SQRT_HALF_BITS) >> MANTISSA_BITS
    rest = np.int64(bits - (exponent << MANTISSA_BITS))
    return log_of_parts(rest.view(np.float64), np.float64(exponent))


@compiled
def tanh_of_number(x, unit):
    """`functions.tanh` for one number from 0 on."""
    doublings = min(np.float64(x) * (TWO_PER_LN2 / unit), LARGEST_DOUBLINGS)
    rounded = np.float64(doublings + ROUNDER)
    power = np.int64(rounded.view(np.int64) << MANTISSA_BITS)
    return tanh_of_parts(doublings - (rounded - ROUNDER), power.view(np.float64))


@compiled
def contracted(value, knee, curve, strength, largest):
    """Returns a value that moves after its move, as `Inward` computes it."""
    magnitude, target = np.float64(abs(value)), knee
    threshold = np.float64(knee) if knee > 0 else 1.0
    if curve == LOG:
        target = np.float32(np.float64(knee) * (1.0 + log_of_number(max(magnitude / threshold, 1.0))))
    elif curve == TANH:
        target = np.float32(np.float64(knee) * tanh_of_number(magnitude, threshold))
    target = np.float32(-target) if value < 0 else target
    if strength != np.float32(1):
        target = np.float32(part_of_the_way(value, target, strength))
    return min(max(target, -largest), largest)


@compiled
def collect_tails(bits, coarse, length, edge, lowest, indices, tails):
    """Collects the indices and bits of the values beyond an edge, given the upper halves of their magnitudes."""
    first, whole, address, count = np.int16(edge >> np.int32(HALF)), length // LANES * LANES, coarse.ctypes.data, 0
    for start in range(0, whole, LANES):
        hits = lanes_between(address + 2 * start, first, np.int16(INFINITE >> HALF))
        while hits != 0:
            i = start + lowest_bit(hits)
            hits &= hits - np.uint64(1)
            indices[count], tails[count] = i, bits[i]
            count += np.int32(bits[i] & np.int32(ABSOLUTE)) > edge and bits[i] >= lowest
    for i in range(whole, length):
        indices[count], tails[count] = i, bits[i]
        count += np.int32(bits[i] & np.int32(ABSOLUTE)) > edge and bits[i] >= lowest
    return count


@compiled
def write_tails(bits, out, coarse, indices, tails, job, row, knee):
    """Writes a row of which few values move, on the log curve; returns their number.

    The moving values are packed, for LLVM to make vectors of their loop.
    """
    lowest, (strength, largest) = np.int32(0 if job.above else -ABSOLUTE - 1), strength_and_largest(job, row)
    count = collect_tails(bits, coarse, job.length, bits_of(knee), lowest, indices, tails)
    for i in range(count):
        tails[i] = bits_of(contracted(float_of(tails[i]), knee, LOG, strength, largest))
    for i in range(job.length):
        out[i] = bits[i]
    for i in range(count):
        out[indices[i]] = tails[i]
    return count


@compiled
def write_all(bits, out, job, row, knee, curve, edge):
    """Writes a row in one loop, of which LLVM makes vectors; values beyond the edge move. Returns their number."""
    lowest, (strength, largest) = np.int32(0 if job.above else -ABSOLUTE - 1), strength_and_largest(job, row)
    moved = np.int32(0)
    for i in range(job.length):
        beyond = np.int32(bits[i] & np.int32(ABSOLUTE)) > edge and bits[i] >= lowest
        out[i] = bits_of(contracted(float_of(bits[i]), knee, curve, strength, largest)) if beyond else bits[i]
        moved = np.int32(moved + np.int32(beyond))
    return moved


@NativeFunction
def move_inward(address, row, values, out, lowest, highest, work):
    """Moves a row by `Inward`."""
    job = job_at(address)
    bits, results, _, magnitudes, scratch = open_row(job, values, out, work)
    knee = np.float32(job.limit)
    if job.limit < 0:
        largest = largest_magnitude(lowest, highest)
        knee = row_quantile(magnitudes, bits, job.length, MAGNITUDE, job.knee, 0, largest, scratch)
    if job.curve == TANH:
        moved = write_all(bits, results, job, row, knee, TANH, np.int32(0 if job.above else -1))
    elif job.curve == CLIP:
        moved = write_all(bits, results, job, row, knee, CLIP, bits_of(knee))
    else:
        indices = array(work, job.length, np.uint16)  # in the place of the signed keys, which are not used here
        moved = write_tails(bits, results, magnitudes, indices, scratch[0], job, row, knee)
    array(job.moved, row + 1, np.int64)[row] = moved
