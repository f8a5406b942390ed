"""Placebos at the gate: policies that should do nothing, or that only match how much the real policy changes."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from armlet.redistribution.noise import WORD
from armlet.redistribution.rows import Draw, Policy, Rows

CHOICE_ROLE, NOISE_ROLE = 1, 2  # what uniforms are derived for: which values change, and by how much


@dataclass(frozen=True)
class Placebo:
    """What is attached in place of a policy."""

    policy: Policy

    @property
    def strength(self) -> float:
        """1: `move` already includes the policy's own strength."""
        return 1.0


class DrawOnly(Placebo):
    """Does all of a policy's work, its draws included, and then returns the values unchanged."""

    name: ClassVar[str] = "draw-only"

    def move(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor]:
        """`[rows, n]` each: the values unchanged, and False."""
        drawn = draw()  # also for a policy that draws nothing
        self.policy.move(rows, lambda: drawn)
        return rows.values, torch.zeros_like(rows.values, dtype=torch.bool)


class Matched(Placebo):
    """Moves as many values of each row as a policy does, chosen at random, with the same change of the variance.

    Where the variance rises, uniform noise with mean 0 is added; where it falls, the values move towards the row's
    mean, at most onto it: a few values at random cannot always reduce the variance as much as the tails can.
    """

    name: ClassVar[str] = "matched"

    def move(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor]:
        """`[rows, n]` each: the changed values, and which of them changed."""
        drawn = draw()
        value, moved = self.policy.move(rows, lambda: drawn)
        before = rows.values.detach().double()
        after = torch.where(moved, torch.lerp(before, value.detach().double(), self.policy.strength), before)
        real = torch.ones_like(moved) if rows.valid is None else rows.valid
        moved = moved & real & (self.policy.strength > 0)
        chosen = _lowest(_derived_uniforms(drawn, CHOICE_ROLE).masked_fill(~real, 2), moved.sum(-1, keepdim=True))
        difference = _variance(after, real) - _variance(before, real)
        noise = 2 * _derived_uniforms(drawn, NOISE_ROLE) - 1
        direction = torch.where(difference >= 0, noise, _masked_mean(before, real) - before) * chosen
        change = _step_size(before, direction, difference, real) * direction
        return rows.values + change.to(rows.values.dtype), chosen


GATE_PLACEBOS = ("identity", "draw-only", "matched")
"""The placebos at the gate; a fourth one, a change of temperature, does not touch it."""


def placebo(name: str, policy: Policy) -> Policy:
    """One of `GATE_PLACEBOS` for a policy; "identity" is the policy itself, attached at strength 0."""
    if name == "identity":
        return replace(policy, strength=0.0)  # type: ignore[type-var] - policies are dataclasses
    return DrawOnly(policy) if name == "draw-only" else Matched(policy)


def _derived_uniforms(drawn: Tensor, role: int) -> Tensor:
    """Other uniforms, float32 `[rows, n]`, hashed from a policy's draws, so that no generator is touched.

    The hash includes the channel, so that equal draws (`Noise.midpoint`) do not give equal uniforms.
    """
    word = (drawn * 2**24).to(torch.int64) + role * 0x9E3779B9
    word = word + torch.arange(drawn.shape[-1], device=drawn.device) * 0x85EBCA6B
    for factor in (0x7FEB352D, 0x846CA68B):
        word = word & WORD
        word = (word ^ (word >> 16)) * factor
    word = word & WORD
    return ((word ^ (word >> 16)) >> 8).to(torch.float32) / 2**24


def _lowest(keys: Tensor, count: Tensor) -> Tensor:
    """`[rows, n]` bool: the `count` `[rows, 1]` positions of each row with the lowest keys."""
    first = torch.arange(keys.shape[-1], device=keys.device) < count
    return torch.zeros_like(keys, dtype=torch.bool).scatter(-1, keys.argsort(dim=-1, stable=True), first)


def _masked_mean(values: Tensor, real: Tensor) -> Tensor:
    return (values * real).sum(-1, keepdim=True) / real.sum(-1, keepdim=True)


def _variance(values: Tensor, real: Tensor) -> Tensor:
    return _masked_mean((values - _masked_mean(values, real)) ** 2, real)


def _step_size(values: Tensor, direction: Tensor, difference: Tensor, real: Tensor) -> Tensor:
    """`[rows, 1]`: the c ≥ 0 at which Var(values + c·direction) − Var(values) is, or comes nearest to, `difference`.

    Var(a + c·z) = Var(a) + 2c·Cov(a, z) + c²·Var(z); of the two roots, the first that is reached from c = 0.
    """
    centred = values - _masked_mean(values, real)
    covariance = _masked_mean(centred * (direction - _masked_mean(direction, real)), real)
    spread = _variance(direction, real)
    root = (covariance**2 + spread * difference).clamp(min=0).sqrt()
    step = (-covariance + torch.where(difference >= 0, root, -root)) / spread
    return torch.where(spread > 0, step, 0)
