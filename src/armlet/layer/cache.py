"""The cache of attention, with which a text can be run in chunks or token by token."""

import torch
from torch import Tensor


class KVCache:
    """Keys (after RoPE) and values of the tokens so far, each `[b, g, S, h]`; one for each `Layer1` and each text."""

    def __init__(self) -> None:
        self.K: Tensor | None = None
        self.V: Tensor | None = None

    @property
    def length(self) -> int:
        """S, the number of tokens in it."""
        return 0 if self.K is None else self.K.shape[-2]

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds the new tokens' keys and values `[b, g, s, h]`; returns those of all tokens."""
        self.K = k if self.K is None else torch.cat((self.K, k), dim=-2)
        self.V = v if self.V is None else torch.cat((self.V, v), dim=-2)
        return self.K, self.V
