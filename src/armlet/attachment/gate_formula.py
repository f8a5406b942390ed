"""The formula of gated MLPs with their activation in their code, not in a module: clamps, SiLU or g·σ(αg), up + 1."""

from collections.abc import Callable
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROWS = 64  # of made-up values on which a formula must have the bits of the code


class GateFormula(NamedTuple):
    """What such code computes from gate and up."""

    interleaved: bool  # whether gate and up alternate in `gate_up`
    limit: float
    alpha: float | None

    def factors(self, gate_up: Tensor) -> tuple[Tensor, Tensor]:
        """The activated gate, and what it is multiplied with, `[..., width]` each, from `[..., 2·width]`."""
        gate, up = (gate_up[..., ::2], gate_up[..., 1::2]) if self.interleaved else gate_up.chunk(2, dim=-1)
        gate, up = gate.clamp(max=self.limit), up.clamp(min=-self.limit, max=self.limit)
        return (F.silu(gate), up) if self.alpha is None else (gate * torch.sigmoid(gate * self.alpha), up + 1)


def has_formula(mlp: nn.Module, width: int, product: Callable[[Tensor], Tensor]) -> bool:
    """Whether `product`, the module's code, has the bits of the formula by its attributes.

    product: from `gate_up`, `[ROWS, 2·width]`, to the product `[ROWS, width]`.
    """
    limit, alpha = _numbers(mlp)
    if not isinstance(limit, int | float) or not isinstance(alpha, int | float | None):
        return False
    formula = current_formula(mlp)
    gate_up = made_up(ROWS, width) * 2 * (limit if isfinite(limit) else 1)
    for values in (gate_up, gate_up.bfloat16()):
        activated, other = formula.factors(values)
        if not torch.equal(activated * other, product(values)):
            return False
    return True


def current_formula(mlp: nn.Module) -> GateFormula:
    """The formula of a module of which `has_formula` is true, with its present attributes."""
    return GateFormula(not getattr(mlp, "is_concatenated", True), *_numbers(mlp))


def _numbers(mlp: nn.Module) -> tuple[Any, Any]:
    """The limit and alpha among a module's attributes; None for one that is not there."""
    attributes = vars(mlp)
    limit = attributes.get("limit", attributes.get("swiglu_limit"))
    return limit, attributes.get("alpha", attributes.get("swiglu_alpha"))


def made_up(rows: int, width: int) -> Tensor:
    """Values of gate and up, `[rows, 2·width]`."""
    return torch.randn(rows, 2 * width, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
