"""The backend interface: its inputs other than values and policy, and its outputs."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from armlet.redistribution.rows import Policy


class Operands(NamedTuple):
    """Per-call inputs: the source of random draws, the padding mask, and the strength of each scope.

    A named tuple, because torch.compile can trace it and `*operands` unpacks it: torch operators accept no dataclasses.

    Args:
        keys: int64 `[3, width]` from `Noise.keys`; if both `keys` and `uniforms` are None, every draw is ½.
        positions: int64 `[scopes, tokens]`: absolute token positions, used with `keys`; None means all 0.
        stream: stream of the keyed noise.
        uniforms: float32 `[scopes, tokens, width]`: explicit draws, used instead of keyed ones.
        mask: bool `[scopes, tokens]`: False for padding, which statistics omit and which stays unchanged; None if none.
        strength: float32 `[scopes]`: overrides the policy's strength.
    """

    keys: Tensor | None = None
    positions: Tensor | None = None
    stream: int = 0
    uniforms: Tensor | None = None
    mask: Tensor | None = None
    strength: Tensor | None = None

    def split(self, size: int, count: int) -> Iterator["Operands"]:
        """Splits the operands into `count` blocks of `size` scopes each; the last block may be smaller."""
        fields = self._asdict().items()
        by_scope = {name: value for name, value in fields if isinstance(value, Tensor) and name != "keys"}
        for start in range(0, size * count, size):
            yield self._replace(**{name: tensor[start : start + size] for name, tensor in by_scope.items()})


class BackendResult(NamedTuple):
    """Output of a backend for values `[scopes, tokens, width]`.

    Args:
        values: the new values, with shape, dtype and device of the input.
        moved: int64 `[scopes]`: the number of values moved.
        passed: bool `[scopes]`: True for a scope with NaN or Inf, which passed through unchanged.
    """

    values: Tensor
    moved: Tensor
    passed: Tensor


class Backend(NamedTuple):
    """An implementation of row redistribution. All backends produce bit-identical results.

    Args:
        supports: whether `move_rows` supports a tensor `[scopes, tokens, width]` with a policy on this machine.
        move_rows: moves a contiguous, non-empty tensor by the policy; all tensors of the operands are contiguous.
        row_mover: returns a function that moves one row per call, see `cpu.moves.row_mover`.
        gated_rows: applies activation, policy and product with `up` in one pass, see `triton.moves.gated_rows`.
        tally: adds the counts of a result to a module's counters, see `triton.moves.tally`.
    """

    supports: Callable[[Tensor, Policy], bool]
    move_rows: Callable[[Tensor, Policy, Operands], BackendResult]
    row_mover: Callable[..., Callable[..., Tensor]] | None = None
    gated_rows: Callable[..., BackendResult] | None = None
    tally: Callable[..., bool] | None = None
