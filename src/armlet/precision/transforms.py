"""Transforms applied before quantisation and inverted after dequantisation, each fitted to calibration data.

They are reimplemented in plain torch, because existing libraries convert whole models and also quantise weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log, prod

import torch
from torch import Tensor
from torch.nn import functional

from armlet.precision.schemes import MAX_QUANTIZED, SMALLEST_RANGE, QuantScheme, kth_smallest

Inverse = Callable[[Tensor], Tensor]
Forward = Callable[[Tensor], tuple[Tensor, Inverse]]

BY_ERROR = "by error"  # `Compand.knee`: choose T for each token by minimum squared error
SHARES = tuple(2 ** (-step / 2) for step in range(16))
"""Fractions of the largest magnitude that `LeastError` tries as ranges and `Compand` as knees."""


def _identity(x: Tensor) -> tuple[Tensor, Inverse]:
    return x, lambda z: z


def _largest_magnitude(rows: Tensor) -> Tensor:
    return rows.abs().amax(-1, keepdim=True)


@dataclass(frozen=True)
class Rounding:
    """A quantisation scheme with a fitted transform, for one layer's `down`."""

    scheme: QuantScheme
    forward: Forward = _identity  # `[batch, seq, width]` → the values to quantise, of the same shape, and the inverse
    limit: Callable[[Tensor], Tensor] = _largest_magnitude  # values to quantise, `[rows, n]` → their range, `[rows, 1]`

    @classmethod
    def fit(cls, scheme: QuantScheme, transform: "Transform", x: Tensor, weight: Tensor) -> "Rounding":
        """Fits to calibration values `[windows, seq, width]` and the weight of `down`, `[d_model, width]`."""
        rounding = transform.fit(x.float(), weight.float(), scheme)
        if scheme.granularity != "static":
            return rounding
        calibrated = rounding.limit(scheme.rows(rounding.forward(x.float())[0]))
        return replace(rounding, limit=lambda _: calibrated)

    def __call__(self, x: Tensor, measure: Callable[[Tensor, Tensor, Tensor, Tensor], None] | None = None) -> Tensor:
        """Rounds `[batch, seq, width]` in float32 and returns the dtype of `x`; `measure` is called as `Meter.add`."""
        z, inverse = self.forward(x.float())
        rows = self.scheme.rows(z)
        limit = self.limit(rows)
        rounded = inverse(self.scheme.round(rows, limit).view_as(z)).to(x.dtype)
        if measure:
            measure(x, rounded, rows, limit)
        return rounded


@dataclass(frozen=True)
class Transform:
    """Leaves the values as they are, with the largest magnitude as the range; the base class of all transforms."""

    def fit(self, x: Tensor, weight: Tensor, scheme: QuantScheme) -> Rounding:
        """Fits to the calibration input `[windows, seq, width]` and the weight `[d_model, width]` of one `down`."""
        return Rounding(scheme)


@dataclass(frozen=True)
class Percentile(Transform):
    """Clips values at a quantile (the k-th smallest) of the magnitudes, as TensorRT's percentile calibration does."""

    share: float = 0.999

    def fit(self, x: Tensor, weight: Tensor, scheme: QuantScheme) -> Rounding:  # noqa: D102
        return Rounding(scheme, limit=lambda rows: kth_smallest(rows.abs(), self.share))


@dataclass(frozen=True)
class LeastError(Transform):
    """The MSE observer: clips at the fraction of the largest magnitude that gives the least squared error."""

    def fit(self, x: Tensor, weight: Tensor, scheme: QuantScheme) -> Rounding:  # noqa: D102
        rows = scheme.rows(x)
        largest = _largest_magnitude(rows)
        best = min(SHARES, key=lambda share: (scheme.round(rows, largest * share) - rows).square().sum().item())
        return Rounding(scheme, limit=lambda rows: _largest_magnitude(rows) * best)


@dataclass(frozen=True)
class Smooth(Transform):
    """SmoothQuant (arXiv 2211.10438): each channel is divided by max|x|^α / max|W|^(1−α).

    The inverse can be folded into the weight of `down`, W·(z·s) = (W·s)·z, so an integer matmul can use z directly.
    """

    alpha: float = 0.5

    def fit(self, x: Tensor, weight: Tensor, scheme: QuantScheme) -> Rounding:  # noqa: D102
        x_max, weight_max = (values.abs().flatten(0, -2).amax(0).clamp(min=1e-5) for values in (x, weight))
        scale = x_max**self.alpha / weight_max ** (1 - self.alpha)
        return Rounding(scheme, lambda x: (x / scale, lambda z: z * scale))


@dataclass(frozen=True)
class Hadamard(Transform):
    """QuaRot (arXiv 2404.00456): blocks of n channels are rotated by an orthogonal matrix of ±1/√n.

    The matrix is a Kronecker product, so a block takes n · (a + b) multiplications instead of n². The inverse is the
    transpose, which can be folded into the weight of `down` like the inverse of `Smooth`.
    """

    def fit(self, x: Tensor, weight: Tensor, scheme: QuantScheme) -> Rounding:  # noqa: D102
        first, second = ((matrix / len(matrix) ** 0.5).to(x) for matrix in hadamard(x.shape[-1]))
        return Rounding(scheme, lambda x: (_rotate(x, first, second), lambda z: _rotate(z, first.T, second.T)))


def _rotate(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Multiplies each block, as a row vector, by first ⊗ second."""
    blocks = x.unflatten(-1, (-1, len(first), len(second)))
    return (first.T @ blocks @ second).flatten(-3)


def hadamard(width: int) -> tuple[Tensor, Tensor]:
    """Two float64 matrices of ±1, `[a, a]` and `[b, b]`, with orthogonal rows, as in their Kronecker product.

    a · b is the largest divisor of `width` where a is a power of 2 and b is 1, 12 or 20.
    """
    from scipy.linalg import hadamard as sylvester

    factors = [(2**power, base) for base in (1, 12, 20) for power in range(width.bit_length())]
    power, base = max((sizes for sizes in factors if width % prod(sizes) == 0), key=prod)
    return torch.from_numpy(sylvester(power)).double(), _paley(base - 1)


def _paley(q: int) -> Tensor:
    """A float64 matrix `[q + 1, q + 1]`; q is 0 or a prime congruent to 3 modulo 4 (Paley 1933, construction I)."""
    from scipy.linalg import circulant

    if q == 0:
        return torch.ones(1, 1, dtype=torch.float64)
    residues = [0, *(1 if pow(value, q // 2, q) == 1 else -1 for value in range(1, q))]  # by Euler's criterion
    core = torch.from_numpy(circulant(residues).T).double() + torch.eye(q, dtype=torch.float64)
    matrix = functional.pad(core, (1, 0, 1, 0), value=1)
    matrix[1:, 0] = -1
    return matrix


@dataclass(frozen=True)
class Compand(Transform):
    """The log curve of `Inward` (ITU-T G.711) in units of its knee T; its exact inverse is applied after dequantising.

    It is not linear, so values must be expanded before the matmul.

    Args:
        knee: the quantile of the magnitudes that T is; with `BY_ERROR`, T is the fraction of the token's largest
            magnitude with the least squared error, if each token has a scale.
        fixed: whether T is calibrated once for the layer; otherwise each token has its own T, a float to store with it.
    """

    knee: float | str = 0.9
    fixed: bool = False

    def fit(self, x: Tensor, weight: Tensor, scheme: QuantScheme) -> Rounding:  # noqa: D102
        calibrated = self._thresholds(x.reshape(1, -1), scheme).reshape(()) if self.fixed else None

        def forward(x: Tensor) -> tuple[Tensor, Inverse]:
            thresholds = self._thresholds(x, scheme) if calibrated is None else calibrated
            return compand(x / thresholds), lambda z: expand(z) * thresholds

        return Rounding(scheme, forward)

    def _thresholds(self, x: Tensor, scheme: QuantScheme) -> Tensor:
        """T of each row, `[..., 1]`; the row's largest magnitude if more than a fraction `knee` of its values is 0."""
        largest = _largest_magnitude(x).clamp(min=SMALLEST_RANGE)
        if self.knee == BY_ERROR:
            ratios, max_quantized = x.abs() / largest, MAX_QUANTIZED[scheme.dtype]
            errors = torch.stack([_threshold_error(ratios, share, max_quantized) for share in SHARES])
            return largest * x.new_tensor(SHARES)[errors.argmin(0)]
        quantiles = kth_smallest(x.abs(), float(self.knee))
        return torch.where(quantiles > 0, quantiles, largest).clamp(min=SMALLEST_RANGE)


def _threshold_error(ratios: Tensor, share: float, max_quantized: int) -> Tensor:
    """Squared error `[..., 1]` of magnitudes if T is `share`; both are relative to the row's largest magnitude.

    Looks up decoded values, which is twice as fast as computing log, round and exp for each value.
    """
    codes = torch.linspace(0, 1 - log(share), max_quantized + 1, dtype=ratios.dtype, device=ratios.device)
    levels, boundaries = expand(codes) * share, expand((codes[1:] + codes[:-1]) / 2) * share
    return (levels[torch.bucketize(ratios, boundaries)] - ratios).square().sum(-1, keepdim=True)


def compand(ratio: Tensor) -> Tensor:
    """`Inward.compand(ratio, 1)` in the dtype of `ratio`, whose rounding error is far smaller than quantisation's."""
    magnitude = ratio.abs()
    return torch.where(magnitude > 1, ratio.sign() * (1 + magnitude.clamp(min=1).log()), ratio)


def expand(z: Tensor) -> Tensor:
    """`Inward.expand(z, 1)` in the dtype of `z`."""
    magnitude = z.abs()
    return torch.where(magnitude > 1, z.sign() * (magnitude.clamp(min=1) - 1).exp(), z)
