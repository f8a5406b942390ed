# type: ignore - Triton's language has Python's syntax but other types.
"""Exact order statistics of one row, float32 padded with `inf`, inside a Triton program, by counting.

The k-th smallest is determined bit by bit from the top, by counting the values below the number so far. No sum of
floats depends on an order, and a row may fill the registers. With NaN or Inf results are undefined, but loops end.
"""

import triton
import triton.language as tl

SIGN = tl.constexpr(0x80000000)


@triton.jit
def count_true(chosen):
    """Returns the number of True values as int32."""
    return tl.sum(chosen.to(tl.int32), 0)


@triton.jit
def number(key, SIGNED: tl.constexpr):
    """Returns the float32 of a key; keys are ordered like the numbers, and the key of a magnitude is its bits."""
    bits = key
    if SIGNED:
        bits = tl.where(key >= SIGN, key - SIGN, (SIGN - key) | SIGN)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def smallest(x, chosen):
    """Returns the smallest chosen value, or `inf` if there is none."""
    return tl.min(tl.where(chosen, x, float("inf")), 0)


@triton.jit
def kth_magnitude(x, k, LOWEST: tl.constexpr):
    """Returns the k-th smallest magnitude, k from 1; the lowest `LOWEST` bits are zero in all magnitudes.

    `below` values are less than `decided`, and `up_to` values are less than the upper bound given by the decided bits.
    If one value is between them, it is selected directly instead of searched to the last bit.
    """
    decided, bit = tl.full((), 0, tl.uint32), tl.full((), 1 << 30, tl.uint32)
    below, up_to = k * 0, k * 0 + x.shape[0]
    while (bit >= (1 << LOWEST)) & (up_to - below > 1):
        fewer = count_true(x < number(decided | bit, False))
        decided = tl.where(fewer < k, decided | bit, decided)
        below, up_to = tl.where(fewer < k, fewer, below), tl.where(fewer < k, up_to, fewer)
        bit >>= 1
    return smallest(x, x >= number(decided, False))


@triton.jit
def two_kth(first, j, second, k, SIGNED: tl.constexpr, LOWEST: tl.constexpr):
    """Returns the j-th and k-th smallest of two rows of magnitudes (of any numbers if SIGNED); one sum counts both."""
    first_key, second_key = tl.full((), 0, tl.uint32), tl.full((), 0, tl.uint32)
    bit = tl.full((), 1 << (31 if SIGNED else 30), tl.uint32)
    while bit >= (1 << LOWEST):
        under = (first < number(first_key | bit, SIGNED)).to(tl.uint32)
        under += (second < number(second_key | bit, SIGNED)).to(tl.uint32) << 16
        fewer = tl.sum(under, 0)
        first_key = tl.where((fewer & 0xFFFF).to(tl.int32) < j, first_key | bit, first_key)
        second_key = tl.where((fewer >> 16).to(tl.int32) < k, second_key | bit, second_key)
        bit >>= 1
    return number(first_key, SIGNED), number(second_key, SIGNED)


@triton.jit
def interpolated(x, low, below, weight, rest, nearer, width):
    """Returns the quantile between `low`, the value at index `below` of the ascending row, and its successor.

    `weight` and `rest` are w and 1 − w as float32, and `nearer` is w < ½; the steps equal `Ordered.quantile`.
    """
    repeated = count_true(x <= low) > tl.minimum(below + 1, width - 1)
    high = tl.where(repeated, low, smallest(x, x > low))
    rise = high - low
    inner = tl.where(nearer != 0, low + rise * weight, high - rise * rest)
    return tl.where(tl.abs(rise) < float("inf"), inner, low * rest + high * weight)
