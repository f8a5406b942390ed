"""ln, tanh, the half-normal quantile and linear interpolation, with the same bits on every device.

Each is a fixed sequence of separately rounded IEEE operations and of integer operations on bits, because a library's
`log`, `erfinv` or `lerp` rounds differently on each vector unit. The formulas accept tensors and, for kernels, numbers.
"""

from typing import Any, TypeAlias

import torch
from torch import Tensor

Value: TypeAlias = Any  # a float64 tensor, or a number in a kernel

LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
"""ln 2 in two parts. The first ends in 21 zero bits, so its product with an exponent is exact."""

SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
"""√½ as float64; significands are in [√½, √2)."""

MANTISSA_BITS, EXPONENT_BIAS = 52, 1023

ATANH = tuple(2 / (2 * k + 1) for k in range(9, 0, -1))
"""2/19, …, 2/5, 2/3: the series of 2·artanh(s)/s − 2, with an error below 3·10⁻¹⁷ of ln for |s| ≤ 3 − √8."""

TWO_PER_LN2 = 2.8853900817779268  # 2/ln 2
TANH_ABOVE = (1.525596712126834e-05, 0.013344554361353282)
TANH_BELOW = (0.0006605743104313718, 0.15402877489331893, TWO_PER_LN2)
"""tanh(r·½·ln 2) = (r + r³·above(r²))/below(r²) with a relative error below 2·10⁻¹⁷ for |r| ≤ ½.

Exact at 0 and at the other zeros of a Chebyshev polynomial of degree 5 that is stretched to 0 ≤ r² ≤ ¼.
"""

LARGEST_DOUBLINGS = 58.0
"""tanh(x) is 1 in float64 from 2x = 58·ln 2 on."""

ROUNDER = 2.0**52 + EXPONENT_BIAS - 1
"""Adding it to a smaller z ≥ 0 rounds z to the integer k; the last bits of the sum are the exponent field of 2ᵏ⁻¹."""

CENTRAL_LIMIT, CENTRAL_SHIFT = 0.85, 0.180625
TAIL_LIMIT, TAIL_SHIFT = 5.0, 1.6
"""The limits of the three pieces of the normal quantile, and the origins of their variables."""

# Wichura's coefficients (PPND16), highest power first: numerator and denominator of each piece.
# fmt: off
CENTRAL = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)
NEAR_TAIL = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
     3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
     0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)
FAR_TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
     0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
     0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0),
)
# fmt: on


def polynomial(x: Value, coefficients: tuple[float, ...]) -> Value:
    """Evaluates a polynomial by Horner's scheme; the coefficient of the highest power is first."""
    result = coefficients[0] * x + coefficients[1]
    for coefficient in coefficients[2:]:
        result = result * x + coefficient
    return result


def log_of_parts(significand: Value, exponent: Value) -> Value:
    """ln(significand · 2^exponent) for a significand in [√½, √2); both float64.

    With f = significand − 1 and s = f/(2 + f): ln(1 + f) = 2·artanh(s) = f − (f²/2 − s·(f²/2 + R(s²))), where the
    leading term f is exact.
    """
    f = significand - 1.0
    s = f / (f + 2.0)
    square, half = s * s, f * f * 0.5
    small = s * (half + square * polynomial(square, ATANH)) + exponent * LN2_LOW
    return exponent * LN2_HIGH - ((half - small) - f)


def tanh_of_parts(rest: Value, power: Value) -> Value:
    """tanh(x) for 2x = (k + rest)·ln 2 and power = 2ᵏ⁻¹; both float64.

    With tanh(rest·½·ln 2) = n/d: e²ˣ = 2ᵏ·(d + n)/(d − n), and tanh(x) = (e²ˣ − 1)/(e²ˣ + 1) is m/(m + d − n) for
    m = (2ᵏ⁻¹ − ½)·d + (2ᵏ⁻¹ + ½)·n, without cancellation near 0, where k is 0.
    """
    square = rest * rest
    n = rest + (rest * square) * (TANH_ABOVE[0] * square + TANH_ABOVE[1])
    d = polynomial(square, TANH_BELOW)
    m = (power - 0.5) * d + (power + 0.5) * n
    return m / (m + (d - n))


def central_quantile(p: Value) -> Value:
    """√2·erf⁻¹(p) for 0 ≤ p ≤ 0.85."""
    q = p * 0.5
    r = CENTRAL_SHIFT - q * q
    return q * polynomial(r, CENTRAL[0]) / polynomial(r, CENTRAL[1])


def tail_quantile(depth: Value) -> Value:
    """√2·erf⁻¹(p) for depth = √(−ln((1 − p)/2)) ≤ 5."""
    r = depth - TAIL_SHIFT
    return polynomial(r, NEAR_TAIL[0]) / polynomial(r, NEAR_TAIL[1])


def far_quantile(depth: Value) -> Value:
    """√2·erf⁻¹(p) for depth = √(−ln((1 − p)/2)) ≥ 5."""
    r = depth - TAIL_LIMIT
    return polynomial(r, FAR_TAIL[0]) / polynomial(r, FAR_TAIL[1])


def log(x: Tensor) -> Tensor:
    """ln(x) of normal positive float64 to within one unit in the last place; differentiable twice.

    float32, the widest type on Apple's MPS, uses `torch.log`.
    """
    if x.dtype != torch.float64:
        return x.log()
    constant = x.detach()
    # ln(1 + z) = z − z²/2 + … with z = 0 changes no bit of ln, and provides its first two derivatives.
    z = (x - constant) / constant
    return _log(constant) + (z - 0.5 * z * z)


def tanh(x: Tensor, unit: Tensor | float = 1.0) -> Tensor:
    """The hyperbolic tangent of x/unit, unit > 0, +0 for both zeros; float64, to within four units in the last place.

    Differentiable twice. float32, the widest type on Apple's MPS, uses `torch.tanh`.
    """
    ratio = x / unit
    if x.dtype != torch.float64:
        return ratio.tanh()
    # A number over a tensor would be the product with its reciprocal, which rounds twice.
    factor = torch.full_like(unit, TWO_PER_LN2) / unit if isinstance(unit, Tensor) else TWO_PER_LN2 / unit
    doublings = x.detach().abs() * factor
    value = torch.copysign(_tanh(doublings.clamp(max=LARGEST_DOUBLINGS)), x.detach())
    # tanh(x + z) = t + (1 − t²)·(z − t·z²) + … with z = 0 changes no bit, and provides the first two derivatives.
    z = ratio - ratio.detach()
    return value + (1.0 - value * value) * (z - value * z * z)


def half_normal_quantile(p: Tensor) -> Tensor:
    """√2·erf⁻¹(p), p in [0, 1), the quantile function of |N(0, 1)|, to 10⁻¹⁵ relative; a constant to autograd.

    float32, the widest type on Apple's MPS, uses `torch.erfinv`.
    Source: M. J. Wichura, 'Algorithm AS 241: The Percentage Points of the Normal Distribution', Applied Statistics 37
    (1988), 477–484, at (1 + p)/2.
    """
    p = p.detach()
    if p.dtype != torch.float64:
        return 2**0.5 * p.erfinv()
    depth = (-_log((1.0 - p) * 0.5)).sqrt()
    tail = torch.where(depth <= TAIL_LIMIT, tail_quantile(depth), far_quantile(depth))
    return torch.where(p <= CENTRAL_LIMIT, central_quantile(p), tail)


def part_of_the_way(start: Value, end: Value, strength: Value) -> Value:
    """start + strength·(end − start)."""
    return start + (end - start) * strength


def _tanh(doublings: Tensor) -> Tensor:
    rounded = doublings + ROUNDER
    power = (rounded.view(torch.int64) << MANTISSA_BITS).view(torch.float64)
    return tanh_of_parts(doublings - (rounded - ROUNDER), power)


def _log(x: Tensor) -> Tensor:
    bits = x.view(torch.int64)
    exponent = (bits - SQRT_HALF_BITS) >> MANTISSA_BITS
    significand = (bits - (exponent << MANTISSA_BITS)).view(torch.float64)
    return log_of_parts(significand, exponent.to(torch.float64))
