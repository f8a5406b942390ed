"""The sources of uniform draws.

Keyed noise depends only on seed, stream, layer, absolute position and channel. It has the same bits on every device and
for any batch, chunk, padding and cache state, and it does not use a random generator.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError, description

WORD = 0xFFFFFFFF
GOLDEN = 0x9E3779B9  # 2³² / golden ratio: added to each word before it is mixed in


@dataclass(frozen=True)
class Noise:
    """Keyed uniforms on [0, 1): u[t, j] = (((base[j] + t·step[j] + stream·stride[j]) mod 2³²) >> 8) / 2²⁴.

    `base`, `step` (odd) and `stride` (odd) are uint32 vectors of length width, hashes of seed, layer and channel.

    Args:
        seed: any integer, of which the lowest 64 bits are used.
        stream: selects another draw with the same seed, for repeated samples; the lowest 32 bits are used.

    Raises:
        ArgumentError: seed or stream is not an integer.

    See also `Noise.fresh` (new draws each call, as in arXiv 2510.01032) and `Noise.midpoint` (u = ½).
    """

    seed: int = 0
    stream: int = 0
    kind: ClassVar[str] = "keyed"

    def __post_init__(self) -> None:
        for name in ("seed", "stream"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ArgumentError(f"Noise: {name} must be an integer, found {description(value)}")

    @staticmethod
    def fresh(generator: torch.Generator | None = None) -> "Fresh":
        """New draws in each call, from `generator` or the global one, whose use changes later sampling."""
        return Fresh(generator)

    @staticmethod
    def midpoint() -> "Midpoint":
        """u = ½ everywhere."""
        return Midpoint()

    def keys(self, width: int, layer: int = 0, device: torch.device | None = None) -> Tensor:
        """Returns `[3, width]` int64: base, step and stride, each below 2³², computed on the device."""
        channel = torch.arange(width, dtype=torch.int64, device=device)
        base, step, stride = (_hash_words(channel, (role, layer, self.seed, self.seed >> 32)) for role in range(3))
        return torch.stack((base, step | 1, stride | 1))

    def uniforms(self, shape: torch.Size, positions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Returns float32 draws of `shape`; int64 `positions` broadcast to `shape[:-1]`; `keys` default to layer 0."""
        keys = (self.keys(shape[-1]) if keys is None else keys).to(positions.device)
        # int32 takes half the memory of int64; only the lowest 32 bits matter, and products and sums wrap.
        start, step = keys[:2].to(torch.int32)
        if self.stream & WORD:
            start = start + ((self.stream & WORD) * keys[2]).to(torch.int32)
        word = positions.to(torch.int32)[..., None] * step
        word += start
        word >>= 8
        word &= 0xFFFFFF
        u = word.to(torch.float32).mul_(2.0**-24)
        return u if u.shape == shape else u.expand(shape)


@dataclass(frozen=True)
class Fresh:
    """New uniforms in each call; made by `Noise.fresh`."""

    generator: torch.Generator | None = None
    kind: ClassVar[str] = "fresh"

    def __post_init__(self) -> None:
        if not isinstance(self.generator, torch.Generator | None):
            expected = "expected a torch.Generator, or nothing for the global one"
            raise ArgumentError(f"Noise.fresh: {expected}, found {description(self.generator)}")

    def uniforms(self, shape: torch.Size, positions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Returns float32 draws of `shape` on the device of `positions`."""
        device = positions.device if self.generator is None else self.generator.device
        return torch.rand(shape, generator=self.generator, device=device).to(positions.device)


@dataclass(frozen=True)
class Midpoint:
    """u = ½ everywhere; made by `Noise.midpoint`."""

    kind: ClassVar[str] = "midpoint"

    def uniforms(self, shape: torch.Size, positions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Returns float32 values of `shape`, all ½."""
        return torch.full(shape, 0.5, device=positions.device)


@dataclass(frozen=True, eq=False)
class Explicit:
    """Uniforms passed by the caller, for tests and comparisons: a tensor of the shape of the values."""

    tensor: Tensor
    kind: ClassVar[str] = "explicit"

    def check(self, shape: torch.Size) -> None:
        """Raises ArgumentError if the tensor does not have this shape."""
        if self.tensor.shape != shape:
            shapes = f"{list(shape)}, found {list(self.tensor.shape)}"
            raise ArgumentError(f"noise: a tensor of uniforms needs the shape of the values, expected {shapes}")

    def uniforms(self, shape: torch.Size, positions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Returns the tensor in float32."""
        return self.tensor.to(positions.device, torch.float32)


Source = Noise | Fresh | Midpoint | Explicit


def source(noise: Source | Tensor) -> Source:
    """Returns a source of uniforms, `Explicit` for a tensor; raises ArgumentError for anything else."""
    if not isinstance(noise, Tensor | Source) or (isinstance(noise, Tensor) and not noise.is_floating_point()):
        expected = "Noise(seed), Noise.fresh(), Noise.midpoint() or a floating-point tensor"
        raise ArgumentError(f"noise: expected {expected}, found {description(noise)}")
    return Explicit(noise) if isinstance(noise, Tensor) else noise


def _hash_words(channel: Tensor, words: tuple[int, ...]) -> Tensor:
    """Hashes `words` into one well-mixed uint32 (stored as int64) per channel, one word after another."""
    state = _mix(channel)
    for word in words:
        state = _mix((state + (word & WORD) + GOLDEN) & WORD)
    return state


def _mix(x: Tensor) -> Tensor:
    """Maps 32-bit words by a bijection with low bias; constants from Wellons' hash-prospector ('lowbias32')."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & WORD
    x = (x ^ (x >> 15)) * 0x846CA68B & WORD
    return x ^ (x >> 16)
