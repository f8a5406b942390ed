"""`redistribute`: checks the arguments, splits the tensor into scopes, and runs the fastest backend."""

import os
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from armlet.redistribution.arguments import check_arguments, scopes_shape, token_mask, token_positions
from armlet.redistribution.backends import operator
from armlet.redistribution.backends.choice import backend_for
from armlet.redistribution.backends.interception import captured, intercepted, needs_torch_operations, traced
from armlet.redistribution.backends.plain import PLAIN
from armlet.redistribution.built_in import BUILT_IN_POLICIES
from armlet.redistribution.cut import Cut
from armlet.redistribution.inward import Inward
from armlet.redistribution.noise import WORD, Explicit, Midpoint, Noise, Source, source
from armlet.redistribution.operands import BackendResult, Operands
from armlet.redistribution.policies import as_policy
from armlet.redistribution.rows import Policy
from armlet.redistribution.transport import Transport

DETERMINISTIC_POLICIES = (Inward, Transport, Cut)
CACHED_TOKENS = 2**16  # most tokens of a call whose default positions are kept


def redistribute(
    a: Tensor,
    policy: Policy | str,
    *,
    scope: str = "token",
    noise: Source | Tensor = Noise(0),  # noqa: B008 - frozen
    positions: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Redistributes an activated gate; returns the same shape, dtype and device, and changes nothing in place.

    Args:
        a: `[batch, seq, width]`, or `[seq, width]`, or `[width]`; float32, bfloat16, float16 or float64. Statistics
            are computed in float32. Differentiable: statistics and draws are constants to autograd.
        policy: `Outward`, `Inward`, `Transport` or `Cut`, one of your own (docs/howto/own_policy.md), or text as on the
            command line, such as "outward:band=0.2".
        scope: over which values statistics are taken: "token" (one row of width), "sequence" (one prompt's valid
            tokens in this call) or "call" (the whole tensor).
        noise: `Noise(seed)`, `Noise.fresh()`, `Noise.midpoint()`, or a tensor of uniforms on [0, 1), shaped as `a`.
        positions: integers `[batch, seq]` or `[seq]`, by default 0, 1, 2, …: each token's absolute position in its
            sequence. Keyed noise depends on it.
        mask: `[batch, seq]`, bool or integers: False or 0 for padding, which is left out of statistics and unchanged.

    A scope with NaN or Inf (in float32) passes through unchanged, and so does one of which a policy of your own makes
    some; an empty tensor is returned as is.

    Raises:
        ArgumentError: invalid dtype, shape, scope, policy or noise.

    Source: arXiv 2510.01032, Section 4, for `Outward`; definitions in docs/concepts/equations.md.
    """
    policy = as_policy(policy)
    check_arguments(a, policy, scope)
    noise = source(noise)
    single = isinstance(noise, Noise) and type(policy) in BUILT_IN_POLICIES and not intercepted()
    if single and a.numel() == a.shape[-1]:
        row = _cached_row(policy, noise, a.shape[-1], os.environ.get("ARMLET_BACKEND"))
        values = row.move(a, positions, mask)
        if values is not None:
            return values
    return redistribute_with_counts(a, policy, scope=scope, noise=noise, positions=positions, mask=mask).values


class OneRow:
    """The fast path for a single token with keyed noise, for which all scopes are the same.

    During decoding each call moves one row, whose statistics take less time than a dozen PyTorch operations, so
    whatever does not change between calls is prepared once. `keys` come from `noise.keys`, by default for layer 0. Each
    call adds to `counts`, int64 `[4]` on the CPU: calls, tokens, values moved and rows passed through.
    """

    def __init__(
        self, policy: Policy, noise: Source, width: int, keys: Tensor | None = None, counts: Tensor | None = None
    ) -> None:
        self.policy, self.noise, self.width, self.keys, self._counts = policy, noise, width, keys, counts
        self._counts_address = 0 if counts is None else counts.data_ptr()
        self._mover: tuple[torch.dtype | None, Callable[..., Tensor] | None] = (None, None)

    def move(self, a: Tensor, positions: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Moves a row outside a compiler; returns None if this path does not support the tensor."""
        if needs_torch_operations(a) or traced() or not a.is_cpu or not a.is_contiguous():
            return None
        if a.numel() != self.width or a.dim() == 0 or a.size(-1) != self.width:
            return None
        if a.requires_grad and torch.is_grad_enabled():
            return None
        dtype, mover = self._mover
        if dtype is not a.dtype:
            mover = self._mover_for(a)
            self._mover = a.dtype, mover
        if mover is None:
            return None
        if positions is not None and not _is_one_position(positions, a.dim()):
            positions = token_positions(a, positions)
        return mover(a, positions, mask if mask is None else token_mask(a, mask), self._counts_address)

    def _mover_for(self, a: Tensor) -> Callable[..., Tensor] | None:
        if not isinstance(self.noise, Noise):
            return None
        row_mover = backend_for(a.view(1, 1, self.width), self.policy).row_mover
        keys = _cached_keys(self.noise.seed, self.width, a.device) if self.keys is None else self.keys.cpu()
        return row_mover and row_mover(self.policy, self.width, a.dtype, keys, self.noise.stream & WORD)


@lru_cache(16)
def _cached_row(policy: Policy, noise: Source, width: int, _backend: str | None) -> OneRow:
    return OneRow(policy, noise, width)


def _is_one_position(positions: object, dim: int) -> bool:
    """Whether `positions` is one int64 position for a tensor with `dim` dimensions, and needs no further check."""
    if type(positions) is not Tensor or positions.dtype is not torch.int64 or not positions.is_cpu:
        return False
    return positions.numel() == 1 and positions.dim() == dim - 1 > 0


def redistribute_with_counts(
    a: Tensor,
    policy: Policy,
    *,
    scope: str,
    noise: Source,
    positions: Tensor | None = None,
    keys: Tensor | None = None,
    mask: Tensor | None = None,
    strength: Tensor | None = None,
) -> BackendResult:
    """`redistribute`, for a checked tensor, policy and scope, with the counts of each scope.

    `keys`, for keyed noise, come from `noise.keys`, by default for layer 0. `strength`, float32 with one number per
    scope, overrides the policy's strength. The other arguments and errors are as in `redistribute`.
    """
    positions = None if positions is None else token_positions(a, positions)
    if isinstance(noise, Explicit):
        noise.check(a.shape)
    mask = token_mask(a, mask)
    if a.numel() == 0:
        empty = torch.zeros(0, dtype=torch.int64, device=a.device)
        return BackendResult(a, empty, empty.bool())
    shape = scopes_shape(a, scope)
    # A view takes a microsecond, and a step of decoding makes this call in every layer: only where the shape differs.
    rows = a.contiguous() if a.shape == shape else a.contiguous().view(shape)
    mask = None if mask is None else mask.reshape(shape[:2]).contiguous()
    strength = None if strength is None else strength.contiguous()
    deterministic = type(policy) in DETERMINISTIC_POLICIES or isinstance(noise, Midpoint)
    draws = (None, None, 0, None) if deterministic else _draws(a, shape, noise, positions, keys)
    values, moved, passed = _move(rows, policy, Operands(*draws, mask, strength))
    return BackendResult(values if values.shape == a.shape else values.view(a.shape), moved, passed)


def _move(rows: Tensor, policy: Policy, operands: Operands) -> BackendResult:
    """Runs the fastest backend, or an operator if a compiler, tracer, mode or autograd must see the operation."""
    if type(policy) not in BUILT_IN_POLICIES:
        return _move_outside_compiler(rows, policy, operands)
    if intercepted():
        return operator.move_rows_visibly(rows, policy, operands)
    backend = PLAIN if needs_torch_operations(rows) else backend_for(rows, policy)
    visible = backend is not PLAIN and rows.requires_grad and torch.is_grad_enabled()
    return (operator.move_rows_visibly if visible else backend.move_rows)(rows, policy, operands)


def _move_outside_compiler(rows: Tensor, policy: Policy, operands: Operands) -> BackendResult:
    """Runs plain PyTorch outside a compiler, which would round otherwise, so that a value near a threshold may move."""
    # The decorator would load the compiler with `import armlet`; within one it is loaded.
    move = torch.compiler.disable(PLAIN.move_rows) if torch.compiler.is_dynamo_compiling() else PLAIN.move_rows
    return move(rows, policy, operands)  # pyright: ignore[reportCallIssue] - torch types the result as a decorator


def _draws(
    a: Tensor, shape: tuple[int, int, int], noise: Source, positions: Tensor | None, keys: Tensor | None
) -> tuple[Tensor | None, Tensor | None, int, Tensor | None]:
    """The first four fields of `Operands` for `a` as rows of `shape`: keys, positions and stream, or uniforms."""
    if not isinstance(noise, Noise):
        uniforms = noise.uniforms(a.shape, token_positions(a, positions))
        return None, None, 0, uniforms.contiguous().view(shape)
    visible, tokens = intercepted(), shape[:2]
    if keys is None and visible:
        keys = operator.keys_for(a, (noise.seed + 2**63) % 2**64 - 2**63)  # the int64 of the same lowest 64 bits
    elif keys is None:
        keys = _cached_keys(noise.seed, a.shape[-1], a.device)
    elif keys.device != a.device:
        keys = keys.to(a.device)
    # What a CUDA graph captures has no values yet, so no other call may read it.
    kept = not visible and tokens[0] * tokens[1] <= CACHED_TOKENS and not captured(a)
    if positions is None and kept:
        return keys, _cached_positions(a.shape[:-1], tokens, a.device), noise.stream & WORD, None
    positions = token_positions(a, None) if positions is None else positions  # the caller has checked them
    if positions.shape != tokens:
        positions = positions.expand(a.shape[:-1]).contiguous().view(tokens)
    return keys, positions.contiguous(), noise.stream & WORD, None


# Tensors made in inference mode could not serve a later call with autograd.
@lru_cache(16)
def _cached_positions(sequences: torch.Size, tokens: tuple[int, int], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        along = torch.arange(sequences[-1] if sequences else 1, device=device)
        return along.expand(sequences or (1,)).reshape(tokens).contiguous()


@lru_cache(16)
def _cached_keys(seed: int, width: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return Noise(seed).keys(width).to(device)
