"""Placebos at the gate: policies that should do nothing, or that share only a part of what a policy does."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from armlet.redistribution.conduct import moved_by
from armlet.redistribution.cut import Cut
from armlet.redistribution.noise import WORD
from armlet.redistribution.outward import Outward
from armlet.redistribution.rows import Draw, Policy, Rows

CHOICE_ROLE, NOISE_ROLE = 1, 2  # uses of derived uniforms: to choose which values change, and by how much


@dataclass(frozen=True)
class Placebo:
    """Base of the placebos that are attached in place of a policy."""

    policy: Policy

    @property
    def strength(self) -> float:
        """Always 1, because `move` already includes the policy's strength."""
        return 1.0


class DrawOnly(Placebo):
    """Does all the work of a policy, including its draws, and then returns the values unchanged."""

    name: ClassVar[str] = "draw-only"

    def move(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor]:
        """Returns the unchanged values and False, `[rows, n]` each."""
        uniforms = draw()  # also for a policy that draws nothing
        moved_by(self.policy, rows, lambda: uniforms)
        return rows.values, torch.zeros_like(rows.values, dtype=torch.bool)


class Matched(Placebo):
    """Moves the same number of values of each row as a policy, chosen at random, with the same change in variance.

    If the variance rises, uniform noise with mean 0 is added. If it falls, the values move towards the row's mean, at
    most as far as the mean: a few random values cannot always reduce the variance as much as the tails can.
    """

    name: ClassVar[str] = "matched"

    def move(self, rows: Rows, draw: Draw) -> tuple[Tensor, Tensor]:
        """Returns the new values and whether each one changed, `[rows, n]` each."""
        uniforms = draw()
        target, moved = moved_by(self.policy, rows, lambda: uniforms)
        before = rows.values.detach().double()
        after = torch.where(moved, torch.lerp(before, target.detach().double(), self.policy.strength), before)
        valid = torch.ones_like(moved) if rows.valid is None else rows.valid
        moved = moved & valid & (self.policy.strength > 0)
        chosen = _lowest(_derived_uniforms(uniforms, CHOICE_ROLE).masked_fill(~valid, 2), moved.sum(-1, keepdim=True))
        difference = _variance(after, valid) - _variance(before, valid)
        noise = 2 * _derived_uniforms(uniforms, NOISE_ROLE) - 1
        direction = torch.where(difference >= 0, noise, _masked_mean(before, valid) - before) * chosen
        change = _step_size(before, direction, difference, valid) * direction
        return rows.values + change.to(rows.values.dtype), chosen


COMPARED_PLACEBOS = ("matched", "zeroed")
"""The placebos with which each treatment is compared directly."""

IDENTITY = "identity"

GATE_PLACEBOS = (IDENTITY, "draw-only", *COMPARED_PLACEBOS)
"""The placebos at the gate. A/A and a change of temperature do not touch the gate."""

REPEAT = "repeat"
"""The placebo of an A/A run: the baseline once more, at another batch size and, if it is sampled, with other seeds."""


def placebo_names(policy: Policy, *, first: bool) -> list[str]:
    """The placebos of a treatment: those compared with it, and for the first treatment also the others.

    Only `Outward` redraws a near-zero set that "zeroed" can set to 0 instead.
    """
    names = GATE_PLACEBOS if first else COMPARED_PLACEBOS
    return [name for name in names if name != "zeroed" or isinstance(policy, Outward)]


def placebo(name: str, policy: Policy) -> Policy:
    """Makes one of `placebo_names` for a policy.

    "identity" is the policy itself at strength 0. "zeroed" is a `Cut` with the near-zero set and the strength of an
    `Outward`.
    """
    if name == IDENTITY:
        return replace(policy, strength=0.0)  # type: ignore[type-var] - policies are dataclasses
    if name == "zeroed" and isinstance(policy, Outward):
        return Cut(policy.band, policy.share, policy.proportion, strength=policy.strength)
    return DrawOnly(policy) if name == "draw-only" else Matched(policy)


def _derived_uniforms(uniforms: Tensor, role: int) -> Tensor:
    """New uniforms, float32 `[rows, n]`, hashed from a policy's draws, so that no random generator is advanced.

    The hash includes the channel, so that equal draws (`Noise.midpoint`) become different uniforms.
    """
    word = (uniforms * 2**24).to(torch.int64) + role * 0x9E3779B9
    word = word + torch.arange(uniforms.shape[-1], device=uniforms.device) * 0x85EBCA6B
    for factor in (0x7FEB352D, 0x846CA68B):
        word = word & WORD
        word = (word ^ (word >> 16)) * factor
    word = word & WORD
    return ((word ^ (word >> 16)) >> 8).to(torch.float32) / 2**24


def _lowest(keys: Tensor, count: Tensor) -> Tensor:
    """A mask `[rows, n]` of the positions with the lowest keys; `count` `[rows, 1]` is their number in each row."""
    first = torch.arange(keys.shape[-1], device=keys.device) < count
    return torch.zeros_like(keys, dtype=torch.bool).scatter(-1, keys.argsort(dim=-1, stable=True), first)


def _masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    return (values * valid).sum(-1, keepdim=True) / valid.sum(-1, keepdim=True)


def _variance(values: Tensor, valid: Tensor) -> Tensor:
    return _masked_mean((values - _masked_mean(values, valid)) ** 2, valid)


def _step_size(values: Tensor, direction: Tensor, difference: Tensor, valid: Tensor) -> Tensor:
    """The c ≥ 0, `[rows, 1]`, at which Var(values + c·direction) − Var(values) is `difference` or nearest to it.

    Var(a + c·z) = Var(a) + 2c·Cov(a, z) + c²·Var(z). Of its two roots, the first one after c = 0 is used.
    """
    centred = values - _masked_mean(values, valid)
    covariance = _masked_mean(centred * (direction - _masked_mean(direction, valid)), valid)
    spread = _variance(direction, valid)
    root = (covariance**2 + spread * difference).clamp(min=0).sqrt()
    step = (-covariance + torch.where(difference >= 0, root, -root)) / spread
    return torch.where(spread > 0, step, 0)
