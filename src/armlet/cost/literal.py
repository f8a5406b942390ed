"""ARM exactly as in the paper's Section 4, over the whole tensor in plain PyTorch: the yardstick of `armlet bench`."""

import torch
from torch import Tensor

from armlet.redistribution.order import MAD_TO_SIGMA

SHARE, CEILING = (0.02, 0.25), 0.995
"""The paper's p_min and p_max, and its p1, as fractions."""


def literal(a: Tensor, *, band: float = 0.13) -> Tensor:
    """One call of arXiv 2510.01032's algorithm: statistics of the whole tensor, draws from the global generator.

    Args:
        a: float32 of any shape; the activated gate.
        band: the paper's c.
    """
    values = a.flatten()
    magnitude = values.abs()
    deviation = (magnitude - magnitude.median()).abs().median()
    share = (magnitude < MAD_TO_SIGMA * deviation * band).float().mean().clamp(*SHARE)
    near = magnitude.topk(max(1, round(float(share) * len(values))), largest=False, sorted=False).indices
    upper, lower = _quantile(values, CEILING), values.min().abs()
    chosen = values[near]
    bound = torch.where(chosen >= 0, upper, -lower)
    moved = values.clone()
    moved[near] = bound * torch.rand_like(chosen)
    return moved.view_as(a)


def _quantile(values: Tensor, q: float) -> Tensor:
    """By sorting, like `torch.quantile`, which is limited to 16 million values."""
    ascending, at = values.sort().values, q * (len(values) - 1)
    low = int(at)
    return torch.lerp(ascending[low], ascending[min(low + 1, len(values) - 1)], at - low)
