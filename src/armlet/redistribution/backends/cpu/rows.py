"""Converts rows to and from float32 bits, rounded to nearest even; computes a row's keys and scratch memory."""

import numpy as np

from armlet.redistribution.backends.cpu.compiled import LANES, SAMPLE, array, compiled
from armlet.redistribution.backends.cpu.selection import ABSOLUTE, HALF, INFINITE, SEARCH, bits_of, float_of, signed_key

FLOAT32, BFLOAT16, FLOAT16 = range(3)
ITEM_SIZES = (4, 2, 2)
LARGEST_FINITE = (3.4028234663852886e38, 3.3895313892515355e38, 65504.0)

RADIX, ALIGNED = 2048, 64
"""The number of digit values of the radix sort; the alignment of each thread's scratch memory."""

FLOAT16_SHIFT = 13
FLOAT16_SCALE = 2.0**112
"""float16 bits shifted left by 13 are a float32 of 2⁻¹¹² times the value, also for denormals."""

FLOAT16_NORMAL, FLOAT16_BIAS, HALF_BITS = 0x38800000, 0x38000000, 0x3F000000


@compiled
def copy(source, target, size):
    """Copies `size` bytes from one address to another."""
    read, write = array(source, size, np.uint8), array(target, size, np.uint8)
    for i in range(size):
        write[i] = read[i]


@compiled
def widen(address, dtype, length, bits):
    """Fills `bits` with the float32 bits of a 16-bit row."""
    raw = array(address, length, np.uint16)
    if dtype == BFLOAT16:
        for i in range(length):
            bits[i] = np.int32(np.int32(raw[i]) << np.int32(HALF))
    else:
        for i in range(length):
            half = np.int32(raw[i])
            magnitude = np.int32(np.int32(half & np.int32(0x7FFF)) << np.int32(FLOAT16_SHIFT))
            scaled = bits_of(np.float32(float_of(magnitude) * np.float32(FLOAT16_SCALE)))
            infinite = (half & np.int32(0x7C00)) == np.int32(0x7C00)
            magnitude = np.int32(magnitude | np.int32(INFINITE)) if infinite else scaled
            bits[i] = np.int32(magnitude | np.int32(np.int32(half & np.int32(0x8000)) << np.int32(HALF)))


@compiled
def narrow(bits, dtype, length, address):
    """Rounds finite float32 bits within the range of a 16-bit dtype to that dtype."""
    raw = array(address, length, np.uint16)
    if dtype == BFLOAT16:
        for i in range(length):
            word = np.uint32(bits[i])
            odd = np.uint32(np.uint32(word >> np.uint32(HALF)) & np.uint32(1))
            raw[i] = np.uint16(np.uint32(word + np.uint32(0x7FFF) + odd) >> np.uint32(HALF))
    else:
        for i in range(length):
            word = np.int32(bits[i] & np.int32(ABSOLUTE))
            odd = np.int32(np.int32(word >> np.int32(FLOAT16_SHIFT)) & np.int32(1))
            normal = np.int32(word - np.int32(FLOAT16_BIAS) + np.int32(0xFFF) + odd) >> np.int32(FLOAT16_SHIFT)
            # The spacing of float32 between ½ and 1 is that of float16 denormals, so the sum rounds to them.
            small = bits_of(np.float32(float_of(word) + np.float32(0.5))) - np.int32(HALF_BITS)
            sign = np.int32(np.uint32(bits[i]) >> np.uint32(HALF)) & np.int32(0x8000)
            raw[i] = np.uint16(sign | (small if word < np.int32(FLOAT16_NORMAL) else normal))


@compiled
def padded(length):
    """Returns a multiple of `LANES`, larger than a row's length."""
    return (length + LANES) // LANES * LANES


@compiled
def key_arrays(work, length):
    """Returns two int16 arrays for the upper halves of a row's signed keys and magnitudes."""
    return array(work, length, np.int16), array(work + 2 * padded(length), length, np.int16)


@compiled
def selection_arrays(work, length):
    """Returns the scratch arrays of `select`: members, sample and search."""
    members, rest = work + 4 * padded(length), work + 8 * padded(length)
    sample, search = array(rest, 2 * SAMPLE, np.int16), array(rest + 4 * SAMPLE, SEARCH, np.int64)
    return array(members, length, np.int32), sample, search


def scratch_size(length: int, *, sorts: bool) -> int:
    """Returns the bytes of a thread's scratch memory for rows of a length: values and results, keys and selection.

    If a policy `sorts`, keys and selection share memory with two arrays of 64-bit words and the radix sort's counts.
    """
    room = padded.py_func(length)
    size = 8 * room + max(8 * room + 4 * SAMPLE + 8 * SEARCH, 16 * room + 8 * RADIX if sorts else 0)
    return -(-size // ALIGNED) * ALIGNED


@compiled
def coarse_keys(bits, length, work):
    """Fills `key_arrays`; returns the smallest and largest signed key."""
    signed, magnitudes = key_arrays(work, length)
    lowest, highest = np.int32(ABSOLUTE), np.int32(-ABSOLUTE - 1)
    for i in range(length):
        key = signed_key(bits[i])
        lowest, highest = min(lowest, key), max(highest, key)
        signed[i] = np.int16(key >> np.int32(HALF))
        magnitudes[i] = np.int16(np.int32(bits[i] & np.int32(ABSOLUTE)) >> np.int32(HALF))
    return lowest, highest


@compiled
def largest_bits(bits, length):
    """Returns the bits of a row's largest magnitude; takes half the time of `coarse_keys`."""
    largest = np.int32(0)
    for i in range(length):
        largest = max(largest, np.int32(bits[i] & np.int32(ABSOLUTE)))
    return largest


@compiled
def largest_magnitude(lowest, highest):
    """Returns the bits of the largest magnitude; a negative value's magnitude is the complement of its key."""
    return max(np.int32(highest), np.int32(~np.int32(lowest)))
