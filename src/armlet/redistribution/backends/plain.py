"""The meaning, as a backend: plain PyTorch on any device, dtype and policy, differentiable."""

from typing import NamedTuple

import torch
from torch import Tensor

from armlet.redistribution.inward import Inward
from armlet.redistribution.noise import Explicit, Midpoint, Noise, Source
from armlet.redistribution.outcome import outcome
from armlet.redistribution.outward import Outward
from armlet.redistribution.rows import Policy
from armlet.redistribution.transport import Transport

BLOCK = 1 << 18
"""So many values at a time keep the dozens of passes over them in a core's cache."""


class Counted(NamedTuple):
    """What became of `[scopes, tokens, width]`.

    Args:
        values: shape, dtype and device of the input.
        moved: int64 `[scopes]`: how many values moved.
        passed: bool `[scopes]`: it held NaN or Inf and passed through unchanged.
    """

    values: Tensor
    moved: Tensor
    passed: Tensor


def move_rows(
    a: Tensor,
    policy: Policy,
    *,
    keys: Tensor | None = None,
    positions: Tensor | None = None,
    stream: int = 0,
    uniforms: Tensor | None = None,
    real: Tensor | None = None,
    strength: Tensor | None = None,
) -> Counted:
    """Scopes moved by the policy: what every backend's `move_rows` does.

    Args:
        a: `[scopes, tokens, width]`, contiguous, not empty.
        policy: what moves.
        keys: int64 `[3, width]`, of `Noise.keys`; without keys and `uniforms` every draw is ½.
        positions: int64 `[scopes, tokens]`, contiguous: the tokens' absolute positions, with `keys`.
        stream: of the keyed noise.
        uniforms: float32 `[scopes, tokens, width]`, contiguous: other draws.
        real: bool `[scopes, tokens]`, contiguous; False: the token neither counts nor moves.
        strength: float32 `[scopes]`, contiguous: in place of the policy's.
    """
    alone = type(policy) in (Outward, Inward, Transport)  # another policy may look at all rows together
    if torch.compiler.is_compiling() or not alone or not a.is_cpu or a.numel() <= BLOCK:
        return _move_block(a, positions, uniforms, real, strength, policy=policy, keys=keys, stream=stream)
    parts = a.split(max(1, BLOCK // a[0].numel()))
    given = (positions, uniforms, real, strength)
    columns = [[None] * len(parts) if tensor is None else tensor.split(len(parts[0])) for tensor in given]
    blocks = [
        _move_block(*block, policy=policy, keys=keys, stream=stream) for block in zip(parts, *columns, strict=True)
    ]
    return Counted(*(torch.cat(column) for column in zip(*blocks, strict=True)))


def _move_block(
    a: Tensor,
    positions: Tensor | None,
    uniforms: Tensor | None,
    real: Tensor | None,
    strength: Tensor | None,
    *,
    policy: Policy,
    keys: Tensor | None,
    stream: int,
) -> Counted:
    source = _source(keys, stream, uniforms)
    placed = torch.zeros((1, 1), dtype=torch.int64, device=a.device) if positions is None else positions
    rows = a.view(len(a), -1) if a.shape[1] == 1 else a  # a token's mask is its row's
    result = outcome(
        rows,
        policy,
        scope="sequence" if rows is a else "token",
        draw=lambda: source.uniforms(a.shape, placed, keys).view(rows.shape),
        mask=real if rows is a or real is None else real.view(-1),
        strength=strength,
    )
    return Counted(result.values.view(a.shape), result.moved.flatten(1).sum(-1), result.passed)


def _source(keys: Tensor | None, stream: int, uniforms: Tensor | None) -> Source:
    if uniforms is not None:
        return Explicit(uniforms)
    return Midpoint() if keys is None else Noise(stream=stream)
