# type: ignore - Triton's language has Python's syntax but other types.
"""Conversions, activations and logarithm inside a Triton program; all but the activations have PyTorch's bits."""

import triton
import triton.language as tl

from armlet.redistribution import functions

# Triton programs can only read globals that are `constexpr`.
SERIES = tl.constexpr(functions.ATANH)
DEGREE = tl.constexpr(len(functions.ATANH))
LN2_UPPER, LN2_LOWER = tl.constexpr(functions.LN2_HIGH), tl.constexpr(functions.LN2_LOW)
DOUBLINGS, LARGEST = tl.constexpr(functions.TWO_PER_LN2), tl.constexpr(functions.LARGEST_DOUBLINGS)
ABOVE_SERIES, BELOW_SERIES = tl.constexpr(functions.TANH_ABOVE), tl.constexpr(functions.TANH_BELOW)
ROUNDING = tl.constexpr(functions.ROUNDER)
SQRT_HALF, SHIFT = tl.constexpr(functions.SQRT_HALF_BITS), tl.constexpr(functions.MANTISSA_BITS)


@triton.jit
def widened(a):
    """Returns `a` as float32. Converts bfloat16 by its bits, because Triton's interpreter loses denormals."""
    if a.dtype == tl.bfloat16:
        return (a.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    else:
        return a.to(tl.float32)


@triton.jit
def narrowed(x, dtype: tl.constexpr):
    """Rounds float32 to `dtype`, halves to even; to bfloat16 by its bits, because Triton's interpreter differs."""
    if dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        rounded = tl.where(x == x, bits + 0x7FFF + ((bits >> 16) & 1), 0x7FC00000)
        return (rounded >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        return x.to(dtype)


@triton.jit
def activated(gate, ACTIVATION: tl.constexpr):
    """Applies silu, gelu or gelu_tanh in float32, rounded to the dtype of `gate`."""
    x = widened(gate)
    if ACTIVATION == "silu":
        y = tl.div_rn(x, 1.0 + tl.exp(-x))
    elif ACTIVATION == "gelu":
        y = x * 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
    else:
        # ½·(1 + tanh z) = 1 / (1 + exp(−2z)), z = √(2/π)·(x + 0.044715·x³)
        y = tl.div_rn(x, 1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
    return narrowed(y, gate.dtype)


@triton.jit
def companded(magnitude, knee):
    """T·(1 + ln(m/T)) for m ≥ T, otherwise T, in float64, rounded once, as in `inward.py`."""
    threshold = tl.where(knee > 0, knee, 1.0).to(tl.float64)
    ratio = tl.maximum(magnitude.to(tl.float64) / threshold, 1.0)
    return (knee.to(tl.float64) * (1.0 + log_float64(ratio))).to(tl.float32)


@triton.jit
def saturated(magnitude, knee):
    """T·tanh(m/T), in float64, rounded once, as in `inward.py`."""
    threshold = tl.where(knee > 0, knee, 1.0).to(tl.float64)
    return (knee.to(tl.float64) * tanh_float64(magnitude.to(tl.float64), threshold)).to(tl.float32)


@triton.jit
def tanh_float64(x, unit):
    """`functions.tanh` of float64 from 0 on, with the same steps."""
    doublings = tl.minimum(x * (DOUBLINGS / unit), LARGEST)
    rounded = doublings + ROUNDING
    power = (rounded.to(tl.int64, bitcast=True) << SHIFT).to(tl.float64, bitcast=True)
    rest = doublings - (rounded - ROUNDING)
    square = rest * rest
    n = rest + (rest * square) * (ABOVE_SERIES[0] * square + ABOVE_SERIES[1])
    d = (BELOW_SERIES[0] * square + BELOW_SERIES[1]) * square + BELOW_SERIES[2]
    m = (power - 0.5) * d + (power + 0.5) * n
    return m / (m + (d - n))


@triton.jit
def log_float64(x):
    """`functions.log` of float64, with the same steps."""
    bits = x.to(tl.int64, bitcast=True)
    exponent = (bits - SQRT_HALF) >> SHIFT
    f = (bits - (exponent << SHIFT)).to(tl.float64, bitcast=True) - 1.0
    s = f / (f + 2.0)
    square, half = s * s, f * f * 0.5
    series = SERIES[0] * square + SERIES[1]
    for power in tl.static_range(2, DEGREE):
        series = series * square + SERIES[power]
    power_of_two = exponent.to(tl.float64)
    small = s * (half + square * series) + power_of_two * LN2_LOWER
    return power_of_two * LN2_UPPER - ((half - small) - f)
