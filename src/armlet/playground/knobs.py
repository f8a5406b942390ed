"""The knobs of the page: one for each setting of each policy, and how they and a policy's text become each other."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from armlet.redistribution.built_in import POLICIES, PUBLISHED
from armlet.redistribution.errors import ArgumentError, description
from armlet.redistribution.policies import (
    Knob,
    knobs,
    make_policy,
    parse_policy,
    policy_text,
    settings,
)
from armlet.redistribution.rows import Policy

COMMON = ("strength",)  # a knob that all policies share
HIDDEN = ("target",)  # it has one choice

RANGES: dict[str, tuple[float, float, float]] = {
    "band": (0.01, 1.0, 0.01),
    "ceiling": (0.5, 1.0, 0.005),
    "share_low": (0.0, 0.5, 0.01),
    "share_high": (0.0, 1.0, 0.01),
    "proportion": (0.0, 0.9, 0.01),
    "knee": (0.5, 1.0, 0.001),
    "limit": (0.0, 20.0, 0.05),
    "spread": (0.05, 3.0, 0.05),
    "threshold": (0.0, 5.0, 0.01),
    "strength": (0.0, 1.0, 0.05),
}
"""Lowest and highest value of each slider, and its step. A link or an armlet.json may have values outside them."""

OFF = 0.0  # of a setting that may be absent
PAIR_ENDS = ("low", "high")


@dataclass(frozen=True)
class PageKnob:
    """A control on the page."""

    policy: str  # the name of its policy; "" for a common one
    name: str  # of the setting, for a pair with its end, as in share_low
    value: float | str  # at first; `OFF` for a setting that is absent
    choices: tuple[str, ...] = ()  # empty for a slider

    @property
    def key(self) -> str:
        """A name that no other control has."""
        return f"{self.policy or 'any'}-{self.name}"


def page_knobs() -> list[PageKnob]:
    """Every control, in order: those of each policy, then the common ones."""
    of_policies = [part for knob in knobs() if knob.name not in (*COMMON, *HIDDEN) for part in _page_knobs(knob)]
    common = [
        part for knob in knobs() if knob.name in COMMON and knob.policy == "outward" for part in _page_knobs(knob)
    ]
    return [*of_policies, *(replace(part, policy="") for part in common)]


def _page_knobs(knob: Knob) -> list[PageKnob]:
    """The control of a setting, or those of both ends of a pair."""
    pair = isinstance(knob.default, tuple)
    values: dict[str, Any] = {"": knob.default}
    if isinstance(knob.default, tuple):
        values = dict(zip(PAIR_ENDS, knob.default, strict=True))
    choices = tuple(POLICIES[knob.policy].choices.get(knob.name, ()))
    return [
        PageKnob(knob.policy, f"{knob.name}_{end}" if pair else knob.name, OFF if value is None else value, choices)
        for end, value in values.items()
    ]


def page_policy(text: str) -> Policy:
    """The policy of a text, which may come from a link: a file that it names is not run.

    Raises ArgumentError for text that is no built-in policy, of which alone the page has knobs.
    """
    if text.partition(":")[0] not in (*POLICIES, PUBLISHED):
        problem = f"the page has knobs for {', '.join(POLICIES)}, found {description(text)}"
        raise ArgumentError(f"policy: {problem}; armlet inspect shows others")
    return parse_policy(text)


def policy_of_knobs(name: str, values: Mapping[str, float | str]) -> str:
    """The text of a policy from the values of the controls, by their keys; raises ArgumentError if one is refused."""
    chosen = dict[str, object]()
    for setting, default in settings(make_policy(name, {})).items():
        key = f"any-{setting}" if setting in COMMON else f"{name}-{setting}"
        if isinstance(default, tuple):
            chosen[setting] = tuple(_step(values[f"{key}_{end}"]) for end in PAIR_ENDS)
        elif setting in HIDDEN:
            chosen[setting] = default
        else:
            value = _step(values[key])
            chosen[setting] = None if default is None and value == OFF else value
    return policy_text(make_policy(name, chosen))


def _step(value: float | str) -> float | str:
    """The value of a control; a slider counts in steps, with rounding errors."""
    return value if isinstance(value, str) else float(f"{value:.12g}")


def knobs_of_policy(text: str) -> dict[str, float | str]:
    """The values of the controls for the text of a policy, by their keys; those of other policies are left out.

    Raises ArgumentError as `page_policy`.
    """
    policy, values = page_policy(text), dict[str, float | str]()
    for setting, value in settings(policy).items():
        key = f"any-{setting}" if setting in COMMON else f"{policy.name}-{setting}"
        if isinstance(value, tuple):
            values |= {f"{key}_{end}": part for end, part in zip(PAIR_ENDS, value, strict=True)}
        elif setting not in HIDDEN:
            values[key] = OFF if value is None else value  # type: ignore[assignment] - a number or a choice
    return values
