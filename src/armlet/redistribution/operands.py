"""What a backend takes besides the values and the policy."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor


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
        by_scope = {
            "positions": self.positions,
            "uniforms": self.uniforms,
            "mask": self.mask,
            "strength": self.strength,
        }
        given = {name: tensor for name, tensor in by_scope.items() if tensor is not None}
        for start in range(0, size * count, size):
            yield self._replace(**{name: tensor[start : start + size] for name, tensor in given.items()})
