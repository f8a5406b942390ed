"""`Transport` for one row: sorts the magnitudes of each sign by their bits, then writes the score of each rank."""

import numpy as np

from armlet.redistribution.backends.cpu.compiled import NativeFunction, array, compiled
from armlet.redistribution.backends.cpu.inward import log_of_number
from armlet.redistribution.backends.cpu.jobs import job_at, open_row, strength_and_largest
from armlet.redistribution.backends.cpu.rows import RADIX, largest_magnitude, padded
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

DIGIT_BITS = 11
PASSES = 3
PLACE_BITS = 32
"""A sorted word consists of the magnitude's bits and the value's index in this many lower bits."""


@compiled
def sort_words(words, other, length, counts):
    """Sorts words by their upper half in place with a radix sort; after the odd number of passes, copies them back."""
    for turn in range(PASSES):
        shift = np.uint64(PLACE_BITS + DIGIT_BITS * turn)
        read, write = (words, other) if turn % 2 == 0 else (other, words)
        counts[:] = 0
        for i in range(length):
            counts[np.int64((read[i] >> shift) & np.uint64(RADIX - 1))] += 1
        total = 0
        for digit in range(RADIX):
            count = counts[digit]
            counts[digit] = total
            total += count
        for i in range(length):
            digit = np.int64((read[i] >> shift) & np.uint64(RADIX - 1))
            write[counts[digit]] = read[i]
            counts[digit] += 1
    for i in range(length):
        words[i] = other[i]


@compiled
def words_of_sign(bits, length, words, negative):
    """Writes the words of the values of one sign, and returns their number. Both zeros are positive."""
    count = 0
    for i in range(length):
        magnitude = np.int32(bits[i] & np.int32(ABSOLUTE))
        words[count] = (np.uint64(magnitude) << np.uint64(PLACE_BITS)) | np.uint64(i)
        count += np.int64((float_of(bits[i]) < np.float32(0)) == negative)
    return count


@compiled
def score(share):
    """`functions.half_normal_quantile` for one number."""
    if share <= CENTRAL_LIMIT:
        return central_quantile(share)
    depth = np.sqrt(-log_of_number((1.0 - share) * 0.5))
    return tail_quantile(depth) if depth <= TAIL_LIMIT else far_quantile(depth)


@compiled
def write_sign(bits, out, words, count, negative, scale, strength, largest):
    """Writes the values of one sign, given their sorted words; ties share their mean rank."""
    first = 0
    while first < count:
        key, last = words[first] >> np.uint64(PLACE_BITS), first
        while last + 1 < count and words[last + 1] >> np.uint64(PLACE_BITS) == key:
            last += 1
        normal = score((np.float64(first + last) / 2.0 + 0.5) / np.float64(count))
        target = np.float32(scale * normal)
        target = np.float32(-target) if negative else target
        for i in range(first, last + 1):
            index = np.int64(words[i] & np.uint64(0xFFFFFFFF))
            moved = target
            if strength != np.float32(1):
                value = float_of(bits[index])
                moved = np.float32(part_of_the_way(value, target, strength))
            out[index] = bits_of(min(max(moved, -largest), largest))
        first = last + 1


@NativeFunction
def move_by_transport(address, row, values, out, lowest, highest, work):
    """Moves a row by `Transport`. The words overwrite the keys after the median is computed."""
    job = job_at(address)
    bits, results, _, magnitudes, scratch = open_row(job, values, out, work)
    length, (strength, largest) = job.length, strength_and_largest(job, row)
    highest_key, rank = largest_magnitude(lowest, highest), (length - 1) // 2
    key = select(magnitudes, bits, length, MAGNITUDE, np.float32(0), rank, 0, highest_key, scratch)[0]
    scale = np.float64(np.float32(np.float32(job.spread * MAD_TO_SIGMA) * float_of(np.int32(key))))
    room = 8 * padded(length)
    words, other = array(work, length + 1, np.uint64), array(work + room, length + 1, np.uint64)
    counts = array(work + 2 * room, RADIX, np.int64)
    for negative in (False, True):
        count = words_of_sign(bits, length, words, negative)
        sort_words(words, other, count, counts)
        write_sign(bits, results, words, count, negative, scale, strength, largest)
    array(job.moved, row + 1, np.int64)[row] = length
