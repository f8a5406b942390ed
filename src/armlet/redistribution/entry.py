"""The entry: checks the arguments, takes the tensor as scopes, and has the fastest backend move them."""

import os
from collections.abc import Callable
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from armlet.redistribution.arguments import check_arguments, scopes_shape, token_mask, token_positions
from armlet.redistribution.backends import operator, plain
from armlet.redistribution.backends.choice import backend, row_mover_for
from armlet.redistribution.backends.interception import intercepted, more_than_numbers, traced
from armlet.redistribution.backends.plain import Counted
from armlet.redistribution.inward import Inward
from armlet.redistribution.noise import WORD, Explicit, Midpoint, Noise, Source, source
from armlet.redistribution.operands import Operands
from armlet.redistribution.outcome import outcome as outcome
from armlet.redistribution.outward import Outward
from armlet.redistribution.rows import Draw, Policy
from armlet.redistribution.transport import Transport

BUILT_IN_POLICIES = (Outward, Inward, Transport)
DRAWS_NOTHING = (Inward, Transport)

CACHED_TOKENS = 4096
"""Default positions of calls with at most so many tokens are cached."""


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
        scope: over which values statistics are taken: "token" (one row of width), "sequence" (one prompt's valid
            tokens in this call) or "call" (the whole tensor).
        noise: `Noise(seed)`, `Noise.fresh()`, `Noise.midpoint()`, or a tensor of uniforms on [0, 1), shaped as `a`.
        positions: integers `[batch, seq]` or `[seq]`: each token's absolute position in its sequence, which keyed
            noise depends on. 0, 1, 2, … by default.
        mask: `[batch, seq]`, bool or integers: False or 0 for padding, which neither counts nor moves.

    A scope with NaN or Inf (in float32) passes through unchanged; an empty tensor is returned as is.

    Raises:
        ArgumentError: wrong dtype, shape, scope, policy or noise.

    Source: arXiv 2510.01032, Section 4, for `Outward`; definitions in docs/equations.md.
    """
    check_arguments(a, policy, scope)
    noise = source(noise)
    if (
        isinstance(noise, Noise)
        and type(policy) in BUILT_IN_POLICIES
        and not intercepted()
        and a.numel() == a.shape[-1]
    ):
        row = _cached_row(policy, noise, a.shape[-1], os.environ.get("ARMLET_BACKEND"))
        values = row.move(a, positions, mask)
        if values is not None:
            return values
    return counted(a, policy, scope=scope, noise=noise, positions=positions, mask=mask).values


class OneRow:
    """The short path of a single token's row: what does not change between calls is prepared once.

    A model that decodes moves one row a call, whose statistics take less time than a dozen of PyTorch's calls. All
    scopes of a single row are the same.

    Args:
        policy: what moves.
        noise: where draws come from; only keyed noise has the short path.
        width: of the row.
        keys: of `noise.keys`; by default those of layer 0.
        counts: int64 `[4]` on the CPU: calls, tokens, values moved and rows passed so far, which each call adds to.
    """

    def __init__(
        self, policy: Policy, noise: Source, width: int, keys: Tensor | None = None, counts: Tensor | None = None
    ) -> None:
        self.policy, self.noise, self.width, self.keys, self._counts = policy, noise, width, keys, counts
        self._counts_address = 0 if counts is None else counts.data_ptr()
        self._mover: tuple[torch.dtype | None, Callable[..., Tensor] | None] = (None, None)

    def move(self, a: Tensor, positions: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """The redistributed row; None where the short path cannot take it, and `counted` has to.

        Args:
            a: as in `redistribute`. The caller knows that no compiler is at work.
            positions: as there.
            mask: as there.

        Raises:
            ArgumentError: positions or mask do not fit `a`.
        """
        if more_than_numbers(a) or traced() or not a.is_cpu or not a.is_contiguous():
            return None
        if a.numel() != self.width or a.dim() == 0 or a.size(-1) != self.width:
            return None
        if a.requires_grad and torch.is_grad_enabled():
            return None
        dtype, mover = self._mover
        if dtype is not a.dtype:
            mover = self._mover_of(a.dtype)
            self._mover = a.dtype, mover
        if mover is None:
            return None
        if positions is not None and not _is_one_position(positions, a.dim()):
            positions = token_positions(a, positions)
        return mover(a, positions, mask if mask is None else token_mask(a, mask), self._counts_address)

    def _mover_of(self, dtype: torch.dtype) -> Callable[..., Tensor] | None:
        if not isinstance(self.noise, Noise):
            return None
        cpu = torch.device("cpu")
        keys = _cached_keys(self.noise.seed, self.width, cpu) if self.keys is None else self.keys.cpu()
        return row_mover_for(self.policy, self.width, dtype, keys, self.noise.stream & WORD)


@lru_cache(16)
def _cached_row(policy: Policy, noise: Source, width: int, _backend: str | None) -> OneRow:
    return OneRow(policy, noise, width)


def _is_one_position(positions: object, dim: int) -> bool:
    """Whether it is the int64 position of the one row of a tensor with `dim` dimensions, and needs no check."""
    if type(positions) is not Tensor or positions.dtype is not torch.int64 or not positions.is_cpu:
        return False
    return positions.numel() == 1 and positions.dim() == dim - 1 > 0


def counted(
    a: Tensor,
    policy: Policy,
    *,
    scope: str,
    noise: Source,
    positions: Tensor | None = None,
    keys: Tensor | None = None,
    mask: Tensor | None = None,
    strength: Tensor | None = None,
) -> Counted:
    """`redistribute` with how many values moved and whether it passed through, for each scope.

    Args:
        a: as in `redistribute`, which has checked it.
        policy: what moves.
        scope: over which values statistics are taken.
        noise: where draws come from.
        positions: as in `redistribute`.
        keys: of `noise.keys`, for keyed noise; by default those of layer 0.
        mask: as in `redistribute`.
        strength: float32, one number for each scope, in place of the policy's.

    Raises:
        ArgumentError: positions, mask or a tensor of uniforms do not fit `a`.
    """
    if positions is not None:
        positions = token_positions(a, positions)
    if isinstance(noise, Explicit):
        noise.check(a.shape)
    mask = token_mask(a, mask)
    if a.numel() == 0:
        none = torch.zeros(0, dtype=torch.int64, device=a.device)
        return Counted(a, none, none.bool())
    shape = scopes_shape(a, scope)
    rows = a if a.is_contiguous() else a.contiguous()
    rows = rows if rows.shape == shape else rows.view(shape)
    mask = None if mask is None else mask.reshape(shape[:2]).contiguous()
    visible = intercepted()
    if isinstance(policy, DRAWS_NOTHING):
        operands = Operands(mask=mask, strength=strength)
    else:
        operands = Operands(*_draws(a, shape[0], noise, positions, keys, cached=not visible), mask, strength)
    values, moved, passed = _moved(rows, policy, operands, visible)
    return Counted(values if values.shape == a.shape else values.view(a.shape), moved, passed)


def _moved(rows: Tensor, policy: Policy, operands: Operands, visible: bool) -> tuple[Tensor, Tensor, Tensor]:
    """By the backend itself, unless the operation has to be `visible`: then by the operator, or by plain PyTorch."""
    built_in = type(policy) in BUILT_IN_POLICIES
    mover = plain if visible or not built_in or more_than_numbers(rows) else backend(rows, policy)
    differentiated = torch.is_grad_enabled() and rows.requires_grad
    if built_in and (visible or (differentiated and mover is not plain)):
        return operator.move_rows_visibly(rows, policy, operands)
    return mover.move_rows(rows, policy, operands)


def _draws(
    a: Tensor, scopes: int, noise: Source, positions: Tensor | None, keys: Tensor | None, *, cached: bool
) -> tuple[Tensor | None, Tensor | None, int, Tensor | None]:
    """The first four of `Operands`: keys, positions and stream, or uniforms, or nothing for ½."""
    if isinstance(noise, Noise):
        if keys is None and cached:
            keys = _cached_keys(noise.seed, a.shape[-1], a.device)
        elif keys is None:
            keys = operator.keys_for(a, _signed_seed(noise.seed))
        elif keys.device != a.device:
            keys = keys.to(a.device)
        placed = _scope_positions(a.shape[:-1], a.device, scopes, positions, cached)
        return keys, placed, noise.stream & WORD, None
    if isinstance(noise, Midpoint):
        return None, None, 0, None
    uniforms = noise.uniforms(a.shape, token_positions(a, positions))
    return None, None, 0, uniforms.contiguous().view(scopes, -1, a.shape[-1])


def _scope_positions(
    tokens: torch.Size, device: torch.device, scopes: int, positions: Tensor | None, cached: bool
) -> Tensor:
    """int64 `[scopes, tokens]`, contiguous."""
    if positions is None:
        cached = cached and prod(tokens) <= CACHED_TOKENS
        return (_cached_default_positions if cached else _default_positions)(tokens, device, scopes)
    shape = (scopes, prod(tokens) // scopes)  # numel() would pin sizes that a compiler leaves open
    return positions.expand(tokens).contiguous().view(shape) if positions.shape != shape else positions.contiguous()


def _default_positions(tokens: torch.Size, device: torch.device, scopes: int) -> Tensor:
    """0, 1, 2, … along each sequence."""
    along = torch.arange(tokens[-1] if tokens else 1, device=device)
    return along.expand(tokens or (1,)).reshape(scopes, -1).contiguous()


def _signed_seed(seed: int) -> int:
    """The int64 of the same lowest 64 bits."""
    return (seed + 2**63) % 2**64 - 2**63


# Tensors from inference mode could not serve a later call with autograd.
@lru_cache(16)
def _cached_default_positions(tokens: torch.Size, device: torch.device, scopes: int) -> Tensor:
    with torch.inference_mode(False):
        return _default_positions(tokens, device, scopes)


@lru_cache(16)
def _cached_keys(seed: int, width: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return Noise(seed).keys(width).to(device)


def drawer(a: Tensor, noise: Source, positions: Tensor | None, keys: Tensor | None = None) -> Draw:
    """The draws for `a`, computed when they are needed; positions and the noise's shape are checked at once.

    Raises:
        ArgumentError: positions or a tensor of uniforms do not fit `a`.
    """
    placed = token_positions(a, positions)
    if isinstance(noise, Explicit):
        noise.check(a.shape)
    return lambda: noise.uniforms(a.shape, placed, keys)
