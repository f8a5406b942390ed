"""The definition, as a backend: plain PyTorch on any device, dtype and policy, differentiable."""

from typing import NamedTuple

import torch
from torch import Tensor

from armlet.redistribution.inward import Inward
from armlet.redistribution.noise import Explicit, Midpoint, Noise, Source
from armlet.redistribution.operands import Operands
from armlet.redistribution.outcome import outcome
from armlet.redistribution.outward import Outward
from armlet.redistribution.rows import Policy
from armlet.redistribution.transport import Transport

BLOCK = 1 << 18
"""As many values as a core's cache keeps through the dozens of passes over them."""


class Counted(NamedTuple):
    """What became of `[scopes, tokens, width]`.

    Args:
        values: shape, dtype and device of the input.
        moved: int64 `[scopes]`: how many values moved.
        passed: bool `[scopes]`: the scope had NaN or Inf and passed through unchanged.
    """

    values: Tensor
    moved: Tensor
    passed: Tensor


def move_rows(a: Tensor, policy: Policy, operands: Operands) -> Counted:
    """Moves scopes by the policy, as every backend's `move_rows` does.

    Args:
        a: `[scopes, tokens, width]`, contiguous, not empty.
        policy: what moves.
        operands: draws, mask and strength; contiguous.
    """
    independent = type(policy) in (Outward, Inward, Transport)  # another policy may look at all rows together
    if torch.compiler.is_compiling() or not independent or not a.is_cpu or a.numel() <= BLOCK:
        return _move_block(a, policy, operands)
    blocks = a.split(max(1, BLOCK // a[0].numel()))
    parts = operands.split(len(blocks[0]), len(blocks))
    results = [_move_block(block, policy, part) for block, part in zip(blocks, parts, strict=True)]
    return Counted(*(torch.cat(column) for column in zip(*results, strict=True)))


def _move_block(a: Tensor, policy: Policy, operands: Operands) -> Counted:
    source, positions, mask = _source(operands), operands.positions, operands.mask
    placed = torch.zeros((1, 1), dtype=torch.int64, device=a.device) if positions is None else positions
    rows = a.view(len(a), -1) if a.shape[1] == 1 else a  # a token's mask is its row's
    result = outcome(
        rows,
        policy,
        scope="sequence" if rows is a else "token",
        draw=lambda: source.uniforms(a.shape, placed, operands.keys).view(rows.shape),
        mask=mask if rows is a or mask is None else mask.view(-1),
        strength=operands.strength,
    )
    return Counted(result.values.view(a.shape), result.moved.flatten(1).sum(-1), result.passed)


def _source(operands: Operands) -> Source:
    if operands.uniforms is not None:
        return Explicit(operands.uniforms)
    return Midpoint() if operands.keys is None else Noise(stream=operands.stream)
