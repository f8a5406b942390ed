# type: ignore - Triton's language has Python's syntax but other types.
"""Conversions, activations and logarithm inside a Triton program; all but the activations have PyTorch's bits."""

import triton
import triton.language as tl

from armlet.redistribution import functions

# Triton programs can only read globals that are `constexpr`.
SERIES = tl.constexpr(functions.ATANH)
DEGREE = tl.constexpr(len(functions.ATANH))
LN2_UPPER, LN2_LOWER = tl.constexpr(functions.LN2_HIGH), tl.constexpr(functions.LN2_LOW)
EXPM1_SERIES, EXPM1_DEGREE = tl.constexpr(functions.EXPM1), tl.constexpr(len(functions.EXPM1))
INVERSE_LN2, LARGEST = tl.constexpr(functions.PER_LN2), tl.constexpr(functions.LARGEST_TANH)
BIAS = tl.constexpr(functions.EXPONENT_BIAS)
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
    return (knee.to(tl.float64) * tanh_float64(magnitude.to(tl.float64) / threshold)).to(tl.float32)


@triton.jit
def tanh_float64(x):
    """`functions.tanh` of float64 from 0 on, with the same steps."""
    doubled = 2.0 * tl.minimum(x, LARGEST)
    exponent = (doubled * INVERSE_LN2 + 0.5).to(tl.int64)
    k = exponent.to(tl.float64)
    rest = (doubled - k * LN2_UPPER) - k * LN2_LOWER
    series = EXPM1_SERIES[0] * rest + EXPM1_SERIES[1]
    for power in tl.static_range(2, EXPM1_DEGREE):
        series = series * rest + EXPM1_SERIES[power]
    power_of_two = ((exponent + BIAS) << SHIFT).to(tl.float64, bitcast=True)
    e = power_of_two * (rest * series) + (power_of_two - 1.0)
    return e / (e + 2.0)


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
