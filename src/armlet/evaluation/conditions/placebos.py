"""Placebos at the site: policies that should do nothing, or nothing that their model's policy is credited with."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from armlet.redistribution.noise import WORD
from armlet.redistribution.rows import Draw, Policy, Rows

PLACES, SIZES = 1, 2  # what the draws are scrambled for


@dataclass(frozen=True)
class DrawOnly:
    """All of a policy's work, its draws included, and then the values as they were."""

    policy: Policy

    name: ClassVar[str] = "draw-only"
    strength: ClassVar[float] = 1.0

    def move(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor]:
        """`[rows, n]` each: the values, and False."""
        drawn = draw()  # once, as the policy does; of a policy that draws nothing, too
        self.policy.move(rows, lambda: drawn)
        return rows.values, torch.zeros_like(rows.values, dtype=torch.bool)


@dataclass(frozen=True)
class Matched:
    """As many values of each row moved as a policy moves, at random places, with the same change of the variance.

    Where the variance rises, uniform noise centred on 0 is added; where it falls, the values are pulled to the row's
    mean, as far as that goes: a few values at random cannot always lose what the tails lose, and then come to lie on
    it.
    """

    policy: Policy

    name: ClassVar[str] = "matched"
    strength: ClassVar[float] = 1.0

    def move(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor]:
        """`[rows, n]` each: the values with the change, and where it is."""
        drawn = draw()
        value, moved = self.policy.move(rows, lambda: drawn)
        before = rows.values.detach().double()
        after = torch.where(moved, torch.lerp(before, value.detach().double(), self.policy.strength), before)
        real = torch.ones_like(moved) if rows.real is None else rows.real
        moved = moved & real & (self.policy.strength > 0)
        chosen = _choose(_scramble(drawn, PLACES).masked_fill(~real, 2), moved.sum(-1, keepdim=True))
        difference = _variance(after, real) - _variance(before, real)
        noise = 2 * _scramble(drawn, SIZES) - 1
        direction = torch.where(difference >= 0, noise, _mean(before, real) - before) * chosen
        change = _step(before, direction, difference, real) * direction
        return rows.values + change.to(rows.values.dtype), chosen


PLACEBOS = ("identity", "draw-only", "matched")
"""Those inside the gate; a change of temperature is the fourth, outside it."""


def placebo(name: str, policy: Any) -> Policy:
    """One of `PLACEBOS` for a policy; "identity" is the policy itself, attached at strength 0."""
    return {"identity": lambda: replace(policy, strength=0.0), "draw-only": lambda: DrawOnly(policy)}.get(
        name, lambda: Matched(policy)
    )()


def _scramble(drawn: Tensor, role: int) -> Tensor:
    """Other uniforms out of a policy's draws, float32 `[rows, n]`: no generator is touched, and one key serves both.

    The channel is mixed in, so that equal draws (`Noise.midpoint`) do not give equal words.
    """
    word = (drawn * 2**24).to(torch.int64) + role * 0x9E3779B9
    word = word + torch.arange(drawn.shape[-1], device=drawn.device) * 0x85EBCA6B
    for factor in (0x7FEB352D, 0x846CA68B):
        word = word & WORD
        word = (word ^ (word >> 16)) * factor
    word = word & WORD
    return ((word ^ (word >> 16)) >> 8).to(torch.float32) / 2**24


def _choose(keys: Tensor, count: Tensor) -> Tensor:
    """`[rows, n]` bool: the `count` `[rows, 1]` positions of each row with the lowest keys."""
    order = keys.argsort(dim=-1, stable=True)
    return torch.zeros_like(keys, dtype=torch.bool).scatter(
        -1, order, torch.arange(keys.shape[-1], device=keys.device) < count
    )


def _mean(values: Tensor, real: Tensor) -> Tensor:
    return (values * real).sum(-1, keepdim=True) / real.sum(-1, keepdim=True)


def _variance(values: Tensor, real: Tensor) -> Tensor:
    return _mean((values - _mean(values, real)) ** 2, real)


def _step(values: Tensor, direction: Tensor, difference: Tensor, real: Tensor) -> Tensor:
    """`[rows, 1]` c ≥ 0: the variance of values + c·direction differs by `difference`, or as nearly as it can.

    Var(a + c·z) = Var(a) + 2c·Cov(a, z) + c²·Var(z); of its roots the one on the way from c = 0.
    """
    centred = values - _mean(values, real)
    covariance = _mean(centred * (direction - _mean(direction, real)), real)
    spread = _variance(direction, real)
    root = (covariance**2 + spread * difference).clamp(min=0).sqrt()
    step = (-covariance + torch.where(difference >= 0, root, -root)) / spread
    return torch.where(spread > 0, step, 0)
