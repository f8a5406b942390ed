"""A row of any dtype in and out of the CPU path: float32 bits inside, rounded to nearest even on the way out."""

import numpy as np

from armlet.redistribution.backends.cpu.compiled import LANES, array, compiled
from armlet.redistribution.backends.cpu.selection import (
    ABSOLUTE,
    HALF,
    INFINITE,
    SAMPLE,
    SEARCH,
    bits_of,
    float_of,
    signed_key,
)

FLOAT32, BFLOAT16, FLOAT16 = range(3)
SIZES = (4, 2, 2)
LARGEST = (3.4028234663852886e38, 3.3895313892515355e38, 65504.0)

REAL, PASSED, SKIPPED = range(3)
"""What becomes of a row: its values move; it holds NaN or Inf; it is padding or has strength 0."""

FLOAT16_SHIFT = 13
FLOAT16_SCALE = 2.0**112
"""float16 bits, 13 up, are a float32 of 2⁻¹¹² times their value, denormal or not."""

FLOAT16_NORMAL, FLOAT16_BIAS, HALF_BITS = 0x38800000, 0x38000000, 0x3F000000


@compiled
def copy(source, target, size):
    """`size` bytes from one address to another."""
    read, write = array(source, size, np.uint8), array(target, size, np.uint8)
    for i in range(size):
        write[i] = read[i]


@compiled
def widen(address, dtype, length, bits):
    """The float32 bits of a 16-bit row."""
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
    """Finite float32 bits within the range of a 16-bit dtype, rounded to it."""
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
            # A float32 between ½ and 1 has the denormals of float16 as its last bits: the sum rounds to them.
            small = bits_of(np.float32(float_of(word) + np.float32(0.5))) - np.int32(HALF_BITS)
            sign = np.int32(np.uint32(bits[i]) >> np.uint32(HALF)) & np.int32(0x8000)
            raw[i] = np.uint16(sign | (small if word < np.int32(FLOAT16_NORMAL) else normal))


@compiled
def signed_extremes(bits, length):
    """The smallest and the largest signed key."""
    lowest, highest = np.int32(ABSOLUTE), np.int32(-ABSOLUTE - 1)
    for i in range(length):
        key = signed_key(bits[i])
        lowest, highest = min(lowest, key), max(highest, key)
    return lowest, highest


@compiled
def coarse_keys(bits, length, signed, magnitudes):
    """Fills the upper halves of both kinds of keys; the smallest and the largest signed key."""
    lowest, highest = np.int32(ABSOLUTE), np.int32(-ABSOLUTE - 1)
    for i in range(length):
        key = signed_key(bits[i])
        lowest, highest = min(lowest, key), max(highest, key)
        signed[i] = np.int16(key >> np.int32(HALF))
        magnitudes[i] = np.int16(np.int32(bits[i] & np.int32(ABSOLUTE)) >> np.int32(HALF))
    return lowest, highest


@compiled
def largest_magnitude(lowest, highest):
    """The bits of the largest magnitude: of a negative value they are the complement of its key."""
    return max(highest, np.int32(~lowest))


@compiled
def carve(scratch, length):
    """The arrays of a row in `scratch_size(length)` bytes: coarse keys of both kinds, values, results, `select`'s."""
    padded = (length + LANES) // LANES * LANES
    signed, magnitudes = array(scratch, length, np.int16), array(scratch + 2 * padded, length, np.int16)
    values, results = scratch + 4 * padded, scratch + 8 * padded
    members = array(scratch + 12 * padded, length, np.int32)
    sample = array(scratch + 16 * padded, 2 * SAMPLE, np.int16)
    search = array(scratch + 16 * padded + 4 * SAMPLE, SEARCH, np.int64)
    return signed, magnitudes, values, results, (members, sample, search)


def scratch_size(length: int) -> int:
    """Bytes that `carve` takes."""
    return 16 * ((length + LANES) // LANES * LANES) + 4 * SAMPLE + 8 * SEARCH


@compiled
def open_row(address, dtype, length, values):
    """The float32 bits of a row: its own, or widened at `values`."""
    if dtype == FLOAT32:
        return array(address, length, np.int32)
    bits = array(values, length, np.int32)
    widen(address, dtype, length, bits)
    return bits


@compiled
def weight_of(row, strengths, strength):
    """How far the values of a row move: its own strength (`strengths` is an address, or 0), or that of all."""
    return np.float64(array(strengths, row + 1, np.float32)[row]) if strengths != 0 else strength


@compiled
def state(row, lowest, highest, real, strength):
    """What becomes of a row with these extremes (`REAL`, `PASSED`, `SKIPPED`); `real` is 0 or an address."""
    if real != 0 and array(real, row + 1, np.uint8)[row] == 0:
        return SKIPPED
    if largest_magnitude(lowest, highest) >= np.int32(INFINITE):
        return PASSED
    return REAL if strength > 0 else SKIPPED
