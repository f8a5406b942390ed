"""`armlet::redistribute`, the operator that compilers, exporters and autograd see instead of a backend."""

from typing import Any

import torch
from torch import Tensor

from armlet.redistribution.backends.choice import backend_for
from armlet.redistribution.backends.interception import captured
from armlet.redistribution.backends.plain import PLAIN
from armlet.redistribution.noise import Noise
from armlet.redistribution.operands import BackendResult, Operands
from armlet.redistribution.policy_numbers import from_numbers, to_numbers
from armlet.redistribution.rows import Policy


@torch.library.custom_op("armlet::keys", mutates_args=())
def keys_for(a: Tensor, seed: int) -> Tensor:
    """Keys of layer 0 for the width of `a`; an operator, because a compiler would inline the hash at every step."""
    if captured(a):  # a copy from the CPU cannot be captured; a hundred small operations can
        return Noise(seed).keys(a.shape[-1], device=a.device)
    return Noise(seed).keys(a.shape[-1]).to(a.device)


@keys_for.register_fake
def _(a: Tensor, _seed: int) -> Tensor:
    return a.new_empty((3, a.shape[-1]), dtype=torch.int64)


@torch.library.custom_op("armlet::redistribute", mutates_args=())
def redistribute_scopes(
    a: Tensor,
    policy: str,
    settings: list[float],
    keys: Tensor | None,
    positions: Tensor | None,
    stream: int,
    uniforms: Tensor | None,
    mask: Tensor | None,
    strength: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Runs the backend for `a`; policy and settings come from `to_numbers`, the other arguments from `Operands`."""
    moving, a = from_numbers(policy, settings), a.detach().contiguous()
    tensors = (positions, uniforms, mask, strength)  # whose strides a compiler may have chosen
    positions, *rest = (None if tensor is None else tensor.contiguous() for tensor in tensors)
    operands = Operands(keys, positions, stream, *rest)
    values, moved, passed = backend_for(a, moving).move_rows(a, moving, operands)
    return values.clone() if values is a else values, moved, passed


def move_rows_visibly(a: Tensor, policy: Policy, operands: Operands) -> BackendResult:
    """Runs `move_rows` as one operation that compilers, tracers, modes and autograd see."""
    return BackendResult(*redistribute_scopes(a, *to_numbers(policy), *operands))  # type: ignore[arg-type]


@redistribute_scopes.register_fake
def _(a: Tensor, *_rest: object) -> tuple[Tensor, Tensor, Tensor]:
    moved = a.new_empty(a.shape[0], dtype=torch.int64)
    return torch.empty_like(a, memory_format=torch.contiguous_format), moved, moved.to(torch.bool)


def _save(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:  # noqa: ARG001 - torch's names
    a, name, numbers, keys, positions, ctx.stream, uniforms, mask, strength = inputs
    ctx.policy = from_numbers(name, numbers)
    ctx.save_for_backward(a, keys, positions, uniforms, mask, strength)


def _backward(ctx: Any, gradient: Tensor, _moved: object, _passed: object) -> tuple[Tensor | None, ...]:
    a, keys, positions, uniforms, mask, strength = ctx.saved_tensors
    operands = Operands(keys, positions, ctx.stream, uniforms, mask, strength)
    differentiable = torch.is_grad_enabled()  # for second derivatives
    # The gradient is recomputed by the plain path, whose definition is the same.
    with torch.enable_grad():
        start = a if differentiable else a.detach().requires_grad_()
        values = PLAIN.move_rows(start, ctx.policy, operands).values
        (gradient_of_a,) = torch.autograd.grad(values, start, gradient, create_graph=differentiable)
    return (gradient_of_a, *[None] * (2 + len(operands)))


redistribute_scopes.register_autograd(_backward, setup_context=_save)
