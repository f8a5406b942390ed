"""The settings of a policy that a page offers: a few values of each of its knobs, and every combination of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from armlet.redistribution.built_in import POLICIES
from armlet.redistribution.cut import Cut
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.inward import Inward
from armlet.redistribution.near_zero import NearZero
from armlet.redistribution.outward import Outward
from armlet.redistribution.policies import changed_policy
from armlet.redistribution.rows import Policy
from armlet.redistribution.transport import Transport

BANDS = (0.02, 0.05, 0.1, 0.13, 0.2, 0.3, 0.45, 0.7, 1.0)
CEILINGS = (0.7, 0.8, 0.9, 0.95, 0.98, 0.995, 1.0)
KNEE_VALUES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99, 0.995, 0.999, 0.9999, 1.0)
SHARE_VALUES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.75)
SPREADS, STRENGTHS = (0.5, 0.75, 1.0, 1.5, 2.0), (0.0, 0.25, 0.5, 0.75, 1.0)
KNOB_MULTIPLES = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Of a limit or a threshold, a number in units of the values, whose range only the user knows."""

Knobs = dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class KnobGrid:
    """Values of some settings of a policy, ascending, which include the policy's own."""

    policy: Policy
    knobs: Knobs

    def states(self) -> dict[tuple[int, ...], Policy]:
        """Every combination: the index of each knob's value → the policy with these values."""
        indices = product(*(range(len(values)) for values in self.knobs.values()))
        return {place: self._at(place) for place in indices}

    def start(self) -> tuple[int, ...]:
        """The indices of the policy's own values."""
        return tuple(values.index(getattr(self.policy, name)) for name, values in self.knobs.items())

    def _at(self, place: tuple[int, ...]) -> Policy:
        chosen = zip(self.knobs.items(), place, strict=True)
        return changed_policy(self.policy, {name: values[index] for (name, values), index in chosen})


def check_grids(policies: Iterable[Policy]) -> None:
    """Raises ArgumentError for a policy of one's own, which has no knobs."""
    for policy in policies:
        if type(policy) is not POLICIES.get(policy.name):
            raise ArgumentError(f"policy: a page has knobs for {', '.join(POLICIES)}, found {type(policy).__name__}")


def knob_grid(policy: Policy) -> KnobGrid:
    """The knobs of one of the built-in policies; settings that another one replaces are no knobs.

    Raises ArgumentError for a policy of one's own.
    """
    check_grids([policy])
    return KnobGrid(policy, {name: _with(values, getattr(policy, name)) for name, values in _knobs(policy).items()})


def _knobs(policy: Policy) -> Knobs:
    if isinstance(policy, Transport):
        return {"spread": SPREADS, "strength": STRENGTHS}
    if isinstance(policy, Inward):
        return {"knee": KNEE_VALUES} if policy.limit is None else {"limit": _around(policy.limit)}
    if isinstance(policy, Cut) and policy.threshold is not None:
        return {"threshold": _around(policy.threshold)}
    near_zero: Knobs = (
        {"band": BANDS} if isinstance(policy, NearZero) and policy.uses_band else {"proportion": SHARE_VALUES}
    )
    return near_zero | ({"ceiling": CEILINGS} if isinstance(policy, Outward) else {})


def _around(value: float) -> tuple[float, ...]:
    """Multiples of a value, with three significant digits."""
    return tuple(float(f"{multiple * value:.3g}") for multiple in KNOB_MULTIPLES)


def _with(values: tuple[float, ...], value: float) -> tuple[float, ...]:
    """The values and one more, ascending."""
    return tuple(sorted({*values, value}))
