"""What is done to values before they are coded, and inverted after decoding; each transform is fitted to calibration.

All are written here in plain torch: the libraries that offer them convert whole models and quantise weights as well.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log, prod

import torch
from torch import Tensor
from torch.nn import functional

from armlet.precision.codes import LARGEST_CODE, SMALLEST_RANGE, Code, kth_smallest

Inverse = Callable[[Tensor], Tensor]
Forward = Callable[[Tensor], tuple[Tensor, Inverse]]

BY_ERROR = "by error"  # the knee of `Compand` that is chosen for each token by its error
SHARES = tuple(2 ** (-step / 2) for step in range(16))
"""Of the largest magnitude: the ranges that `LeastError` tries, and the knees that `Compand` tries."""


def _keep(x: Tensor) -> tuple[Tensor, Inverse]:
    return x, lambda z: z


def _largest_magnitude(rows: Tensor) -> Tensor:
    return rows.abs().amax(-1, keepdim=True)


@dataclass(frozen=True)
class Rounding:
    """A code with a fitted transform around it, at one down."""

    code: Code
    forward: Forward = _keep  # `[batch, seq, width]` → what is coded, of the same shape, and the inverse
    limit: Callable[[Tensor], Tensor] = _largest_magnitude  # of what is coded, `[rows, n]` → the range, `[rows, 1]`

    @classmethod
    def fit(cls, code: Code, transform: "Plain", x: Tensor, weight: Tensor) -> "Rounding":
        """To calibration values `[windows, seq, width]` and the weight of down, `[d_model, width]`."""
        rounding = transform.fit(x.float(), weight.float(), code)
        if code.span != "static":
            return rounding
        calibrated = rounding.limit(code.rows(rounding.forward(x.float())[0]))
        return replace(rounding, limit=lambda _: calibrated)

    def __call__(self, x: Tensor, measure: Callable[[Tensor, Tensor, Tensor, Tensor], None] | None = None) -> Tensor:
        """`[batch, seq, width]`, rounded in float32 and returned in the dtype of `x`; `measure`: as `Meter.add`."""
        z, inverse = self.forward(x.float())
        rows = self.code.rows(z)
        limit = self.limit(rows)
        rounded = inverse(self.code.round(rows, limit).view_as(z)).to(x.dtype)
        if measure:
            measure(x, rounded, rows, limit)
        return rounded


@dataclass(frozen=True)
class Plain:
    """Round to nearest, with the largest magnitude as the range; the base class of every transform."""

    def fit(self, x: Tensor, weight: Tensor, code: Code) -> Rounding:
        """For one down: its input `[windows, seq, width]`, its weight `[d_model, width]`, and the code."""
        return Rounding(code)


@dataclass(frozen=True)
class Percentile(Plain):
    """Values beyond a quantile of the magnitudes (the k-th smallest) are clipped to it: TensorRT's calibration."""

    share: float = 0.999

    def fit(self, x: Tensor, weight: Tensor, code: Code) -> Rounding:  # noqa: D102
        return Rounding(code, limit=lambda rows: kth_smallest(rows.abs(), self.share))


@dataclass(frozen=True)
class LeastError(Plain):
    """The MSE observer: values beyond the share of the largest magnitude with the least squared error are clipped."""

    def fit(self, x: Tensor, weight: Tensor, code: Code) -> Rounding:  # noqa: D102
        rows = code.rows(x)
        errors = [(code.round(rows, _largest_magnitude(rows) * share) - rows).square().sum().item() for share in SHARES]
        best = SHARES[errors.index(min(errors))]
        return Rounding(code, limit=lambda rows: _largest_magnitude(rows) * best)


@dataclass(frozen=True)
class Smooth(Plain):
    """SmoothQuant (arXiv 2211.10438): each channel is divided by max|x|^α / max|W|^(1−α).

    The inverse folds into the weight of down, W·(z·s) = (W·s)·z, so that an integer product can use z itself.
    """

    alpha: float = 0.5

    def fit(self, x: Tensor, weight: Tensor, code: Code) -> Rounding:  # noqa: D102
        of_x, of_weight = (values.abs().flatten(0, -2).amax(0).clamp(min=1e-5) for values in (x, weight))
        scale = of_x**self.alpha / of_weight ** (1 - self.alpha)
        return Rounding(code, lambda x: (x / scale, lambda z: z * scale))


@dataclass(frozen=True)
class Hadamard(Plain):
    """QuaRot (arXiv 2404.00456): blocks of n channels are rotated by an orthogonal matrix of ±1/√n.

    The matrix is a Kronecker product: a block takes n · (a + b) products instead of n². Its transpose is the inverse,
    which folds into the weight of down as that of `Smooth` does.
    """

    def fit(self, x: Tensor, weight: Tensor, code: Code) -> Rounding:  # noqa: D102
        first, second = ((matrix / len(matrix) ** 0.5).to(x) for matrix in hadamard(x.shape[-1]))
        return Rounding(code, lambda x: (_rotate(x, first, second), lambda z: _rotate(z, first.T, second.T)))


def _rotate(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Each block, as a row vector, times first ⊗ second."""
    blocks = x.unflatten(-1, (-1, len(first), len(second)))
    return (first.T @ blocks @ second).flatten(-3)


def hadamard(width: int) -> tuple[Tensor, Tensor]:
    """Two float64 matrices of ±1 with orthogonal rows, `[a, a]` and `[b, b]`; so is their Kronecker product.

    a · b is the largest divisor of `width` with a power of 2 for a, and 1, 12 or 20 for b.
    """
    from scipy.linalg import hadamard as sylvester

    factors = [(2**power, base) for base in (1, 12, 20) for power in range(width.bit_length())]
    power, base = max((sizes for sizes in factors if width % prod(sizes) == 0), key=prod)
    return torch.from_numpy(sylvester(power)).double(), _paley(base - 1)


def _paley(q: int) -> Tensor:
    """float64 `[q + 1, q + 1]`: q is 0, or a prime equal to 3 modulo 4 (Paley 1933, construction I)."""
    from scipy.linalg import circulant

    if q == 0:
        return torch.ones(1, 1, dtype=torch.float64)
    residues = [0, *(1 if pow(value, q // 2, q) == 1 else -1 for value in range(1, q))]  # by Euler's criterion
    inner = torch.from_numpy(circulant(residues).T).double() + torch.eye(q, dtype=torch.float64)
    matrix = functional.pad(inner, (1, 0, 1, 0), value=1)
    matrix[1:, 0] = -1
    return matrix


@dataclass(frozen=True)
class Compand(Plain):
    """The log curve of `Inward` (ITU-T G.711) in units of its knee T; its exact inverse is applied after decoding.

    Not linear: it must be expanded before the product.

    Args:
        knee: the quantile of the magnitudes that is T; or `BY_ERROR`: T is the share of the token's largest magnitude
            that gives the least squared error if the token has its own scale.
        fixed: one T for the layer, from calibration. Otherwise one for each token, a float sent with its codes.
    """

    knee: float | str = 0.9
    fixed: bool = False

    def fit(self, x: Tensor, weight: Tensor, code: Code) -> Rounding:  # noqa: D102
        threshold = self._knees(x.reshape(1, -1), code).reshape(()) if self.fixed else None

        def forward(x: Tensor) -> tuple[Tensor, Inverse]:
            knees = self._knees(x, code) if threshold is None else threshold
            return compand(x / knees), lambda z: expand(z) * knees

        return Rounding(code, forward)

    def _knees(self, x: Tensor, code: Code) -> Tensor:
        """`[..., 1]`: T of each row; its largest magnitude where a share of more than `knee` of its values is 0."""
        top = _largest_magnitude(x).clamp(min=SMALLEST_RANGE)
        if self.knee == BY_ERROR:
            errors = torch.stack([_knee_error(x.abs() / top, share, LARGEST_CODE[code.number]) for share in SHARES])
            return top * x.new_tensor(SHARES)[errors.argmin(0)]
        knees = kth_smallest(x.abs(), float(self.knee))
        return torch.where(knees > 0, knees, top).clamp(min=SMALLEST_RANGE)


def _knee_error(ratio: Tensor, share: float, largest: int) -> Tensor:
    """`[..., 1]`: squared error of magnitudes if T is `share`; both in units of the row's largest.

    Decoded values are looked up: twice as fast as a logarithm, a rounding and an exponential of each value.
    """
    codes = torch.linspace(0, 1 - log(share), largest + 1, dtype=ratio.dtype, device=ratio.device)
    levels, ends = expand(codes) * share, expand((codes[1:] + codes[:-1]) / 2) * share
    return (levels[torch.bucketize(ratio, ends)] - ratio).square().sum(-1, keepdim=True)


def compand(ratio: Tensor) -> Tensor:
    """`Inward.compand(ratio, 1)` in the dtype of `ratio`, whose logarithm is far more precise than any code."""
    magnitude = ratio.abs()
    return torch.where(magnitude > 1, ratio.sign() * (1 + magnitude.clamp(min=1).log()), ratio)


def expand(z: Tensor) -> Tensor:
    """`Inward.expand(z, 1)` in the dtype of `z`."""
    magnitude = z.abs()
    return torch.where(magnitude > 1, z.sign() * (magnitude.clamp(min=1) - 1).exp(), z)
