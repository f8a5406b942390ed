"""Passes over the rows of one long scope: what is counted, and what is written once its statistics are known."""

import numpy as np

from armlet.redistribution.kernels.compiled import array, compiled
from armlet.redistribution.kernels.inward_rows import write_inward
from armlet.redistribution.kernels.outward_rows import write_outward
from armlet.redistribution.kernels.rows import (
    FLOAT32,
    LARGEST,
    SIZES,
    carve,
    coarse_keys,
    copy,
    narrow,
    open_row,
    signed_extremes,
)
from armlet.redistribution.kernels.selection import ABSOLUTE, DEVIATION, MAGNITUDE, SIGNED, key_of, next_key


@compiled
def is_real(row, real):
    """Whether a row counts; `real` is an address, or 0 where all do."""
    return real == 0 or array(real, row + 1, np.uint8)[row] != 0


@compiled
def extremes(first, last, source, dtype, length, real, scratch):
    """The smallest and the largest signed key of rows `first` to `last`."""
    lowest, highest = np.int32(ABSOLUTE), np.int32(-ABSOLUTE - 1)
    values = carve(scratch, length)[2]
    for row in range(first, last):
        if is_real(row, real):
            bits = open_row(source + row * SIZES[dtype] * length, dtype, length, values)
            low, high = signed_extremes(bits, length)
            lowest, highest = min(lowest, low), max(highest, high)
    return np.int64(lowest), np.int64(highest)


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


@compiled
def counts(first, last, source, dtype, length, real, scratch, kind, middle, one, two, three, four):
    """How many keys of rows `first` to `last` are below each threshold."""
    a = b = c = d = 0
    values = carve(scratch, length)[2]
    centre = np.float32(middle)
    t, u, v, w = np.int32(one), np.int32(two), np.int32(three), np.int32(four)
    for row in range(first, last):
        if is_real(row, real):
            bits = open_row(source + row * SIZES[dtype] * length, dtype, length, values)
            if kind == SIGNED:
                found = count_kind(bits, length, SIGNED, centre, t, u, v, w)
            elif kind == MAGNITUDE:
                found = count_kind(bits, length, MAGNITUDE, centre, t, u, v, w)
            else:
                found = count_kind(bits, length, DEVIATION, centre, t, u, v, w)
            a, b, c, d = a + found[0], b + found[1], c + found[2], d + found[3]
    return a, b, c, d


@compiled
def following(first, last, source, dtype, length, real, scratch, kind, key):
    """The smallest key above `key` in rows `first` to `last`."""
    found = np.int32(ABSOLUTE)
    values = carve(scratch, length)[2]
    for row in range(first, last):
        if is_real(row, real):
            bits = open_row(source + row * SIZES[dtype] * length, dtype, length, values)
            found = min(found, next_key(bits, length, kind, np.int32(key)))
    return np.int64(found)


@compiled
def write_outwards(
    first, last, source, dtype, length, real, scratch, target, draws, base, step, positions, uniforms, strength,
    limit, upper, lower, add,
):  # fmt: skip
    """Writes rows `first` to `last`; how many values moved."""
    size, moved = SIZES[dtype] * length, 0
    _, _, values, results, _ = carve(scratch, length)
    for row in range(first, last):
        here, there = source + row * size, target + row * size
        if not is_real(row, real):
            copy(here, there, size)
            continue
        bits = open_row(here, dtype, length, values)
        out = array(there if dtype == FLOAT32 else results, length, np.int32)
        position = np.uint32(array(positions, last, np.int64)[row]) if positions != 0 else np.uint32(0)
        moved += write_outward(
            bits, out, length, draws, base, step, position, uniforms + row * length * 4, np.int32(limit),
            np.float32(upper), np.float32(lower), add, np.float32(strength), np.float32(LARGEST[dtype]),
        )  # fmt: skip
        if dtype != FLOAT32:
            narrow(out, dtype, length, there)
    return moved


@compiled
def write_inwards(first, last, source, dtype, length, real, scratch, target, strength, knee, curve_is_log):
    """Writes rows `first` to `last`; how many values moved."""
    size, moved = SIZES[dtype] * length, 0
    signed, magnitudes, values, results, _ = carve(scratch, length)
    for row in range(first, last):
        here, there = source + row * size, target + row * size
        if not is_real(row, real):
            copy(here, there, size)
            continue
        bits = open_row(here, dtype, length, values)
        out = array(there if dtype == FLOAT32 else results, length, np.int32)
        coarse_keys(bits, length, signed, magnitudes)
        largest = np.float32(LARGEST[dtype])
        moved += write_inward(
            bits, out, length, magnitudes, np.float32(knee), curve_is_log, np.float32(strength), largest
        )
        if dtype != FLOAT32:
            narrow(out, dtype, length, there)
    return moved
