"""The policies, and their conversion to and from text, a name with settings (JSON), and a name with numbers."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import lru_cache

from armlet.redistribution.arguments import check_policy
from armlet.redistribution.cut import Cut
from armlet.redistribution.errors import ArgumentError, description
from armlet.redistribution.inward import Inward
from armlet.redistribution.near_zero import NearZero
from armlet.redistribution.outward import Outward
from armlet.redistribution.presets import published
from armlet.redistribution.rows import Policy
from armlet.redistribution.transport import Transport

PUBLISHED = "published"
BUILT_IN_POLICIES = (Outward, Inward, Transport, Cut)
POLICIES = {policy.name: policy for policy in BUILT_IN_POLICIES}
MAIN_SETTINGS = {
    "outward": ("band", "ceiling"),
    "inward": ("knee", "limit", "curve"),
    "transport": ("spread",),
    "cut": ("band",),
}

SETTING_MEANINGS = {
    "band": "half-width of the near-zero band, in robust standard deviations",
    "ceiling": "quantile that bounds positive draws",
    "share": "lowest and highest share of values that move",
    "proportion": "share of values that move, in place of band and share",
    "write": "whether a draw replaces the value (released code) or is added to it (paper)",
    "ceiling_of": "whether the ceiling is a quantile of a or of |a|",
    "knee": "quantile of |a| beyond which values move",
    "limit": "the largest |a| that does not move, in place of knee",
    "side": "whether values beyond the knee move on both sides, or above it only",
    "curve": "logarithmic contraction, clipping at the knee, or tanh, which moves every value",
    "target": "target distribution, of the magnitudes of each sign",
    "spread": "scale of the target, in robust standard deviations of the values",
    "threshold": "largest |a| that moves, in place of band, share and proportion",
    "strength": "how far values move: 0 leaves them unchanged, 1 moves them fully",
}
"""What each setting is; a setting of several policies has one meaning."""

PAPER_NAMES = {"band": "c", "ceiling": "p₁", "share": "p_min, p_max", "proportion": "p"}
"""The names of settings in arXiv 2510.01032 (docs/concepts/equations.md)."""

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
"""A decimal number; Python's `float` also reads "1_0", "١" and "nan"."""

NO_NUMBER = -1.0
"""Represents a setting that is None; no setting is negative."""


@dataclass(frozen=True)
class Knob:
    """A setting of a policy."""

    policy: str
    name: str
    default: object
    allowed: str  # range or choices, as the policy checks them
    meaning: str
    paper: str | None  # its name in arXiv 2510.01032; None if the paper has no such setting


def knobs() -> list[Knob]:
    """Every setting of every policy, in order."""
    return [
        Knob(policy.name, name, default, policy.allowed[name].words, SETTING_MEANINGS[name], PAPER_NAMES.get(name))
        for policy in BUILT_IN_POLICIES
        for name, default in settings(policy()).items()
    ]


def settings(policy: object) -> dict[str, object]:
    """Returns the fields of a policy, or of another dataclass of plain values, in order."""
    return {field.name: getattr(policy, field.name) for field in fields(policy)}  # type: ignore[arg-type]


def make_policy(name: str, values: Mapping[str, object]) -> Policy:
    """Makes a policy from its name and settings; missing settings have defaults; raises ArgumentError if invalid."""
    if name not in POLICIES:
        similar = get_close_matches(name.lower(), [*POLICIES, PUBLISHED], n=1)
        advice = f"; did you mean {similar[0]}?" if similar else ""
        raise ArgumentError(f"policy: expected one of {', '.join(POLICIES)}, found {description(name)}{advice}")
    return changed_policy(POLICIES[name](), values)


def changed_policy(policy: Policy, values: Mapping[str, object]) -> Policy:
    """Returns the policy with other values of some settings; raises ArgumentError if one is unknown or out of range."""
    known = settings(policy) if is_dataclass(policy) else {}
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ArgumentError(f"{policy.name}: unknown {', '.join(unknown)}; expected {', '.join(known)}")
    return replace(policy, **values) if values else policy  # type: ignore[type-var] - each policy checks its settings


def as_policy(policy: Policy | str) -> Policy:
    """Parses text; returns anything else as it is."""
    return parse_policy(policy) if isinstance(policy, str) else policy


def parse_policy(text: str) -> Policy:
    """Parses a policy such as "outward", "outward:band=0.2,share=0.02/0.25" or "published:Qwen2.5-Math-7B/AIME24".

    Raises ArgumentError for a policy or setting that is unknown, out of range or was not published.
    """
    name, colon, rest = text.partition(":")
    if name == PUBLISHED:
        model, _, task = rest.rpartition("/")
        return published(model, task)
    policy, values = make_policy(name, {}), dict[str, object]()
    for pair in rest.split(",") if colon else []:
        field, equals, value = pair.partition("=")
        if not equals:
            form = "expected settings as name=value, and a pair as share=0.02/0.25"
            raise ArgumentError(f"{name}: {form}, found {pair!r}")
        if field in values:
            raise ArgumentError(f"{name}: {field} is given twice")
        values[field] = _parse_value(value)
    return changed_policy(policy, values)


def policy_text(policy: Policy) -> str:
    """The text that `parse_policy` reads as this policy: its name, and the settings that differ from the defaults."""
    defaults = settings(type(policy)())
    changed = {name: value for name, value in settings(policy).items() if value != defaults[name]}
    pairs = ",".join(f"{name}={_value_text(value)}" for name, value in changed.items())
    return f"{policy.name}:{pairs}" if pairs else policy.name


def _value_text(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(map(_value_text, value))
    return str(value).removesuffix(".0")


def parse_policies(policy: Policy | str | Iterable[Policy | str], scope: str = "token") -> list[Policy]:
    """The distinct policies of one or several objects or texts (see `parse_policy`), in order.

    Raises ArgumentError if one of them is no policy, or the scope is unknown.
    """
    several = policy if isinstance(policy, Iterable) and not isinstance(policy, str) else [policy]
    parsed = [parse_policy(item) if isinstance(item, str) else item for item in several]
    for item in parsed:
        check_policy(item, scope)
    return list(dict.fromkeys(parsed))


def parse_one_policy(policy: Policy | str | Iterable[Policy | str], scope: str = "token") -> Policy:
    """The only one of `parse_policies`; raises ArgumentError if there are several or none."""
    policies = parse_policies(policy, scope)
    if len(policies) != 1:
        raise ArgumentError(f"policy: expected one, found {len(policies)}")
    return policies[0]


def _parse_value(text: str) -> object:
    parts = [_parse_number(part) for part in text.split("/")]
    return parts[0] if len(parts) == 1 else tuple(parts)


def _parse_number(text: str) -> float | str:
    return float(text) if NUMBER.fullmatch(text) else text


def detail(policy: Policy) -> str:
    """Describes a policy by its main settings and all settings that differ from their defaults."""
    values, defaults = settings(policy), settings(type(policy)())
    main = set(MAIN_SETTINGS[policy.name]).difference(_replaced_settings(policy)[1])
    shown = [name for name, value in values.items() if value != defaults[name] or (name in main and value is not None)]
    return ", ".join(f"{name} {values[name]}" for name in shown)


def without_effect(policy: Policy) -> list[str]:
    """Says which settings change nothing, whatever the values are."""
    if policy.strength == 0:
        return [f"{policy.name}: strength 0 changes nothing"]
    by, replaced = _replaced_settings(policy)
    changed = [name for name in replaced if getattr(policy, name) != getattr(type(policy), name)]
    names = " and ".join(filter(None, [", ".join(replaced[:-1]), *replaced[-1:]]))
    return [f"{policy.name}: {name} has no effect, because {by} replaces {names}" for name in changed]


def _replaced_settings(policy: Policy) -> tuple[str, tuple[str, ...]]:
    """The setting that replaces others, and the settings that it replaces; none for most policies."""
    if isinstance(policy, Cut) and policy.threshold is not None:
        return "threshold", ("band", "share", "proportion")
    if isinstance(policy, Inward) and policy.limit is not None:
        return "limit", ("knee",)
    if isinstance(policy, NearZero) and policy.proportion is not None:
        return "proportion", ("band", "share")
    return "", ()


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
