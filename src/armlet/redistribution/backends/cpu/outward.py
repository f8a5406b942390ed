"""`Outward` for one row: computes statistics, then writes the row in one pass."""

import numpy as np

from armlet.redistribution.backends.cpu.compiled import NativeFunction, array, compiled
from armlet.redistribution.backends.cpu.jobs import job_at, open_row, strength_and_largest
from armlet.redistribution.backends.cpu.rows import largest_magnitude
from armlet.redistribution.backends.cpu.selection import (
    ABSOLUTE,
    DEVIATION,
    HALF,
    MAGNITUDE,
    SIGNED,
    bits_of,
    float_of,
    row_quantile,
    select,
    value_of,
)
from armlet.redistribution.functions import part_of_the_way
from armlet.redistribution.order import MAD_TO_SIGMA, SMALLEST_MAD

TO_UNIT = 2.0**-24


@compiled
def smallest_count(portion, length):
    """k = max(1, round(portion · n)), halves rounded to even."""
    return max(np.int64(np.rint(portion * np.float64(length))), 1)


@compiled
def deviations(bits, length, middle, coarse):
    """Fills `coarse` with the upper halves of the keys of deviations from `middle`."""
    for i in range(length):
        magnitude = float_of(np.int32(bits[i] & np.int32(ABSOLUTE)))
        coarse[i] = np.int16(bits_of(np.float32(abs(np.float32(magnitude - middle)))) >> np.int32(HALF))


@compiled
def count_magnitudes(bits, length, key):
    """Returns how many magnitudes are below a key, and how many are not above it."""
    below, not_above = np.int32(0), np.int32(0)
    for i in range(length):
        magnitude = np.int32(bits[i] & np.int32(ABSOLUTE))
        below = np.int32(below + np.int32(magnitude < key))
        not_above = np.int32(not_above + np.int32(magnitude <= key))
    return np.int64(below), np.int64(not_above)


@compiled
def count_two(coarse, length, first, second):
    """Returns how many coarse keys are below each threshold."""
    a, b = np.uint16(0), np.uint16(0)
    for i in range(length):
        a = np.uint16(a + np.uint16(coarse[i] < first))
        b = np.uint16(b + np.uint16(coarse[i] < second))
    return np.int64(a), np.int64(b)


@compiled
def clamped_rank(bits, length, coarse, edge, low, high):
    """Returns the rank, counted from 0, whose magnitude replaces ε; −1 if ε is within the bounds, the usual case.

    K(low) ≤ ε if at least k magnitudes are not above ε, and ε ≤ K(high) if fewer than k are below it.
    """
    at_least, at_most = smallest_count(low, length), smallest_count(high, length)
    upper = np.int64(edge) >> HALF
    below, not_above = count_two(coarse, length, np.int16(upper), np.int16(upper + 1))
    # The counts of the edge lie between the counts of its coarse key, which usually decide.
    if below < at_least or not_above >= at_most:
        below, not_above = count_magnitudes(bits, length, edge)
    if not_above < at_least:
        return at_least - 1
    return at_most - 1 if below >= at_most else -1


@compiled
def upper_limit(bits, length, coarse, magnitudes, scratch, largest, job):
    """Returns the limit below which the bits of moving magnitudes lie. Overwrites `coarse` with keys of deviations."""
    edge, zero, middle_rank = np.int32(0), np.float32(0), (length - 1) // 2
    if job.proportion >= 0:
        rank = smallest_count(job.proportion, length) - 1
    else:
        key = select(magnitudes, bits, length, MAGNITUDE, zero, middle_rank, 0, largest, scratch)[0]
        median = value_of(key, MAGNITUDE)
        deviations(bits, length, median, coarse)
        key = select(coarse, bits, length, DEVIATION, median, middle_rank, 0, ABSOLUTE, scratch)[0]
        mad = max(value_of(key, DEVIATION), np.float32(SMALLEST_MAD))
        edge = bits_of(np.float32(np.float32(np.float32(MAD_TO_SIGMA) * mad) * np.float32(job.band)))
        rank = clamped_rank(bits, length, magnitudes, edge, job.low, job.high)
    if rank < 0:
        return np.int64(edge)
    return select(magnitudes, bits, length, MAGNITUDE, zero, rank, 0, largest, scratch)[0] + 1


@compiled
def redraw(bits, u, limit, upper, lower, add, strength, largest):
    """Returns the bits of the value after its move, and whether it moves."""
    value = float_of(bits)
    negative = value < np.float32(0)
    target = np.float32((-u if negative else u) * (lower if negative else upper))
    target = np.float32(value + target) if add else target
    target = target if strength == np.float32(1) else np.float32(part_of_the_way(value, target, strength))
    target = min(max(target, -largest), largest)
    near = np.int32(bits & np.int32(ABSOLUTE)) < limit
    return (bits_of(target) if near else bits), np.int32(near)


@compiled
def write_outward(bits, out, length, row, job, limit, upper, lower):
    """Writes a row of the job; returns the number of values moved."""
    strength, largest = strength_and_largest(job, row)
    add, moved = job.add != 0, np.int32(0)
    if job.uniforms != 0:
        uniforms = array(job.uniforms + row * length * 4, length, np.float32)
        for i in range(length):
            out[i], near = redraw(bits[i], uniforms[i], limit, upper, lower, add, strength, largest)
            moved = np.int32(moved + near)
        return np.int64(moved)
    position = np.uint32(array(job.positions, row + 1, np.int64)[row]) if job.positions != 0 else np.uint32(0)
    bases, steps = array(job.base, length, np.uint32), array(job.step, length, np.uint32)
    for i in range(length):
        word = np.uint32(bases[i] + np.uint32(position * steps[i]))
        u = np.float32(np.float32(np.int32(word >> np.uint32(8))) * np.float32(TO_UNIT))
        out[i], near = redraw(bits[i], u, limit, upper, lower, add, strength, largest)
        moved = np.int32(moved + near)
    return np.int64(moved)


@NativeFunction
def move_outward(address, row, values, out, lowest, highest, work):
    """Moves a row by `Outward`."""
    job = job_at(address)
    bits, results, signed, magnitudes, scratch = open_row(job, values, out, work)
    length, largest = job.length, largest_magnitude(lowest, highest)
    if job.of_magnitude != 0:
        upper = row_quantile(magnitudes, bits, length, MAGNITUDE, job.ceiling, 0, largest, scratch)
    else:
        upper = row_quantile(signed, bits, length, SIGNED, job.ceiling, lowest, highest, scratch)
    lower = np.float32(-value_of(lowest, SIGNED)) if lowest < 0 else np.float32(0)
    limit = np.int32(upper_limit(bits, length, signed, magnitudes, scratch, largest, job))
    moved = write_outward(bits, results, length, row, job, limit, upper, lower)
    array(job.moved, row + 1, np.int64)[row] = moved
