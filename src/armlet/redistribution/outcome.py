"""What redistribution means: the values of each scope as a row, the policy moves them, and they are put back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from armlet.redistribution.arguments import scopes_shape, token_mask, token_positions
from armlet.redistribution.functions import part_of_the_way
from armlet.redistribution.noise import Explicit, Source
from armlet.redistribution.rows import Draw, Policy, Rows, finite, known


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a tensor.

    Args:
        values: shape, dtype and device of the input.
        moved: bool, same shape: the positions that the policy moved.
        passed: bool, one for each scope: it had NaN or Inf and passed through unchanged.
    """

    values: Tensor
    moved: Tensor
    passed: Tensor


def outcome(
    a: Tensor, policy: Policy, *, scope: str, draw: Draw, mask: Tensor | None = None, strength: Tensor | None = None
) -> Outcome:
    """`redistribute` with what it did; `draw()` gives float32 uniforms of the shape of `a`, where they are needed.

    `strength`, float32 with one number for each scope, takes the place of the policy's. A mask that does not fit is an
    `ArgumentError`.
    """
    mask = token_mask(a, mask)
    if a.numel() == 0:
        return Outcome(a, torch.zeros_like(a, dtype=torch.bool), torch.zeros(0, dtype=torch.bool, device=a.device))
    scopes, tokens, width = scopes_shape(a, scope)
    shape = (scopes, tokens * width)
    real = None if mask is None else mask[..., None].expand(a.shape).reshape(shape)
    rows, passed = _finite_rows(a.reshape(shape), real)
    rows = Rows(rows.values, None) if tokens == 1 and real is not None else rows  # all of a row is real, or padding
    value, moved = policy.move(rows, lambda: draw().reshape(shape))
    for counts in (real, None if passed is None else ~passed):
        moved = moved if counts is None else moved & counts
    value, moved = _moved_by_strength(rows.values, value, moved, policy.strength if strength is None else strength)
    largest = torch.finfo(a.dtype).max  # a finite value stays finite, also where float16 ends at 65,504
    value, moved = value.clamp(-largest, largest).to(a.dtype).view(a.shape), moved.view(a.shape)
    passed = torch.zeros(scopes, dtype=torch.bool, device=a.device) if passed is None else passed.view(-1)
    return Outcome(torch.where(moved, value, a), moved, passed)


def drawer(a: Tensor, noise: Source, positions: Tensor | None, keys: Tensor | None = None) -> Draw:
    """The draws for `a`, when needed; positions or a tensor of uniforms that do not fit are refused at once."""
    placed = token_positions(a, positions)
    if isinstance(noise, Explicit):
        noise.check(a.shape)
    return lambda: noise.uniforms(a.shape, placed, keys)


def _moved_by_strength(start: Tensor, end: Tensor, moved: Tensor, strength: float | Tensor) -> tuple[Tensor, Tensor]:
    """Where values are at `strength`, and which moved: none at 0, and at 1 the whole way without rounding."""
    if isinstance(strength, Tensor):
        weight = strength.view(-1, 1).to(start.dtype)
        return torch.where(weight == 1, end, part_of_the_way(start, end, weight)), moved & (weight > 0)
    if strength == 0:
        return end, torch.zeros_like(moved)
    return (part_of_the_way(start, end, strength) if strength < 1 else end), moved


def _finite_rows(values: Tensor, real: Tensor | None) -> tuple[Rows, Tensor | None]:
    """The rows with 0 for NaN and Inf, and `[rows, 1]` which had one; None where it is known that none had.

    A row without a real value takes its statistics from its padding: nothing in it moves, but no statistic may be
    infinite, since the gradient of the branch that `where` drops would be NaN.
    """
    rows = Rows(values if values.dtype == torch.float64 else values.to(torch.float32), None)
    if real is None and known(rows.magnitude, finite):
        return rows, None
    numbers = rows.magnitude < torch.inf
    counted = numbers if real is None else numbers | ~real
    if real is not None:
        real = real | ~real.any(-1, keepdim=True)
    return Rows(torch.where(numbers, rows.values, 0), real), ~counted.all(-1, keepdim=True)
