"""Policies as a name and numbers, which operators take as arguments and compilers can follow."""

from functools import lru_cache

from armlet.redistribution.inward import Inward
from armlet.redistribution.outward import Outward
from armlet.redistribution.rows import Policy
from armlet.redistribution.transport import Transport

CURVES, WRITES, CEILINGS = ("log", "clip"), ("replace", "add"), ("signed", "magnitude")


def encode(policy: Outward | Inward | Transport) -> tuple[str, list[float]]:
    """The policy's name, and its fields in order as numbers; −1 for a proportion that is None."""
    if isinstance(policy, Outward):
        proportion = -1.0 if policy.proportion is None else policy.proportion
        choices = [WRITES.index(policy.write), CEILINGS.index(policy.ceiling_of)]
        fields = [policy.band, policy.ceiling, *policy.share, proportion, *choices]
    elif isinstance(policy, Inward):
        fields = [policy.knee, CURVES.index(policy.curve)]
    else:
        fields = [policy.spread]
    return policy.name, [float(field) for field in (*fields, policy.strength)]


def decode(name: str, numbers: list[float]) -> Policy:
    """The policy of `encode`."""
    return _decoded(name, tuple(numbers))


@lru_cache
def _decoded(name: str, numbers: tuple[float, ...]) -> Policy:
    *fields, strength = numbers
    if name == Outward.name:
        band, ceiling, low, high, proportion, write, ceiling_of = fields
        return Outward(
            band=band,
            ceiling=ceiling,
            share=(low, high),
            proportion=None if proportion < 0 else proportion,
            write=WRITES[int(write)],
            ceiling_of=CEILINGS[int(ceiling_of)],
            strength=strength,
        )
    if name == Inward.name:
        return Inward(knee=fields[0], curve=CURVES[int(fields[1])], strength=strength)
    return Transport(spread=fields[0], strength=strength)
