"""Checks the arguments of `redistribute`: tensors, policies, scopes, positions and masks."""

from math import prod

import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError, description
from armlet.redistribution.rows import Policy

SCOPES = ("token", "sequence", "call")


def check_arguments(a: Tensor, policy: Policy, scope: str) -> None:
    """Raises ArgumentError if `a` is not a floating-point tensor with a width, or if policy or scope are invalid."""
    check_floating("redistribute", a, " [batch, seq, width]", least_dimensions=1)
    check_policy(policy, scope)


def check_floating(operation: str, a: object, shape: str = "", least_dimensions: int = 0) -> None:
    """Raises ArgumentError if `a` is not a floating-point tensor; the error names the operation and the shape."""
    if not isinstance(a, Tensor) or not a.is_floating_point() or a.dim() < least_dimensions:
        expected = f"expected a floating-point tensor{shape}, as torch.as_tensor makes from numbers"
        raise ArgumentError(f"{operation}: {expected}, found {description(a)}")


def check_policy(policy: Policy, scope: str) -> None:
    """Raises ArgumentError if `policy` is not a policy or `scope` is unknown."""
    if isinstance(policy, type) or not callable(getattr(policy, "move", None)):
        expected = 'Outward(...), Inward(...), Transport(...), Cut(...) or text such as "outward:band=0.2"'
        advice = f"; call it: {policy.__name__}()" if isinstance(policy, type) and hasattr(policy, "move") else ""
        raise ArgumentError(f"policy: expected {expected}, found {description(policy)}{advice}")
    if not isinstance(scope, str) or scope not in SCOPES:
        raise ArgumentError(f"scope: expected one of {', '.join(SCOPES)}, found {description(scope)}")


def token_positions(a: Tensor, positions: Tensor | None) -> Tensor:
    """Returns int64 positions that broadcast to `a.shape[:-1]`, by default 0, 1, 2, …; checks dtype and shape."""
    tokens = a.shape[:-1]
    if positions is None:
        return torch.arange(tokens[-1] if tokens else 1, device=a.device).view(tokens[-1:])
    if not isinstance(positions, Tensor) or positions.is_floating_point() or positions.dtype == torch.bool:
        raise ArgumentError(f"positions: expected integers of shape {list(tokens)}, found {description(positions)}")
    if positions.shape not in (tokens, tokens[-1:]) and not (len(tokens) == 2 and positions.shape == (1, tokens[1])):
        shapes = " or ".join(dict.fromkeys((str(list(tokens)), str(list(tokens[-1:])))))
        raise ArgumentError(f"positions: expected shape {shapes}, found {description(positions)}")
    return positions.to(a.device, torch.int64)


def token_mask(a: Tensor, mask: Tensor | None) -> Tensor | None:
    """Returns the mask as bool, False for padding, on the device of `a`, or None; its shape must be `a.shape[:-1]`."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.is_floating_point() or mask.shape != a.shape[:-1]:
        expected = f"bool or integers of shape {list(a.shape[:-1])} (one value per token, 0 for padding)"
        raise ArgumentError(f"mask: expected {expected}, found {description(mask)}")
    return mask.to(a.device) != 0


def scopes_shape(a: Tensor, scope: str) -> tuple[int, int, int]:
    """The numbers of scopes, tokens per scope and width of a non-empty tensor; without a batch it is one sequence."""
    # `numel()` of a shape would make sizes static that a compiler keeps dynamic.
    tokens, width = prod(a.shape[:-1]), a.shape[-1]
    scopes = {"token": tokens, "sequence": prod(a.shape[:-2]), "call": 1}[scope]
    return scopes, tokens // scopes, width
