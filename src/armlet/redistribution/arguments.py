"""Checks the arguments of `redistribute`: tensors, policies, scopes, positions and masks."""

from math import prod

import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.rows import Policy

SCOPES = ("token", "sequence", "call")


def check_arguments(a: Tensor, policy: Policy, scope: str) -> None:
    """Raises ArgumentError if `a` is not a floating-point tensor with a width, or if policy or scope are invalid."""
    if not isinstance(a, Tensor) or not a.is_floating_point() or a.dim() == 0:
        description = _description(a) if isinstance(a, Tensor) else type(a).__name__
        raise ArgumentError(f"redistribute: expected a floating-point tensor [batch, seq, width], found {description}")
    check_policy(policy, scope)


def check_policy(policy: Policy, scope: str) -> None:
    """Raises ArgumentError if `policy` is not a policy or `scope` is unknown."""
    if isinstance(policy, type) or not callable(getattr(policy, "move", None)):
        raise ArgumentError(f"policy: expected Outward(...), Inward(...) or Transport(...), found {policy!r}")
    if scope not in SCOPES:
        raise ArgumentError(f"scope: expected one of {', '.join(SCOPES)}, found {scope!r}")


def token_positions(a: Tensor, positions: Tensor | None) -> Tensor:
    """Returns int64 positions that broadcast to `a.shape[:-1]`, by default 0, 1, 2, …; checks dtype and shape."""
    tokens = a.shape[:-1]
    if positions is None:
        return torch.arange(tokens[-1] if tokens else 1, device=a.device).view(tokens[-1:])
    if not isinstance(positions, Tensor) or positions.is_floating_point() or positions.dtype == torch.bool:
        raise ArgumentError(f"positions: expected integers of shape {list(tokens)}, found {_description(positions)}")
    if positions.shape not in (tokens, tokens[-1:]) and not (len(tokens) == 2 and positions.shape == (1, tokens[1])):
        shapes = " or ".join(dict.fromkeys((str(list(tokens)), str(list(tokens[-1:])))))
        raise ArgumentError(f"positions: expected shape {shapes}, found {_description(positions)}")
    return positions.to(a.device, torch.int64)


def token_mask(a: Tensor, mask: Tensor | None) -> Tensor | None:
    """Returns the mask as bool, False for padding, on the device of `a`, or None; its shape must be `a.shape[:-1]`."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.is_floating_point() or mask.shape != a.shape[:-1]:
        expected = f"bool or integers of shape {list(a.shape[:-1])} (one value per token, 0 for padding)"
        raise ArgumentError(f"mask: expected {expected}, found {_description(mask)}")
    return mask.to(a.device) != 0


def _description(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else repr(value)


def scopes_shape(a: Tensor, scope: str) -> tuple[int, int, int]:
    """The numbers of scopes, tokens per scope and width of a non-empty tensor; without a batch it is one sequence."""
    # `numel()` of a shape would make sizes static that a compiler keeps dynamic.
    tokens, width = prod(a.shape[:-1]), a.shape[-1]
    scopes = {"token": tokens, "sequence": prod(a.shape[:-2]), "call": 1}[scope]
    return scopes, tokens // scopes, width
