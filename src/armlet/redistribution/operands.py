"""What a backend is: what it takes besides the values and the policy, and what it gives back."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from armlet.redistribution.rows import Policy


class Operands(NamedTuple):
    """The tensors of one call: where its draws come from, which tokens are padding, how far each scope moves.

    A named tuple, which compilers follow and `*operands` flattens: torch's operators take no other structure.

    Args:
        keys: int64 `[3, width]`, of `Noise.keys`; without keys and `uniforms` every draw is ½.
        positions: int64 `[scopes, tokens]`: the tokens' absolute positions, with `keys`; None: all 0.
        stream: of the keyed noise.
        uniforms: float32 `[scopes, tokens, width]`: the draws themselves, in place of keyed ones.
        mask: bool `[scopes, tokens]`; False: padding, which neither counts nor moves. None: all tokens are valid.
        strength: float32 `[scopes]`, in place of the policy's.
    """

    keys: Tensor | None = None
    positions: Tensor | None = None
    stream: int = 0
    uniforms: Tensor | None = None
    mask: Tensor | None = None
    strength: Tensor | None = None

    def split(self, size: int, count: int) -> Iterator["Operands"]:
        """Those of `count` blocks, each of the next `size` scopes; the last block may be smaller."""
        fields = self._asdict().items()
        by_scope = {name: value for name, value in fields if isinstance(value, Tensor) and name != "keys"}
        for start in range(0, size * count, size):
            yield self._replace(**{name: tensor[start : start + size] for name, tensor in by_scope.items()})


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


class Backend(NamedTuple):
    """One way to move rows. All give the same bits, at different speeds.

    Args:
        supports: whether `move_rows` takes `a`, `[scopes, tokens, width]`, and the policy here.
        move_rows: moves `a`, contiguous and not empty, by the policy; the tensors of the operands are contiguous.
        row_mover: gives a function that moves one row at a time, see `cpu.moves.row_mover`.
        gated_rows: activation, policy and product with `up` in one pass, see `triton.moves.gated_rows`.
    """

    supports: Callable[[Tensor, Policy], bool]
    move_rows: Callable[[Tensor, Policy, Operands], Counted]
    row_mover: Callable[..., Callable[..., Tensor]] | None = None
    gated_rows: Callable[..., Counted] | None = None
