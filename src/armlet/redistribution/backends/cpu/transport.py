"""Transport on rows: magnitudes sorted within their sign by their bits, then the score of each rank."""

import numpy as np

from armlet.redistribution.backends.cpu.compiled import LANES, array, compiled, loop, share
from armlet.redistribution.backends.cpu.inward import log
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
    signed_extremes,
    state,
    weight_of,
)
from armlet.redistribution.backends.cpu.selection import ABSOLUTE, MAGNITUDE, bits_of, float_of, select
from armlet.redistribution.functions import (
    CENTRAL_LIMIT,
    TAIL_LIMIT,
    central_quantile,
    far_quantile,
    part_of_the_way,
    tail_quantile,
)
from armlet.redistribution.order import MAD_TO_SIGMA

for formula in (central_quantile, tail_quantile, far_quantile):
    share(formula)

DIGIT, DIGITS = 11, 2048
PASSES = 3
INDEX = 32
"""A sorted word: the magnitude's bits, then the value's place."""


def scratch_size(length: int) -> int:
    """Bytes that `transport_rows` takes."""
    return 24 * (length + 2 * LANES) + 8 * DIGITS


@compiled
def sort_words(words, other, length, counts):
    """Radix sort of words by their upper half, in place; an odd number of passes is copied back."""
    for turn in range(PASSES):
        shift = np.uint64(INDEX + DIGIT * turn)
        read, write = (words, other) if turn % 2 == 0 else (other, words)
        counts[:] = 0
        for i in range(length):
            counts[np.int64((read[i] >> shift) & np.uint64(DIGITS - 1))] += 1
        total = 0
        for digit in range(DIGITS):
            here = counts[digit]
            counts[digit] = total
            total += here
        for i in range(length):
            digit = np.int64((read[i] >> shift) & np.uint64(DIGITS - 1))
            write[counts[digit]] = read[i]
            counts[digit] += 1
    for i in range(length):
        words[i] = other[i]


@compiled
def gather(bits, length, words, negative):
    """The words of the values of one sign; how many. Both zeros are positive."""
    count = 0
    for i in range(length):
        magnitude = np.int32(bits[i] & np.int32(ABSOLUTE))
        words[count] = (np.uint64(magnitude) << np.uint64(INDEX)) | np.uint64(i)
        count += np.int64((float_of(bits[i]) < np.float32(0)) == negative)
    return count


@compiled
def median_magnitude(bits, length, lowest, highest, scratch):
    """The lower median of the magnitudes; the words' memory serves as scratch."""
    signed, magnitudes, _, _, work = carve(scratch, length)
    coarse_keys(bits, length, signed, magnitudes)
    most = largest_magnitude(lowest, highest)
    rank = (length - 1) // 2
    return float_of(np.int32(select(magnitudes, bits, length, MAGNITUDE, np.float32(0), rank, 0, most, work)[0]))


@compiled
def score(share):
    """`functions.half_normal_quantile` of one number."""
    if share <= CENTRAL_LIMIT:
        return central_quantile(share)
    depth = np.sqrt(-log((1.0 - share) * 0.5))
    return tail_quantile(depth) if depth <= TAIL_LIMIT else far_quantile(depth)


@compiled
def write_sign(bits, out, words, count, negative, scale, strength, largest):
    """Writes the values of one sign, whose sorted words these are; ties share their mean rank."""
    first = 0
    while first < count:
        key, last = words[first] >> np.uint64(INDEX), first
        while last + 1 < count and words[last + 1] >> np.uint64(INDEX) == key:
            last += 1
        normal = score((np.float64(first + last) / 2.0 + 0.5) / np.float64(count))
        target = np.float32(scale * normal)
        target = np.float32(-target) if negative else target
        for i in range(first, last + 1):
            place = np.int64(words[i] & np.uint64(0xFFFFFFFF))
            moved = target
            if strength != np.float32(1):
                value = float_of(bits[place])
                moved = np.float32(part_of_the_way(value, target, strength))
            out[place] = bits_of(min(max(moved, -largest), largest))
        first = last + 1


@loop
def transport_rows(first, last, address, scratch):
    """Rows moved by `Transport`."""
    job = job_at(address)
    dtype, length = job.dtype, job.length
    size = SIZES[dtype] * length
    room = length + 2 * LANES
    words, other = array(scratch, length + 1, np.uint64), array(scratch + 8 * room, length + 1, np.uint64)
    values, results, counts = scratch + 16 * room, scratch + 20 * room, array(scratch + 24 * room, DIGITS, np.int64)
    moved_counts, passed_rows = array(job.moved, last, np.int64), array(job.passed, last, np.uint8)
    for row in range(first, last):
        here, there = job.source + row * size, job.target + row * size
        bits = open_row(here, dtype, length, values)
        lowest, highest = signed_extremes(bits, length)
        weight = weight_of(row, job.strengths, job.strength)
        kind = state(row, lowest, highest, job.real, weight)
        moved_counts[row], passed_rows[row] = 0, kind == PASSED
        if kind != REAL:
            copy(here, there, size)
            continue
        out = array(there if dtype == FLOAT32 else results, length, np.int32)
        median = median_magnitude(bits, length, lowest, highest, scratch)
        scale = np.float64(np.float32(np.float32(job.spread * MAD_TO_SIGMA) * median))
        for negative in (False, True):
            count = gather(bits, length, words, negative)
            sort_words(words, other, count, counts)
            write_sign(bits, out, words, count, negative, scale, np.float32(weight), np.float32(LARGEST[dtype]))
        moved_counts[row] = length
        if dtype != FLOAT32:
            narrow(out, dtype, length, there)
