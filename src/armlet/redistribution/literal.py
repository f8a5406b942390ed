"""Section 4 of arXiv 2510.01032 as it is written, in plain PyTorch: what `Outward` is compared with, in time only."""

import torch
from torch import Tensor

from armlet.redistribution.order import MAD_TO_SIGMA

PAPER_SHARE, PAPER_CEILING = (0.02, 0.25), 0.995
"""The paper's p_min and p_max, and its p1, as fractions."""


def literal(a: Tensor, *, band: float = 0.13) -> Tensor:
    """Section 4 of arXiv 2510.01032 in plain PyTorch, for a float32 gate of any shape; `band` is the paper's c.

    Statistics are taken over the whole tensor, and the global generator draws.
    """
    values = a.flatten()
    magnitude = values.abs()
    deviation = (magnitude - magnitude.median()).abs().median()
    share = (magnitude < MAD_TO_SIGMA * deviation * band).float().mean().clamp(*PAPER_SHARE)
    near = magnitude.topk(max(1, round(float(share) * len(values))), largest=False, sorted=False).indices
    upper, lower = _quantile(values, PAPER_CEILING), values.min().abs()
    chosen = values[near]
    moved = values.clone()
    moved[near] = torch.where(chosen >= 0, upper, -lower) * torch.rand_like(chosen)
    return moved.view_as(a)


def _quantile(values: Tensor, q: float) -> Tensor:
    """The same as `torch.quantile`, which is limited to 16 million values."""
    ascending, index = values.sort().values, q * (len(values) - 1)
    low = int(index)
    return torch.lerp(ascending[low], ascending[min(low + 1, len(values) - 1)], index - low)
