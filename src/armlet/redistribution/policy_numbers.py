"""Built-in policies as a name with numbers, the only arguments that torch's operators accept, and back."""

from functools import lru_cache

from armlet.redistribution.built_in import POLICIES
from armlet.redistribution.cut import Cut
from armlet.redistribution.inward import Inward
from armlet.redistribution.outward import Outward
from armlet.redistribution.policies import settings
from armlet.redistribution.rows import Policy
from armlet.redistribution.transport import Transport

NO_NUMBER = -1.0
"""Represents a setting that is None; no setting is negative."""


def to_numbers(policy: Outward | Inward | Transport | Cut) -> tuple[str, list[float]]:
    """Returns the policy's name and its settings as numbers: choices by index, a pair as two numbers, None as −1."""
    numbers: list[float] = []
    for name, value in settings(policy).items():
        if isinstance(value, tuple):
            numbers += value
        elif name in policy.choices:
            numbers.append(float(policy.choices[name].index(value)))  # type: ignore[arg-type]
        else:
            numbers.append(NO_NUMBER if value is None else float(value))  # type: ignore[arg-type]
    return policy.name, numbers


def from_numbers(name: str, numbers: list[float]) -> Policy:
    """Returns the policy that `to_numbers` converted."""
    return _policy_of_numbers(name, tuple(numbers))


@lru_cache
def _policy_of_numbers(name: str, numbers: tuple[float, ...]) -> Policy:
    policy, rest, values = POLICIES[name], iter(numbers), {}
    for field, default in settings(policy()).items():
        number = next(rest)
        if isinstance(default, tuple):
            values[field] = number, next(rest)
        elif field in policy.choices:
            values[field] = policy.choices[field][int(number)]
        else:
            values[field] = None if default is None and number < 0 else number
    return policy(**values)
