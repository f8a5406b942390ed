"""What the way in takes: tensors, policies and scopes that exist, positions and masks that fit."""

import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.rows import Policy

SCOPES = ("token", "sequence", "call")


def check_arguments(a: Tensor, policy: Policy, scope: str) -> None:
    """Refuses what cannot be redistributed.

    Raises:
        ArgumentError: `a` is no floating-point tensor with a width, or policy or scope are none that exist.
    """
    if not isinstance(a, Tensor) or not a.is_floating_point() or a.dim() == 0:
        description = f"{a.dtype} {list(a.shape)}" if isinstance(a, Tensor) else type(a).__name__
        raise ArgumentError(f"redistribute: expected a floating-point tensor [batch, seq, width], found {description}")
    check_policy(policy, scope)


def check_policy(policy: Policy, scope: str) -> None:
    """Refuses a policy or a scope that does not exist.

    Raises:
        ArgumentError: says what was found and what there is.
    """
    if isinstance(policy, type) or not callable(getattr(policy, "move", None)):
        raise ArgumentError(f"policy: expected Outward(...), Inward(...) or Transport(...), found {policy!r}")
    if scope not in SCOPES:
        raise ArgumentError(f"scope: expected one of {', '.join(SCOPES)}, found {scope!r}")


def token_positions(a: Tensor, positions: Tensor | None) -> Tensor:
    """int64 that broadcasts to `a.shape[:-1]`: the given positions, or 0, 1, 2, … along the sequence.

    Raises:
        ArgumentError: positions are no integers, or do not fit the tokens.
    """
    tokens = a.shape[:-1]
    if positions is None:
        return torch.arange(tokens[-1] if tokens else 1, device=a.device).view(tokens[-1:])
    if not isinstance(positions, Tensor) or positions.is_floating_point() or positions.dtype == torch.bool:
        raise ArgumentError(f"positions: expected integers of shape {list(tokens)}, found {_found(positions)}")
    if positions.shape not in (tokens, tokens[-1:]) and not (len(tokens) == 2 and positions.shape == (1, tokens[1])):
        raise ArgumentError(
            f"positions: expected shape {list(tokens)} or {list(tokens[-1:])}, found {_found(positions)}"
        )
    return positions.to(a.device, torch.int64)


def token_mask(a: Tensor, mask: Tensor | None) -> Tensor | None:
    """bool of shape `a.shape[:-1]` on its device, False for padding; None without a mask.

    Raises:
        ArgumentError: the mask has a wrong shape or dtype.
    """
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.is_floating_point() or mask.shape != a.shape[:-1]:
        wanted = f"bool or integers of shape {list(a.shape[:-1])}"
        raise ArgumentError(f"mask: expected {wanted} (one for each token, 0 for padding), found {_found(mask)}")
    return mask.to(a.device) != 0


def _found(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else repr(value)


def scopes_shape(a: Tensor, scope: str) -> tuple[int, int, int]:
    """`a` as scopes, tokens and width, `a` not empty; a tensor without a batch dimension is one sequence."""
    width = a.shape[-1]
    tokens = a.numel() // width
    if scope == "token":
        return tokens, 1, width
    scopes = a.shape[:-2].numel() if scope == "sequence" else 1
    return scopes, tokens // scopes, width
