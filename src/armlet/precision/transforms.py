"""What is done around a code at the input of down: nothing, clipping, SmoothQuant, a rotation, a companding curve.

Each is fitted to calibration values, then takes values there and back. All are written for this comparison, in plain
torch: the libraries that have them change whole models and quantise weights as well.

| name | there | back | source |
| --- | --- | --- | --- |
| `Plain` | x | z | round to nearest |
| `Percentile` | x, the range ends at a quantile of the magnitudes | z | calibration in TensorRT |
| `LeastError` | x, the range is the one of least mean squared error | z | the usual MSE observer |
| `Smooth` | x / s, s = max|x|^α / max|W|^(1−α) by channel | z · s | arXiv 2211.10438 |
| `Hadamard` | x · H by blocks, H orthogonal | z · Hᵀ | arXiv 2404.00456 |
| `Compand` | sign(x) · (r, or 1 + ln r where r = |x|/T > 1) | sign(z) · T · (|z|, or exp(|z| − 1)) | `Inward`, G.711 |

Of `Smooth` and `Hadamard` the way back folds into the weight of down: W·(z·s) = (W·s)·z, so that an integer product
can take z itself. `Compand` is no linear map and has to be expanded before the product.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import log, prod
from typing import ClassVar

import torch
from torch import Tensor

from armlet.precision.codes import LARGEST, SMALLEST, Code, kth

Back = Callable[[Tensor], Tensor]

SHARES = tuple(2 ** (-step / 2) for step in range(16))
"""Of the largest magnitude: what `LeastError` tries for the range, and `Compand` for the knee."""

BY_ERROR = "by error"
"""The knee of `Compand` that each token chooses."""


@dataclass(frozen=True)
class Plain:
    """Round to nearest: the range ends at the largest magnitude.

    Every other transform has these methods too; fields without a default number are fitted.
    """

    name: ClassVar[str] = "round to nearest"

    def fit(self, x: Tensor, weight: Tensor, code: Code) -> "Plain":
        """Itself with what calibration says.

        Args:
            x: `[windows, seq, width]`, the input of one down.
            weight: `[d_model, width]`, of that down.
            code: in which its output will be rounded.
        """
        return self

    def there(self, x: Tensor) -> tuple[Tensor, Back]:
        """`[batch, seq, width]` → what is coded, and the way back from it."""
        return x, lambda z: z

    def limit(self, rows: Tensor) -> Tensor:
        """`[rows, n]` → `[rows, 1]`: where the range of each row ends."""
        return rows.abs().amax(-1, keepdim=True)


@dataclass(frozen=True)
class Percentile(Plain):
    """Values beyond a quantile of the magnitudes are clipped to it."""

    share: float = 0.999
    name: ClassVar[str] = "percentile clip"

    def limit(self, rows: Tensor) -> Tensor:
        """The k-th smallest magnitude."""
        return kth(rows.abs(), self.share)


@dataclass(frozen=True)
class LeastError(Plain):
    """Values beyond a share of the largest magnitude are clipped; the share has the least squared error."""

    ratio: float = 1.0
    name: ClassVar[str] = "MSE clip"

    def fit(self, x: Tensor, weight: Tensor, code: Code) -> "LeastError":
        """The share for this layer and code."""
        rows = code.rows(x)
        ends = super().limit(rows)
        errors = [(code.round(rows, ends * share) - rows).square().sum().item() for share in SHARES]
        return replace(self, ratio=SHARES[errors.index(min(errors))])

    def limit(self, rows: Tensor) -> Tensor:
        """That share of the largest magnitude."""
        return super().limit(rows) * self.ratio


@dataclass(frozen=True)
class Smooth(Plain):
    """Channels divided by a scale of their own, which the weight takes up."""

    alpha: float = 0.5
    scale: Tensor | None = field(default=None, compare=False, repr=False)
    name: ClassVar[str] = "SmoothQuant"

    def fit(self, x: Tensor, weight: Tensor, code: Code) -> "Smooth":
        """`scale`, `[width]`."""
        channels, weights = (each.abs().flatten(0, -2).amax(0).clamp(min=1e-5) for each in (x, weight))
        return replace(self, scale=channels**self.alpha / weights ** (1 - self.alpha))

    def there(self, x: Tensor) -> tuple[Tensor, Back]:
        """Divided, and multiplied."""
        assert self.scale is not None
        scale = self.scale.to(x.dtype)
        return x / scale, lambda z: z * scale


@dataclass(frozen=True)
class Hadamard(Plain):
    """Blocks of channels rotated by an orthogonal matrix of ±1/√n, undone by its transpose.

    Args:
        factors: whose Kronecker product the matrix is: a block takes n · (a + b) products by them, and n² by it.
    """

    factors: tuple[Tensor, Tensor] | None = field(default=None, compare=False, repr=False)
    name: ClassVar[str] = "Hadamard rotation"

    def fit(self, x: Tensor, weight: Tensor, code: Code) -> "Hadamard":
        """`factors`, `[a, a]` and `[b, b]`."""
        first, second = (each / len(each) ** 0.5 for each in hadamard(x.shape[-1]))
        return replace(self, factors=(first.to(x), second.to(x)))

    def there(self, x: Tensor) -> tuple[Tensor, Back]:
        """Rotated, and rotated back."""
        assert self.factors is not None
        first, second = (each.to(x) for each in self.factors)
        return _rotate(x, first, second), lambda z: _rotate(z, first.T, second.T)


def _rotate(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Each block, a row vector, times first ⊗ second."""
    blocks = x.unflatten(-1, (-1, len(first), len(second)))
    return (first.T @ blocks @ second).flatten(-3)


def hadamard(width: int) -> tuple[Tensor, Tensor]:
    """Two float64 matrices of ±1 with orthogonal rows, `[a, a]` and `[b, b]`, as is their Kronecker product.

    a · b divides `width`, and is the largest that does with a power of 2 for a, and 1, 12 or 20 for b.
    """
    from scipy.linalg import hadamard as sylvester

    factors = [(2**power, base) for base in (1, 12, 20) for power in range(width.bit_length())]
    power, base = max((each for each in factors if width % prod(each) == 0), key=prod)
    return torch.from_numpy(sylvester(power)).double(), _paley(base)


def _paley(order: int) -> Tensor:
    """float64 `[order, order]`: order 1, or one above a prime that leaves 3 modulo 4 (Paley 1933, construction I)."""
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
    """The log curve of `Inward` in units of its knee T, undone by the exact inverse behind the code.

    Args:
        knee: the quantile of the magnitudes at which T lies; or `BY_ERROR`: T is a share of the token's largest
            magnitude, the one with the least squared error if the token has a scale of its own.
        fixed: T is the layer's own, from calibration. Otherwise it is each token's, a float sent beside its codes.
    """

    knee: float | str = 0.9
    fixed: bool = False
    number: str = field(default="int8", compare=False, repr=False)
    threshold: Tensor | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]: read alone, as a class's own would be
        """Where T comes from decides what is sent beside the codes, and so is part of the name."""
        return "compand, static knee" if self.fixed else "compand"

    def fit(self, x: Tensor, weight: Tensor, code: Code) -> "Compand":
        """`number`, and `threshold` where it is the layer's own."""
        threshold = self._knees(x.reshape(1, -1)).reshape(()) if self.fixed else None
        return replace(self, number=code.number, threshold=threshold)

    def there(self, x: Tensor) -> tuple[Tensor, Back]:
        """Companded, and expanded."""
        knees = self._knees(x) if self.threshold is None else self.threshold.to(x.dtype)
        return compand(x / knees), lambda z: expand(z) * knees

    def _knees(self, x: Tensor) -> Tensor:
        """`[..., 1]`: T of each row; its largest magnitude where more than `knee` of its values are 0."""
        top = x.abs().amax(-1, keepdim=True).clamp(min=SMALLEST)
        if self.knee == BY_ERROR:
            ratio = x.abs() / top
            errors = torch.stack([self._error(ratio, share) for share in SHARES])
            return top * x.new_tensor(SHARES)[errors.argmin(0)]
        knees = kth(x.abs(), float(self.knee))
        return torch.where(knees > 0, knees, top).clamp(min=SMALLEST)

    def _error(self, ratio: Tensor, share: float) -> Tensor:
        """`[..., 1]`: squared error of magnitudes, if T is `share`; both in units of the row's largest.

        What comes back is looked up: twice as fast as a logarithm, a rounding and an exponential of each value.
        """
        codes = torch.linspace(0, 1 - log(share), LARGEST[self.number] + 1, dtype=ratio.dtype, device=ratio.device)
        levels, ends = expand(codes) * share, expand((codes[1:] + codes[:-1]) / 2) * share
        return (levels[torch.bucketize(ratio, ends)] - ratio).square().sum(-1, keepdim=True)


def compand(ratio: Tensor) -> Tensor:
    """`Inward.compand(ratio, 1)` in the dtype of `ratio`: a code rounds far more coarsely than float32's logarithm."""
    magnitude = ratio.abs()
    return torch.where(magnitude > 1, ratio.sign() * (1 + magnitude.clamp(min=1).log()), ratio)


def expand(z: Tensor) -> Tensor:
    """`Inward.expand(z, 1)` in the dtype of `z`."""
    magnitude = z.abs()
    return torch.where(magnitude > 1, z.sign() * (magnitude.clamp(min=1) - 1).exp(), z)
