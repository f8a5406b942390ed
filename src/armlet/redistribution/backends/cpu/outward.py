"""Outward on rows: the statistics of each, then one pass that writes it."""

import numpy as np

from armlet.redistribution.backends.cpu.compiled import array, compiled, loop, share
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
    DEVIATION,
    HALF,
    MAGNITUDE,
    SIGNED,
    bits_of,
    float_of,
    quantile,
    select,
    value_of,
)
from armlet.redistribution.functions import part_of_the_way
from armlet.redistribution.order import MAD_TO_SIGMA, SMALLEST_MAD

KEYED, UNIFORMS, MIDPOINT = range(3)
TO_UNIT = 2.0**-24

share(part_of_the_way)


@compiled
def smallest_count(portion, length):
    """k = max(1, round(portion · n)), halves rounded to even."""
    return max(np.int64(np.rint(portion * np.float64(length))), 1)


@compiled
def deviations(bits, length, middle, coarse):
    """Fills the upper halves of the deviations' keys."""
    for i in range(length):
        magnitude = float_of(np.int32(bits[i] & np.int32(ABSOLUTE)))
        coarse[i] = np.int16(bits_of(np.float32(abs(np.float32(magnitude - middle)))) >> np.int32(HALF))


@compiled
def count_magnitudes(bits, length, key):
    """How many magnitudes are below a key, and how many not above it."""
    below, not_above = np.int32(0), np.int32(0)
    for i in range(length):
        magnitude = np.int32(bits[i] & np.int32(ABSOLUTE))
        below = np.int32(below + np.int32(magnitude < key))
        not_above = np.int32(not_above + np.int32(magnitude <= key))
    return np.int64(below), np.int64(not_above)


@compiled
def count_two(coarse, length, first, second):
    """How many coarse keys are below each threshold."""
    a, b = np.uint16(0), np.uint16(0)
    for i in range(length):
        a = np.uint16(a + np.uint16(coarse[i] < first))
        b = np.uint16(b + np.uint16(coarse[i] < second))
    return np.int64(a), np.int64(b)


@compiled
def replacement(below, not_above, length, low, high):
    """The rank that takes the place of ε, from 0; −1 where ε lies within the shares' bounds, as it mostly does.

    K(low) ≤ ε where at least k magnitudes are not above ε, and ε ≤ K(high) where fewer than k are below.
    """
    at_least, at_most = smallest_count(low, length), smallest_count(high, length)
    if not_above < at_least:
        return at_least - 1
    return at_most - 1 if below >= at_most else -1


@compiled
def clamped(bits, length, coarse, edge, low, high):
    """`replacement` of a row, off the coarse keys where they settle it."""
    upper = np.int64(edge) >> HALF
    below, not_above = count_two(coarse, length, np.int16(upper), np.int16(upper + 1))
    # Fewer are below than not above the edge's coarse key: its own counts lie between.
    if below < smallest_count(low, length) or not_above >= smallest_count(high, length):
        below, not_above = count_magnitudes(bits, length, edge)
    return replacement(below, not_above, length, low, high)


@compiled
def near_zero(deviation, band):
    """The bits of ε = 1.4826 · MAD · band, from the key of the median deviation."""
    mad = max(value_of(deviation, DEVIATION), np.float32(SMALLEST_MAD))
    return bits_of(np.float32(np.float32(np.float32(MAD_TO_SIGMA) * mad) * np.float32(band)))


@compiled
def reach(bits, length, signed, magnitudes, highest, work, job, middle):
    """Magnitudes whose bits are below this move. `signed` is overwritten."""
    zero = np.float32(0)
    if job.proportion >= 0:
        rank = smallest_count(job.proportion, length) - 1
        return select(magnitudes, bits, length, MAGNITUDE, zero, rank, 0, highest, work)[0] + 1
    deviations(bits, length, middle, signed)
    found = select(signed, bits, length, DEVIATION, middle, (length - 1) // 2, 0, ABSOLUTE, work)[0]
    edge = near_zero(found, job.band)
    rank = clamped(bits, length, magnitudes, edge, job.low, job.high)
    if rank < 0:
        return np.int64(edge)
    return select(magnitudes, bits, length, MAGNITUDE, zero, rank, 0, highest, work)[0] + 1


@compiled
def drawn(bits, u, limit, upper, lower, add, strength, largest):
    """Where a value goes, and whether it moves."""
    value = float_of(bits)
    negative = value < np.float32(0)
    target = np.float32((-u if negative else u) * (lower if negative else upper))
    target = np.float32(value + target) if add else target
    target = target if strength == np.float32(1) else np.float32(part_of_the_way(value, target, strength))
    target = min(max(target, -largest), largest)
    near = np.int32(bits & np.int32(ABSOLUTE)) < limit
    return (bits_of(target) if near else bits), np.int32(near)


@compiled
def write_outward(bits, out, length, row, job, limit, upper, lower, weight):
    """Writes a row of the job; how many values moved."""
    position = np.uint32(array(job.positions, row + 1, np.int64)[row]) if job.positions != 0 else np.uint32(0)
    uniforms, strength, largest = job.uniforms + row * length * 4, np.float32(weight), np.float32(LARGEST[job.dtype])
    draws, base, step, add = job.draws, job.base, job.step, job.add != 0
    moved = np.int32(0)
    if draws == KEYED:
        bases, steps = array(base, length, np.uint32), array(step, length, np.uint32)
        for i in range(length):
            word = np.uint32(bases[i] + np.uint32(position * steps[i]))
            u = np.float32(np.float32(np.int32(word >> np.uint32(8))) * np.float32(TO_UNIT))
            out[i], near = drawn(bits[i], u, limit, upper, lower, add, strength, largest)
            moved = np.int32(moved + near)
    elif draws == UNIFORMS:
        given = array(uniforms, length, np.float32)
        for i in range(length):
            out[i], near = drawn(bits[i], given[i], limit, upper, lower, add, strength, largest)
            moved = np.int32(moved + near)
    else:
        for i in range(length):
            out[i], near = drawn(bits[i], np.float32(0.5), limit, upper, lower, add, strength, largest)
            moved = np.int32(moved + near)
    return np.int64(moved)


@loop
def outward_rows(first, last, address, scratch):
    """Rows moved by `Outward`."""
    job = job_at(address)
    dtype, length, of_all = job.dtype, job.length, job.strength
    size = SIZES[dtype] * length
    signed, magnitudes, values, results, work = carve(scratch, length)
    moved_counts, passed_rows = array(job.moved, last, np.int64), array(job.passed, last, np.uint8)
    for row in range(first, last):
        here, there = job.source + row * size, job.target + row * size
        bits = open_row(here, dtype, length, values)
        lowest, highest = coarse_keys(bits, length, signed, magnitudes)
        weight = weight_of(row, job.strengths, of_all)
        kind = state(row, lowest, highest, job.real, weight)
        moved_counts[row], passed_rows[row] = 0, kind == PASSED
        if kind != REAL:
            copy(here, there, size)
            continue
        most, zero = largest_magnitude(lowest, highest), np.float32(0)
        middle = zero
        if job.proportion < 0:
            middle = value_of(
                select(magnitudes, bits, length, MAGNITUDE, zero, (length - 1) // 2, 0, most, work)[0], MAGNITUDE
            )
        if job.of_magnitude != 0:
            upper = quantile(magnitudes, bits, length, MAGNITUDE, job.ceiling, 0, most, work)
        else:
            upper = quantile(signed, bits, length, SIGNED, job.ceiling, lowest, highest, work)
        lower = np.float32(-value_of(lowest, SIGNED)) if lowest < 0 else zero
        limit = np.int32(reach(bits, length, signed, magnitudes, most, work, job, middle))
        out = array(there if dtype == FLOAT32 else results, length, np.int32)
        moved_counts[row] = write_outward(bits, out, length, row, job, limit, upper, lower, weight)
        if dtype != FLOAT32:
            narrow(out, dtype, length, there)
