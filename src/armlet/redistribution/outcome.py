"""The definition of redistribution: scopes become rows, the policy moves their values, and the shape is restored."""

from dataclasses import dataclass

import torch
from torch import Tensor

from armlet.redistribution.arguments import scopes_shape, token_mask, token_positions
from armlet.redistribution.built_in import BUILT_IN_POLICIES
from armlet.redistribution.conduct import moved_by
from armlet.redistribution.functions import part_of_the_way
from armlet.redistribution.noise import Explicit, Source
from armlet.redistribution.rows import Draw, Policy, Rows, all_below_infinity, cheaply_true


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of redistributing a tensor.

    Args:
        values: the new values, with shape, dtype and device of the input.
        moved: bool of the same shape: True for values that the policy moved.
        passed: bool, one per scope: True if it had NaN or Inf, or a user's policy made some of it, and it passed
            through unchanged.
    """

    values: Tensor
    moved: Tensor
    passed: Tensor


def outcome(
    a: Tensor, policy: Policy, *, scope: str, draw: Draw, mask: Tensor | None = None, strength: Tensor | None = None
) -> Outcome:
    """Redistributes `a`; calls `draw()` for float32 uniforms of the shape of `a` only if the policy needs them.

    `strength`, float32 with one number per scope, overrides the policy's strength. Raises ArgumentError for an invalid
    mask.
    """
    mask = token_mask(a, mask)
    if a.numel() == 0:
        return Outcome(a, torch.zeros_like(a, dtype=torch.bool), torch.zeros(0, dtype=torch.bool, device=a.device))
    scopes, tokens, width = scopes_shape(a, scope)
    shape = (scopes, tokens * width)
    valid = None if mask is None else mask[..., None].expand(a.shape).reshape(shape)
    rows, passed = _finite_rows(a.reshape(shape), valid)
    rows = Rows(rows.values, None) if tokens == 1 and valid is not None else rows  # rows are all valid or all padding
    value, moved = moved_by(policy, rows, lambda: draw().reshape(shape))
    if type(policy) not in BUILT_IN_POLICIES:
        passed = _with_not_finite(value, moved if valid is None else moved & valid, passed)
    for movable in (valid, None if passed is None else ~passed):
        moved = moved if movable is None else moved & movable
    value, moved = _moved_by_strength(rows.values, value, moved, policy.strength if strength is None else strength)
    largest = torch.finfo(a.dtype).max  # finite values stay finite, also in float16, which ends at 65,504
    value, moved = value.clamp(-largest, largest).to(a.dtype).view(a.shape), moved.view(a.shape)
    passed = torch.zeros(scopes, dtype=torch.bool, device=a.device) if passed is None else passed.view(-1)
    return Outcome(torch.where(moved, value, a), moved, passed)


def _with_not_finite(value: Tensor, moved: Tensor, passed: Tensor | None) -> Tensor:
    """`[rows, 1]`: which rows pass through unchanged, with those of which a policy makes NaN or Inf."""
    wrong = (moved & ~value.isfinite()).any(-1, keepdim=True)
    return wrong if passed is None else passed | wrong


def drawer(a: Tensor, noise: Source, positions: Tensor | None, keys: Tensor | None = None) -> Draw:
    """Returns a function that draws uniforms for `a`; raises ArgumentError for invalid positions or uniforms."""
    positions = token_positions(a, positions)
    if isinstance(noise, Explicit):
        noise.check(a.shape)
    return lambda: noise.uniforms(a.shape, positions, keys)


def _moved_by_strength(start: Tensor, end: Tensor, moved: Tensor, strength: float | Tensor) -> tuple[Tensor, Tensor]:
    """Returns the values at `strength`, and which moved: none at 0; at 1 the values are `end`, not rounded again."""
    if isinstance(strength, Tensor):
        weight = strength.view(-1, 1).to(start.dtype)
        return torch.where(weight == 1, end, part_of_the_way(start, end, weight)), moved & (weight > 0)
    if strength == 0:
        return end, torch.zeros_like(moved)
    return (part_of_the_way(start, end, strength) if strength < 1 else end), moved


def _finite_rows(values: Tensor, valid: Tensor | None) -> tuple[Rows, Tensor | None]:
    """Returns rows with 0 for NaN and Inf, and `[rows, 1]` which rows had one, or None if it is certain that none had.

    The statistics of a row without valid values are computed from its padding. Nothing in it moves, but an infinite
    statistic would make the gradient of the branch that `where` drops NaN.
    """
    rows = Rows(values if values.dtype == torch.float64 else values.to(torch.float32), None)
    if valid is None and cheaply_true(rows.magnitude, all_below_infinity):
        return rows, None
    finite = rows.magnitude < torch.inf
    usable = finite if valid is None else finite | ~valid
    if valid is not None:
        valid = valid | ~valid.any(-1, keepdim=True)
    return Rows(torch.where(finite, rows.values, 0), valid), ~usable.all(-1, keepdim=True)
