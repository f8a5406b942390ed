"""`armlet::redistribute`, the operator that compilers, exporters and autograd see in place of a backend."""

from typing import Any

import torch
from torch import Tensor

from armlet.redistribution.backends import plain
from armlet.redistribution.backends.choice import backend
from armlet.redistribution.encoding import decode
from armlet.redistribution.noise import Noise


@torch.library.custom_op("armlet::keys", mutates_args=())
def keys_for(a: Tensor, seed: int) -> Tensor:
    """Keys of layer 0 for values as wide as `a`: a compiler would write the hash out, at twice the length a step."""
    return Noise(seed).keys(a.shape[-1]).to(a.device)


@keys_for.register_fake
def _(a: Tensor, _seed: int) -> Tensor:
    return a.new_empty((3, a.shape[-1]), dtype=torch.int64)


@torch.library.custom_op("armlet::redistribute", mutates_args=())
def redistribute(
    a: Tensor,
    policy: str,
    settings: list[float],
    keys: Tensor | None,
    positions: Tensor | None,
    stream: int,
    uniforms: Tensor | None,
    real: Tensor | None,
    strength: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`move_rows` of the backend that takes `a`; the policy as `encoding.encode` writes it, the rest as there."""
    decoded, a = decode(policy, settings), a.detach().contiguous()
    how = {"keys": keys, "positions": positions, "stream": stream}
    how |= {"uniforms": uniforms, "real": real, "strength": strength}
    values, moved, passed = backend(a, decoded).move_rows(a, decoded, **how)
    return values.clone() if values is a else values, moved, passed


@redistribute.register_fake
def _(a: Tensor, *_rest: object) -> tuple[Tensor, Tensor, Tensor]:
    moved = a.new_empty(a.shape[0], dtype=torch.int64)
    return torch.empty_like(a, memory_format=torch.contiguous_format), moved, moved.to(torch.bool)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    a, ctx.policy, ctx.settings, keys, positions, ctx.stream, uniforms, real, strength = inputs
    ctx.save_for_backward(a, keys, positions, uniforms, real, strength)
    ctx.mark_non_differentiable(*output[1:])  # type: ignore[index]


def _backward(ctx: Any, gradient: Tensor, _moved: object, _passed: object) -> tuple[Tensor | None, ...]:
    a, keys, positions, uniforms, real, strength = ctx.saved_tensors
    again = torch.is_grad_enabled()  # the gradient itself is to be differentiated
    # The same meaning, so the same gradient: that of the plain path, computed anew.
    with torch.enable_grad():
        start = a if again else a.detach().requires_grad_()
        policy, how = decode(ctx.policy, ctx.settings), {"keys": keys, "positions": positions, "stream": ctx.stream}
        values = plain.move_rows(start, policy, **how, uniforms=uniforms, real=real, strength=strength).values
        (mine,) = torch.autograd.grad(values, start, gradient, create_graph=again)
    return (mine, *[None] * 8)


redistribute.register_autograd(_backward, setup_context=_keep)
