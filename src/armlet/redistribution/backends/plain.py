"""The definition as a differentiable backend: plain PyTorch for any device, dtype and policy."""

import torch
from torch import Tensor

from armlet.redistribution.built_in import BUILT_IN_POLICIES
from armlet.redistribution.noise import Noise
from armlet.redistribution.operands import Backend, BackendResult, Operands
from armlet.redistribution.outcome import outcome
from armlet.redistribution.rows import Policy

BLOCK = 1 << 18
"""The number of values that stay in a core's cache during the dozens of passes over them."""


def _move_in_blocks(a: Tensor, policy: Policy, operands: Operands) -> BackendResult:
    independent = type(policy) in BUILT_IN_POLICIES  # a user's may round sums otherwise in other blocks
    if torch.compiler.is_compiling() or not independent or not a.is_cpu or a.numel() <= BLOCK:
        return _move_block(a, policy, operands)
    blocks = a.split(max(1, BLOCK // a[0].numel()))
    parts = operands.split(len(blocks[0]), len(blocks))
    results = [_move_block(block, policy, part) for block, part in zip(blocks, parts, strict=True)]
    return BackendResult(*(torch.cat(column) for column in zip(*results, strict=True)))


def _move_block(a: Tensor, policy: Policy, operands: Operands) -> BackendResult:
    mask, strength = operands.mask, operands.strength
    result = outcome(a, policy, scope="sequence", draw=lambda: _draw(a, operands), mask=mask, strength=strength)
    return BackendResult(result.values, result.moved.flatten(1).sum(-1), result.passed)


def _draw(a: Tensor, operands: Operands) -> Tensor:
    """Returns the draws that the operands define, float32 of the shape of `a`."""
    keys, positions, stream, uniforms, *_ = operands
    if uniforms is not None:
        return uniforms
    if keys is None:
        return torch.full(a.shape, 0.5, device=a.device)
    positions = torch.zeros((1, 1), dtype=torch.int64, device=a.device) if positions is None else positions
    return Noise(stream=stream).uniforms(a.shape, positions, keys)


PLAIN = Backend(lambda _a, _policy: True, _move_in_blocks)
