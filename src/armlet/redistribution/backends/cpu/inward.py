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
from armlet.redistribution.backends.cpu.jobs import job_at, open_row, strength_and_largest, strength_of
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
    EXPONENT_BIAS,
    LARGEST_TANH,
    MANTISSA_BITS,
    PER_LN2,
    SQRT_HALF_BITS,
    log_of_parts,
    part_of_the_way,
    rest_after,
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
def tanh_of_number(x):
    """`functions.tanh` for one number from 0 on."""
    doubled = 2.0 * min(np.float64(x), LARGEST_TANH)
    exponent = np.floor(doubled * PER_LN2 + 0.5)
    power = np.int64((np.int64(exponent) + EXPONENT_BIAS) << MANTISSA_BITS)
    return tanh_of_parts(rest_after(doubled, exponent), power.view(np.float64))


@compiled
def contracted(value, knee, curve, strength, largest):
    """Returns a value that moves after its move, as `Inward` computes it."""
    magnitude, target = np.float64(abs(value)), knee
    threshold = np.float64(knee) if knee > 0 else 1.0
    if curve == LOG:
        target = np.float32(np.float64(knee) * (1.0 + log_of_number(max(magnitude / threshold, 1.0))))
    elif curve == TANH:
        target = np.float32(np.float64(knee) * tanh_of_number(magnitude / threshold))
    target = np.float32(-target) if value < 0 else target
    if strength != np.float32(1):
        target = np.float32(part_of_the_way(value, target, strength))
    return min(max(target, -largest), largest)


@compiled
def write_tails(bits, out, coarse, job, row, knee):
    """Writes a row of few moving values, given the upper halves of its magnitudes; returns the number of moved ones."""
    length, curve, (strength, largest) = job.length, job.curve, strength_and_largest(job, row)
    edge, moved, whole, address = bits_of(knee), 0, length // LANES * LANES, coarse.ctypes.data
    first, lowest = np.int16(edge >> np.int32(HALF)), np.int32(0 if job.above else -ABSOLUTE - 1)
    for i in range(length):
        out[i] = bits[i]
    for start in range(0, whole, LANES):
        hits = lanes_between(address + 2 * start, first, np.int16(INFINITE >> HALF))
        while hits != 0:
            i = start + lowest_bit(hits)
            hits &= hits - np.uint64(1)
            if np.int32(bits[i] & np.int32(ABSOLUTE)) > edge and bits[i] >= lowest:
                out[i] = bits_of(contracted(float_of(bits[i]), knee, curve, strength, largest))
                moved += 1
    for i in range(whole, length):
        if np.int32(bits[i] & np.int32(ABSOLUTE)) > edge and bits[i] >= lowest:
            out[i] = bits_of(contracted(float_of(bits[i]), knee, curve, strength, largest))
            moved += 1
    return moved


@compiled
def write_clipped(bits, out, job, knee):
    """Writes a row that is clipped fully; returns the number of values moved. LLVM makes vectors of both loops."""
    edge, lowest, moved = bits_of(knee), np.int32(0 if job.above else -ABSOLUTE - 1), 0
    for i in range(job.length):
        beyond = np.int32(bits[i] & np.int32(ABSOLUTE)) > edge and bits[i] >= lowest
        out[i] = np.int32(edge | (bits[i] & np.int32(-ABSOLUTE - 1))) if beyond else bits[i]
        moved += np.int32(beyond)
    return moved


@compiled
def write_saturated(bits, out, job, row, knee):
    """Writes a row of which all values, or all positive ones, move by tanh; returns their number."""
    moved, (strength, largest) = 0, strength_and_largest(job, row)
    for i in range(job.length):
        moves = job.above == 0 or bits[i] > 0
        out[i] = bits_of(contracted(float_of(bits[i]), knee, TANH, strength, largest)) if moves else bits[i]
        moved += np.int32(moves)
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
        moved = write_saturated(bits, results, job, row, knee)
    elif job.curve == CLIP and job.limit > 0 and strength_of(job, row) == 1:
        moved = write_clipped(bits, results, job, knee)
    else:
        moved = write_tails(bits, results, magnitudes, job, row, knee)
    array(job.moved, row + 1, np.int64)[row] = moved
