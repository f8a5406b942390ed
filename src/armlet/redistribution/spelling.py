"""A policy in words: from its name and fields, and from a line such as "outward:band=0.2"."""

from collections.abc import Mapping
from typing import Any

from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.inward import Inward
from armlet.redistribution.outward import Outward
from armlet.redistribution.presets import published
from armlet.redistribution.rows import Policy, settings
from armlet.redistribution.transport import Transport

PUBLISHED = "published"
POLICIES: dict[str, type[Outward] | type[Inward] | type[Transport]] = {
    policy.name: policy for policy in (Outward, Inward, Transport)
}


def make_policy(name: str, values: Mapping[str, Any]) -> Policy:
    """A policy from its name and fields.

    Raises:
        ArgumentError: no such policy or field, or a value out of range.
    """
    if name not in POLICIES:
        raise ArgumentError(f"policy: expected one of {', '.join(POLICIES)}, found {name!r}")
    known = settings(POLICIES[name]())
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ArgumentError(f"{name}: unknown {', '.join(unknown)}; there are {', '.join(known)}")
    return POLICIES[name](**values)


def parse_policy(text: str) -> Policy:
    """A policy from a line such as "outward", "outward:band=0.2,share=0.02/0.25" or "published:Qwen2.5-Math-7B/AIME24".

    Raises:
        ArgumentError: no such policy or field, or a value out of range; nothing published.
    """
    name, _, rest = text.partition(":")
    if name == PUBLISHED:
        model, _, task = rest.rpartition("/")
        return published(model, task)
    pairs = [pair.partition("=") for pair in rest.split(",")] if rest else []
    for field, equals, _ in pairs:
        if not equals:
            raise ArgumentError(
                f"{name}: settings are written name=value, and a pair as share=0.02/0.25; found {field!r}"
            )
    return make_policy(name, {field: _value(value) for field, _, value in pairs})


def _value(text: str) -> object:
    parts = [_number(part) for part in text.split("/")]
    return parts[0] if len(parts) == 1 else tuple(parts)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def detail(policy: Policy) -> str:
    """The settings that describe a policy to a reader: the main ones, and whatever is not its default."""
    main = {"outward": ("band", "ceiling"), "inward": ("knee", "curve"), "transport": ("spread",)}[policy.name]
    own, default = settings(policy), settings(type(policy)())
    return ", ".join(f"{name} {own[name]}" for name in own if name in main or own[name] != default[name])
