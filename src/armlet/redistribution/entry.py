"""The way in: check the arguments, take the values of each scope as a row, let the policy move them, put them back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.functions import part_of_the_way
from armlet.redistribution.noise import Explicit, Noise, Source, source
from armlet.redistribution.rows import Draw, Policy, Rows

SCOPES = ("token", "sequence", "call")


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a tensor.

    Args:
        values: shape, dtype and device of the input.
        moved: bool, same shape: the positions that the policy moved.
        passed: bool, one for each scope: it held NaN or Inf and passed through unchanged.
    """

    values: Tensor
    moved: Tensor
    passed: Tensor


def redistribute(
    a: Tensor,
    policy: Policy,
    *,
    scope: str = "token",
    noise: Source | Tensor = Noise(0),  # noqa: B008 - frozen
    positions: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Redistributes an activated gate: the same shape, dtype and device, nothing changed in place.

    Args:
        a: `[batch, seq, width]`, or `[seq, width]`, or `[width]`; float32, bfloat16, float16 or float64. Statistics
            are computed in float32. Differentiable: statistics and draws are constants to autograd.
        policy: `Outward`, `Inward` or `Transport`.
        scope: over which values statistics are taken: "token" (one row of width), "sequence" (one prompt's real
            tokens in this call) or "call" (the whole tensor).
        noise: `Noise(seed)`, `Noise.fresh()`, `Noise.midpoint()`, or a tensor of uniforms on [0, 1), shaped as `a`.
        positions: integers `[batch, seq]` or `[seq]`: each token's absolute position in its sequence, which keyed
            noise depends on. 0, 1, 2, … by default.
        mask: `[batch, seq]`, bool or integers: False or 0 for padding, which neither counts nor moves.

    A scope that holds NaN or Inf (in float32) passes through unchanged; an empty tensor is returned as is.

    Raises:
        ArgumentError: wrong dtype, shape, scope, policy or noise.

    Source: arXiv 2510.01032, Section 4, for `Outward`; definitions in docs/equations.md.
    """
    check(a, policy, scope)
    return outcome(a, policy, scope=scope, draw=drawer(a, source(noise), positions), mask=mask).values


def drawer(a: Tensor, noise: Source, positions: Tensor | None, keys: Tensor | None = None) -> Draw:
    """The draws for `a`, made when they are asked for; positions and the shape of the noise are checked at once.

    Raises:
        ArgumentError: positions or a tensor of uniforms do not fit `a`.
    """
    placed = token_positions(a, positions)
    if isinstance(noise, Explicit):
        noise.check(a.shape)
    return lambda: noise.uniforms(a.shape, placed, keys)


def outcome(
    a: Tensor,
    policy: Policy,
    *,
    scope: str,
    draw: Draw,
    mask: Tensor | None = None,
    strength: Tensor | None = None,
) -> Outcome:
    """`redistribute` with what it did; `draw()` gives float32 uniforms of the shape of `a`, where they are needed.

    `strength`, float32 with one number for each scope, takes the place of the policy's.

    Raises:
        ArgumentError: the mask has a wrong shape or dtype.
    """
    mask = _token_mask(a, mask)
    if a.numel() == 0:
        return Outcome(a, torch.zeros_like(a, dtype=torch.bool), torch.zeros(0, dtype=torch.bool, device=a.device))
    shape = _rows_shape(a, scope)
    real = None if mask is None else mask[..., None].expand(a.shape).reshape(shape)
    rows, passed = _finite(a.reshape(shape), real)
    value, moved = policy.move(rows, lambda: draw().reshape(shape))
    moved = moved & ~passed if real is None else moved & ~passed & real
    value, moved = _part_of_the_way(rows.values, value, moved, policy.strength if strength is None else strength)
    largest = torch.finfo(a.dtype).max  # a finite value stays finite, also where float16 ends at 65,504
    values = torch.where(moved.view(a.shape), value.clamp(-largest, largest).to(a.dtype).view(a.shape), a)
    return Outcome(values, moved.view(a.shape), passed.view(-1))


def check(a: Tensor, policy: Policy, scope: str) -> None:
    """Refuses what cannot be redistributed.

    Raises:
        ArgumentError: `a` is no floating-point tensor with a width, or policy or scope are none that exist.
    """
    if not isinstance(a, Tensor) or not a.is_floating_point() or a.dim() == 0:
        found = f"{a.dtype} {list(a.shape)}" if isinstance(a, Tensor) else type(a).__name__
        raise ArgumentError(f"redistribute: expected a floating-point tensor [batch, seq, width], found {found}")
    check_policy(policy, scope)


def check_policy(policy: Policy, scope: str) -> None:
    """Refuses a policy or a scope that does not exist.

    Raises:
        ArgumentError: says what was found and what there is.
    """
    if isinstance(policy, type) or not callable(getattr(policy, "move", None)):
        raise ArgumentError(f"policy: expected Outward(...), Inward(...) or Transport(...), found {policy!r}")
    if scope not in SCOPES:
        raise ArgumentError(f"scope: expected one of {', '.join(SCOPES)}, found {scope!r}")


def token_positions(a: Tensor, positions: Tensor | None) -> Tensor:
    """int64 that broadcasts to `a.shape[:-1]`: the given positions, or 0, 1, 2, … along the sequence.

    Raises:
        ArgumentError: positions are no integers, or do not fit the tokens.
    """
    tokens = a.shape[:-1]
    if positions is None:
        return torch.arange(tokens[-1] if tokens else 1, device=a.device).view(tokens[-1:])
    if not isinstance(positions, Tensor) or positions.is_floating_point() or positions.dtype == torch.bool:
        raise ArgumentError(f"positions: expected integers of shape {list(tokens)}, found {_found(positions)}")
    if positions.shape not in (tokens, tokens[-1:]) and not (len(tokens) == 2 and positions.shape == (1, tokens[1])):
        raise ArgumentError(
            f"positions: expected shape {list(tokens)} or {list(tokens[-1:])}, found {_found(positions)}"
        )
    return positions.to(a.device, torch.int64)


def _token_mask(a: Tensor, mask: Tensor | None) -> Tensor | None:
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.is_floating_point() or mask.shape != a.shape[:-1]:
        wanted = f"bool or integers of shape {list(a.shape[:-1])}"
        raise ArgumentError(f"mask: expected {wanted} (one for each token, 0 for padding), found {_found(mask)}")
    return mask.to(a.device) != 0


def _found(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else repr(value)


def _part_of_the_way(start: Tensor, end: Tensor, moved: Tensor, strength: float | Tensor) -> tuple[Tensor, Tensor]:
    """Where values are at `strength`, and which moved: none at 0, and at 1 the whole way without rounding."""
    if isinstance(strength, Tensor):
        weight = strength.view(-1, 1).to(start.dtype)
        return torch.where(weight == 1, end, part_of_the_way(start, end, weight)), moved & (weight > 0)
    if strength == 0:
        return end, torch.zeros_like(moved)
    return (part_of_the_way(start, end, strength) if strength < 1 else end), moved


def _rows_shape(a: Tensor, scope: str) -> tuple[int, int]:
    """One row for each scope; a tensor without a batch dimension is one sequence."""
    count = {"token": a.shape[:-1].numel(), "sequence": a.shape[:-2].numel(), "call": 1}[scope]
    return count, a.numel() // count


def _finite(values: Tensor, real: Tensor | None) -> tuple[Rows, Tensor]:
    """The rows without NaN and Inf, and `[rows, 1]` which of them held one.

    A row without a real value takes its statistics from its padding: nothing in it moves, but no statistic may be
    infinite, since the gradient of the branch that `where` drops would be NaN.
    """
    wide = values if values.dtype == torch.float64 else values.to(torch.float32)
    finite = wide.detach().to(torch.float32).isfinite()
    counted = finite if real is None else finite | ~real
    if real is not None:
        real = real | ~real.any(-1, keepdim=True)
    return Rows(torch.where(finite, wide, 0), real), ~counted.all(-1, keepdim=True)
