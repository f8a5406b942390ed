"""The result of `armlet inspect`: measures of the gate before, and the effect of each policy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from armlet.presentation.numbers import finite_or_none
from armlet.redistribution.policies import settings
from armlet.redistribution.rows import Policy


@dataclass(frozen=True)
class Panel:
    """The activated gate before and after one policy, as a figure needs it."""

    name: str  # name of the policy, "Outward", "Inward" or "Transport"; it determines the colour
    detail: str  # settings of the policy in a few words, such as "band 0.13, ceiling 0.995"
    before: NDArray[np.floating]  # [n] finite values of all tokens, n > 0, the same in every panel of a figure
    after: NDArray[np.floating]  # [n] values after the policy
    moved: NDArray[np.bool_]  # [n], the positions that the policy changed


@dataclass(frozen=True)
class Effect:
    """The effect of one policy."""

    policy: Policy
    panel: Panel  # the values before and after, [tokens · width], and which moved
    share_moved: float  # fraction of all values
    after: dict[str, float]  # `shape.measure` of the values after
    difference: dict[str, float]  # after − before, for each measure

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        numbers = {"after": finite_or_none(self.after), "difference": finite_or_none(self.difference)}
        return {"policy": self.policy.name, **settings(self.policy), "share_moved": self.share_moved, **numbers}


@dataclass(frozen=True)
class Inspection:
    """The activated gate of one layer, and each policy's effect on it."""

    tokens: int  # number of measured tokens
    width: int  # values of each token
    passed: int  # tokens not measured because policies do not change scopes that contain NaN or Inf
    before: dict[str, float]  # `shape.measure` of the values before
    effects: list[Effect]  # one for each policy

    def to_dict(self) -> dict[str, object]:
        """For JSON; numbers that are not finite become None."""
        size: dict[str, object] = {"tokens": self.tokens, "width": self.width, "passed": self.passed}
        policies = [effect.to_dict() for effect in self.effects]
        return size | {"before": finite_or_none(self.before), "policies": policies}
