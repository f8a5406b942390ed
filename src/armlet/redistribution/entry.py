"""The way in: check the arguments, take the tensor as scopes, have the fastest backend move them."""

import os
from collections.abc import Callable
from functools import lru_cache
from math import prod

import torch
from torch import Tensor
from torch.autograd import forward_ad

from armlet.redistribution.arguments import check as check
from armlet.redistribution.arguments import check_policy as check_policy
from armlet.redistribution.arguments import scopes_shape, token_mask, token_positions
from armlet.redistribution.backends import operator, plain
from armlet.redistribution.backends.choice import backend, row_mover
from armlet.redistribution.backends.plain import Counted
from armlet.redistribution.encoding import encode
from armlet.redistribution.inward import Inward
from armlet.redistribution.noise import WORD, Explicit, Midpoint, Noise, Source, source
from armlet.redistribution.outcome import outcome as outcome
from armlet.redistribution.outward import Outward
from armlet.redistribution.rows import Draw, Policy
from armlet.redistribution.transport import Transport

KEPT_TOKENS = 4096
"""Positions 0, 1, 2, … of calls with no more tokens than this are kept for the next call."""


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
    noise = source(noise)
    if isinstance(noise, Noise) and type(policy) in KNOWN and not watched() and a.numel() == a.shape[-1]:
        row = _kept_row(policy, noise, a.shape[-1], os.environ.get("ARMLET_BACKEND"))
        one = row.move(a, positions, mask)
        if one is not None:
            return one
    return counted(a, policy, scope=scope, noise=noise, positions=positions, mask=mask).values


class OneRow:
    """A single token's row on a short way, where there is one: what does not change between calls is found out once.

    A model that decodes has a row a call, whose statistics take less time than a dozen of PyTorch's calls. Of a single
    row all scopes are the same.

    Args:
        policy: what moves.
        noise: where draws come from; the short way is that of keyed noise.
        width: of the row.
        keys: of `noise.keys`; by default those of layer 0.
        counts: int64 `[4]` on the CPU: calls, tokens, values moved and rows passed so far, which each call adds to.
    """

    def __init__(
        self, policy: Policy, noise: Source, width: int, keys: Tensor | None = None, counts: Tensor | None = None
    ) -> None:
        self.policy, self.noise, self.width, self.keys, self._counts = policy, noise, width, keys, counts
        self._add_to = 0 if counts is None else counts.data_ptr()
        self._mover: tuple[torch.dtype | None, Callable[..., Tensor] | None] = (None, None)

    def move(self, a: Tensor, positions: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """The redistributed row; None where this is not the way.

        Args:
            a: as `redistribute` takes it; what is not for this way is left to that. No compiler follows the call.
            positions: as there.
            mask: as there.

        Raises:
            ArgumentError: positions or mask do not fit `a`.
        """
        if _unusual(a) or _traced() or not a.is_cpu or not a.is_contiguous():
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
        if positions is not None and not _one_position(positions, a.dim()):
            positions = token_positions(a, positions)
        return mover(a, positions, mask if mask is None else token_mask(a, mask), self._add_to)

    def _mover_of(self, dtype: torch.dtype) -> Callable[..., Tensor] | None:
        if not isinstance(self.noise, Noise):
            return None
        keys = _kept_keys(self.noise.seed, self.width, torch.device("cpu")) if self.keys is None else self.keys.cpu()
        return row_mover(self.policy, self.width, dtype, keys, self.noise.stream & WORD)


@lru_cache(16)
def _kept_row(policy: Policy, noise: Source, width: int, _backend: str | None) -> OneRow:
    return OneRow(policy, noise, width)


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
    real = None if mask is None else mask.reshape(shape[:2]).contiguous()
    draws, followed = NO_DRAWS, watched()
    if not isinstance(policy, DRAWS_NOTHING):
        draws = _draws(a, shape[0], noise, positions, keys, kept=not followed)
    values, moved, passed = _moved(rows, policy, draws, real, strength, followed)
    return Counted(values if values.shape == a.shape else values.view(a.shape), moved, passed)


Draws = tuple[Tensor | None, Tensor | None, int, Tensor | None]
NO_DRAWS: Draws = (None, None, 0, None)
DRAWS_NOTHING = (Inward, Transport)
KNOWN = (Outward, Inward, Transport)


def _moved(
    rows: Tensor, policy: Policy, draws: Draws, real: Tensor | None, strength: Tensor | None, followed: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """By the backend itself where nothing looks on; else by the operator, or by plain PyTorch."""
    keys, positions, stream, uniforms = draws
    known = type(policy) in KNOWN
    mover = plain if followed or not known or _unusual(rows) else backend(rows, policy)
    differentiated = torch.is_grad_enabled() and rows.requires_grad
    if known and (followed or (differentiated and mover is not plain)):
        settings = encode(policy)  # type: ignore[arg-type]
        return operator.redistribute(rows, *settings, keys, positions, stream, uniforms, real, strength)
    how = {"keys": keys, "positions": positions, "stream": stream}
    return mover.move_rows(rows, policy, **how, uniforms=uniforms, real=real, strength=strength)


def _one_position(positions: object, dim: int) -> bool:
    """Whether it needs no `token_positions` beside the one row of a tensor of so many dimensions."""
    if type(positions) is not Tensor or positions.dtype is not torch.int64 or not positions.is_cpu:
        return False
    return positions.numel() == 1 and positions.dim() == dim - 1 > 0


# Looked up once: a model that decodes asks for each row, and finds what it asks for out of every cache.
_dispatch_depth, _tracing_state = torch._C._len_torch_dispatch_stack, torch._C._get_tracing_state
_transform = torch._C._functorch.peek_interpreter_stack  # pyright: ignore[reportAttributeAccessIssue]


def watched() -> bool:
    """Whether a compiler, an exporter, a tracer or another mode follows each operation."""
    return torch.compiler.is_compiling() or _traced()


def _traced() -> bool:
    return _dispatch_depth() > 0 or _tracing_state() is not None


def _unusual(rows: Tensor) -> bool:
    """Whether there is more to a tensor than its numbers: a class, a sign, a transform, forward derivatives."""
    if type(rows) is not Tensor or rows.is_neg():
        return True
    return _transform() is not None or forward_ad._current_level >= 0


def _draws(
    a: Tensor, scopes: int, noise: Source, positions: Tensor | None, keys: Tensor | None, *, kept: bool
) -> Draws:
    """What `move_rows` takes: keys, positions and stream, or uniforms, or nothing for ½."""
    if isinstance(noise, Noise):
        if keys is None:
            keys = _kept_keys(noise.seed, a.shape[-1], a.device) if kept else operator.keys_for(a, _signed(noise.seed))
        elif keys.device != a.device:
            keys = keys.to(a.device)
        return keys, _placed(a.shape[:-1], a.device, scopes, positions, kept), noise.stream & WORD, None
    if isinstance(noise, Midpoint):
        return NO_DRAWS
    uniforms = noise.uniforms(a.shape, token_positions(a, positions))
    return None, None, 0, uniforms.contiguous().view(scopes, -1, a.shape[-1])


def _placed(tokens: torch.Size, device: torch.device, scopes: int, positions: Tensor | None, kept: bool) -> Tensor:
    """int64 `[scopes, tokens]`, contiguous."""
    if positions is None:
        kept = kept and prod(tokens) <= KEPT_TOKENS
        return (_kept_counting if kept else _counting)(tokens, device, scopes)
    shape = (scopes, prod(tokens) // scopes)  # numel() would pin sizes that a compiler leaves open
    return positions.expand(tokens).contiguous().view(shape) if positions.shape != shape else positions.contiguous()


def _counting(tokens: torch.Size, device: torch.device, scopes: int) -> Tensor:
    """0, 1, 2, … along each sequence."""
    return (
        torch.arange(tokens[-1] if tokens else 1, device=device).expand(tokens or (1,)).reshape(scopes, -1).contiguous()
    )


def _signed(seed: int) -> int:
    """The int64 of the same lowest 64 bits."""
    return (seed + 2**63) % 2**64 - 2**63


# What is made in inference mode could not be kept for a call with autograd.
@lru_cache(16)
def _kept_counting(tokens: torch.Size, device: torch.device, scopes: int) -> Tensor:
    with torch.inference_mode(False):
        return _counting(tokens, device, scopes)


@lru_cache(16)
def _kept_keys(seed: int, width: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return Noise(seed).keys(width).to(device)


def drawer(a: Tensor, noise: Source, positions: Tensor | None, keys: Tensor | None = None) -> Draw:
    """The draws for `a`, made when they are asked for; positions and the shape of the noise are checked at once.

    Raises:
        ArgumentError: positions or a tensor of uniforms do not fit `a`.
    """
    placed = token_positions(a, positions)
    if isinstance(noise, Explicit):
        noise.check(a.shape)
    return lambda: noise.uniforms(a.shape, placed, keys)
