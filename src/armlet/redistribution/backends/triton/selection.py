# type: ignore - Triton's language, which looks like Python and has other types.
"""Exact order statistics of one row, inside a Triton program, by counting.

The k-th smallest is found bit by bit from the top: a bit is set where fewer than k values lie below the number that it
gives. Counts are integers, so no result depends on the order in which threads add up; and a row may fill the
registers, since it is compared with numbers alone, never sorted, copied or turned into keys.

A row is float32, filled up with `inf`; one that holds NaN or Inf gives numbers without meaning, but ends.
"""

import triton
import triton.language as tl

SIGN = tl.constexpr(0x80000000)


@triton.jit
def count(chosen):
    """int32: how many are chosen."""
    return tl.sum(chosen.to(tl.int32), 0)


@triton.jit
def number(key, SIGNED: tl.constexpr):
    """The float32 of a key; keys have the order of the numbers, and those of magnitudes are their bits."""
    bits = key
    if SIGNED:
        bits = tl.where(key >= SIGN, key - SIGN, (SIGN - key) | SIGN)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def smallest(x, chosen):
    """The smallest chosen value, `inf` where there is none."""
    return tl.min(tl.where(chosen, x, float("inf")), 0)


@triton.jit
def kth(x, k, LOWEST: tl.constexpr):
    """The k-th smallest of magnitudes, k from 1; the bits under `LOWEST` are zero in all of them.

    `below` values lie under `found`, and as many as `up_to` under the next number that the decided bits allow: where
    one value is between, it is read off instead of searched to its last bit.
    """
    found, bit = tl.full((), 0, tl.uint32), tl.full((), 1 << 30, tl.uint32)
    below, up_to = k * 0, k * 0 + x.shape[0]
    while (bit >= (1 << LOWEST)) & (up_to - below > 1):
        fewer = count(x < number(found | bit, False))
        found = tl.where(fewer < k, found | bit, found)
        below, up_to = tl.where(fewer < k, fewer, below), tl.where(fewer < k, up_to, fewer)
        bit >>= 1
    return smallest(x, x >= number(found, False))


@triton.jit
def two_kth(first, j, second, k, SIGNED: tl.constexpr, LOWEST: tl.constexpr):
    """The j-th and the k-th smallest of two rows, of any numbers where SIGNED, else magnitudes. One sum counts both."""
    one, two = tl.full((), 0, tl.uint32), tl.full((), 0, tl.uint32)
    bit = tl.full((), 1 << (31 if SIGNED else 30), tl.uint32)
    while bit >= (1 << LOWEST):
        under = (first < number(one | bit, SIGNED)).to(tl.uint32)
        under += (second < number(two | bit, SIGNED)).to(tl.uint32) << 16
        fewer = tl.sum(under, 0)
        one = tl.where((fewer & 0xFFFF).to(tl.int32) < j, one | bit, one)
        two = tl.where((fewer >> 16).to(tl.int32) < k, two | bit, two)
        bit >>= 1
    return number(one, SIGNED), number(two, SIGNED)


@triton.jit
def between(x, low, below, weight, rest, nearer, width):
    """The quantile between `low`, the value at index `below` of the ascending row, and its successor.

    `weight` and `rest` are the float32 of w and 1 − w, `nearer` says whether w < ½: `Ordered.quantile`, step by step.
    """
    repeated = count(x <= low) > tl.minimum(below + 1, width - 1)
    high = tl.where(repeated, low, smallest(x, x > low))
    rise = high - low
    inner = tl.where(nearer != 0, low + rise * weight, high - rise * rest)
    return tl.where(tl.abs(rise) < float("inf"), inner, low * rest + high * weight)
