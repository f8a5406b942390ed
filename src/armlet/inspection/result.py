"""What an inspection found: one record for the gate before, and one for each policy's effect on it."""

from dataclasses import dataclass

from armlet.inspection.panel import Panel
from armlet.presentation.numbers import finite_or_none
from armlet.redistribution.rows import Policy
from armlet.redistribution.spelling import settings


@dataclass(frozen=True)
class Effect:
    """One policy on the same values.

    Args:
        policy: what moved them.
        panel: the values before and after, `[tokens · width]`, and which moved.
        share_moved: fraction of all values.
        after: `shape.measure` of the values after.
        difference: after − before, for each measure.
    """

    policy: Policy
    panel: Panel
    share_moved: float
    after: dict[str, float]
    difference: dict[str, float]

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        numbers = {"after": finite_or_none(self.after), "difference": finite_or_none(self.difference)}
        return {"policy": self.policy.name, **settings(self.policy), "share_moved": self.share_moved, **numbers}


@dataclass(frozen=True)
class Inspection:
    """The activated gate of one layer, and each policy's effect on it.

    Args:
        tokens: tokens measured.
        width: values of each token.
        passed: tokens left out: their scope contains NaN or Inf, and policies pass it through unchanged.
        before: `shape.measure` of the values before.
        effects: one for each policy.
    """

    tokens: int
    width: int
    passed: int
    before: dict[str, float]
    effects: list[Effect]

    def to_dict(self) -> dict[str, object]:
        """For JSON: numbers that are not finite become None."""
        policies = [effect.to_dict() for effect in self.effects]
        size: dict[str, object] = {"tokens": self.tokens, "width": self.width, "passed": self.passed}
        return size | {"before": finite_or_none(self.before), "policies": policies}
