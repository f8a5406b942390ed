"""Transforms around a code at the input of down: none, clipping, SmoothQuant, a rotation, a companding curve.

Each is fitted to calibration values, transforms what is coded and inverts that after decoding. All are implemented here
in plain torch: the libraries that offer them convert whole models and quantise weights as well.

| name | forward | inverse | source |
| --- | --- | --- | --- |
| `Plain` | x | z | round to nearest |
| `Percentile` | x, clipped at a quantile of the magnitudes | z | calibration in TensorRT |
| `LeastError` | x, clipped where the mean squared error is least | z | the usual MSE observer |
| `Smooth` | x / s, s = max|x|^α / max|W|^(1−α) by channel | z · s | arXiv 2211.10438 |
| `Hadamard` | x · H by blocks, H orthogonal | z · Hᵀ | arXiv 2404.00456 |
| `Compand` | sign(x) · (r, or 1 + ln r where r = |x|/T > 1) | sign(z) · T · (|z|, or exp(|z| − 1)) | `Inward`, G.711 |

The inverse of `Smooth` and `Hadamard` folds into the weight of down, W·(z·s) = (W·s)·z, so that an integer product can
use z itself. `Compand` is not linear and must be expanded before the product.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import log, prod

import torch
from torch import Tensor

from armlet.precision.codes import LARGEST_NUMBER, SMALLEST_LIMIT, Code, kth_smallest

Inverse = Callable[[Tensor], Tensor]

SHARES = tuple(2 ** (-step / 2) for step in range(16))
"""Of the largest magnitude: the ranges that `LeastError` tries, and the knees that `Compand` tries."""

BY_ERROR = "by error"
"""The knee of `Compand` that is chosen for each token by its error."""


@dataclass(frozen=True)
class Plain:
    """Round to nearest, with the largest magnitude as the range; the base class of every transform."""

    def fit(self, x: Tensor, weight: Tensor, code: Code) -> "Plain":
        """A copy with everything that is determined by calibration.

        Args:
            x: `[windows, seq, width]`, the input of one down.
            weight: `[d_model, width]`, of that down.
            code: in which the output of `forward` will be rounded.
        """
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Inverse]:
        """`[batch, seq, width]` → what is coded, of the same shape, and the inverse."""
        return x, lambda z: z

    def limit(self, rows: Tensor) -> Tensor:
        """`[rows, n]` → `[rows, 1]`: the magnitude to which the range of each row extends."""
        return rows.abs().amax(-1, keepdim=True)


@dataclass(frozen=True)
class Percentile(Plain):
    """Values beyond a quantile of the magnitudes are clipped to it."""

    share: float = 0.999

    def limit(self, rows: Tensor) -> Tensor:
        """The k-th smallest magnitude."""
        return kth_smallest(rows.abs(), self.share)


@dataclass(frozen=True)
class LeastError(Plain):
    """Values beyond a share of the largest magnitude are clipped; the share has the least squared error."""

    ratio: float = 1.0

    def fit(self, x: Tensor, weight: Tensor, code: Code) -> "LeastError":
        """The share for this layer and code."""
        rows = code.rows(x)
        largest = super().limit(rows)
        errors = [(code.round(rows, largest * share) - rows).square().sum().item() for share in SHARES]
        return replace(self, ratio=SHARES[errors.index(min(errors))])

    def limit(self, rows: Tensor) -> Tensor:
        """That share of the largest magnitude."""
        return super().limit(rows) * self.ratio


@dataclass(frozen=True)
class Smooth(Plain):
    """Each channel is divided by its own scale, by which the weight can be multiplied instead."""

    alpha: float = 0.5
    scale: Tensor | None = field(default=None, compare=False, repr=False)

    def fit(self, x: Tensor, weight: Tensor, code: Code) -> "Smooth":
        """`scale`, `[width]`."""
        of_x, of_weight = (values.abs().flatten(0, -2).amax(0).clamp(min=1e-5) for values in (x, weight))
        return replace(self, scale=of_x**self.alpha / of_weight ** (1 - self.alpha))

    def forward(self, x: Tensor) -> tuple[Tensor, Inverse]:
        """Divided by the scale, and multiplied by it."""
        assert self.scale is not None
        scale = self.scale.to(x.dtype)
        return x / scale, lambda z: z * scale


@dataclass(frozen=True)
class Hadamard(Plain):
    """Blocks of n channels are rotated by an orthogonal matrix of ±1/√n; its transpose is the inverse.

    Args:
        factors: the matrix is their Kronecker product: a block takes n · (a + b) products instead of n².
    """

    factors: tuple[Tensor, Tensor] | None = field(default=None, compare=False, repr=False)

    def fit(self, x: Tensor, weight: Tensor, code: Code) -> "Hadamard":
        """`factors`, `[a, a]` and `[b, b]`."""
        first, second = (matrix / len(matrix) ** 0.5 for matrix in hadamard(x.shape[-1]))
        return replace(self, factors=(first.to(x), second.to(x)))

    def forward(self, x: Tensor) -> tuple[Tensor, Inverse]:
        """Rotated, and rotated back."""
        assert self.factors is not None
        first, second = (factor.to(x) for factor in self.factors)
        return _rotate(x, first, second), lambda z: _rotate(z, first.T, second.T)


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
    return torch.from_numpy(sylvester(power)).double(), _paley(base)


def _paley(order: int) -> Tensor:
    """float64 `[order, order]`: order 1, or q + 1 for a prime q = 3 modulo 4 (Paley 1933, construction I)."""
    from scipy.linalg import circulant

    if order == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    q = order - 1
    squares = {value * value % q for value in range(1, q)}
    residues = [0, *(1 if value in squares else -1 for value in range(1, q))]
    matrix = torch.ones(order, order, dtype=torch.float64)
    matrix[1:, 0] = -1
    matrix[1:, 1:] = torch.from_numpy(circulant(residues).T) + torch.eye(q)
    return matrix


@dataclass(frozen=True)
class Compand(Plain):
    """The log curve of `Inward` in units of its knee T; its exact inverse is applied after decoding.

    Args:
        knee: the quantile of the magnitudes that is T; or `BY_ERROR`: T is the share of the token's largest magnitude
            that gives the least squared error if the token has its own scale.
        fixed: one T for the layer, from calibration. Otherwise one for each token, a float sent with its codes.
    """

    knee: float | str = 0.9
    fixed: bool = False
    number: str = field(default="int8", compare=False, repr=False)
    threshold: Tensor | None = field(default=None, compare=False, repr=False)

    def fit(self, x: Tensor, weight: Tensor, code: Code) -> "Compand":
        """`number`, and `threshold` where it is `fixed`."""
        threshold = self._knees(x.reshape(1, -1)).reshape(()) if self.fixed else None
        return replace(self, number=code.number, threshold=threshold)

    def forward(self, x: Tensor) -> tuple[Tensor, Inverse]:
        """Companded, and expanded."""
        knees = self._knees(x) if self.threshold is None else self.threshold.to(x.dtype)
        return compand(x / knees), lambda z: expand(z) * knees

    def _knees(self, x: Tensor) -> Tensor:
        """`[..., 1]`: T of each row; its largest magnitude where a share of more than `knee` of its values is 0."""
        top = x.abs().amax(-1, keepdim=True).clamp(min=SMALLEST_LIMIT)
        if self.knee == BY_ERROR:
            ratio = x.abs() / top
            errors = torch.stack([self._error(ratio, share) for share in SHARES])
            return top * x.new_tensor(SHARES)[errors.argmin(0)]
        knees = kth_smallest(x.abs(), float(self.knee))
        return torch.where(knees > 0, knees, top).clamp(min=SMALLEST_LIMIT)

    def _error(self, ratio: Tensor, share: float) -> Tensor:
        """`[..., 1]`: squared error of magnitudes if T is `share`; both in units of the row's largest.

        Decoded values are looked up: twice as fast as a logarithm, a rounding and an exponential of each value.
        """
        steps = LARGEST_NUMBER[self.number] + 1
        codes = torch.linspace(0, 1 - log(share), steps, dtype=ratio.dtype, device=ratio.device)
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
