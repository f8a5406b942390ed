"""What `attach` was asked for: one or several placements, a policy and where it is each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from armlet.attachment.config import AttachArguments, describe, layer_indices, several_placements
from armlet.attachment.origin import ORIGIN_KEY, Origin, policy_origin
from armlet.attachment.sites import ALL_EXPERTS, GATE
from armlet.redistribution.arguments import check_policy
from armlet.redistribution.errors import ArgumentError, description
from armlet.redistribution.noise import Noise, Source, source
from armlet.redistribution.policies import as_policy
from armlet.redistribution.rows import Policy

DEFAULTS: Mapping[str, Any] = {
    "layers": 0,
    "scope": "token",
    "noise": Noise(0),
    "site": GATE,
    "experts": ALL_EXPERTS,
}
"""The arguments of `attach` beside the policy."""


@dataclass(frozen=True)
class Placement:
    """A policy and where it is: the arguments of `attach`, checked as far as they can be without a model."""

    policy: Policy
    layers: Sequence[int] | str  # distinct and ascending, or "all"
    scope: str
    noise: Source
    site: str
    experts: str
    origin: Origin | None = None  # what chose the setting, if the text of the policy said it

    def arguments(self) -> AttachArguments:
        """The arguments of `attach`."""
        return AttachArguments(
            policy=self.policy,
            layers=self.layers if isinstance(self.layers, str) else [*self.layers],
            scope=self.scope,
            noise=self.noise,
            site=self.site,
            experts=self.experts,
        )

    def content(self) -> dict[str, object]:
        """The content of an armlet.json with this placement; raises ConfigError for noise that a file cannot store."""
        content = describe(self.policy, self.layers, self.scope, self.noise, self.site, self.experts)
        return content | ({ORIGIN_KEY: self.origin.plain()} if self.origin else {})

    def with_policy(self, policy: Policy, origin: Origin | None = None) -> "Placement":
        """The same place with another policy; raises ArgumentError if its scope does not allow that."""
        check_policy(policy, self.scope)
        return replace(self, policy=policy, origin=origin)


def read_placements(policy: Any, defaults: Mapping[str, Any] = DEFAULTS) -> list[Placement]:
    """The placements of a call of `attach`: one, or those of a list, which state arguments other than the defaults.

    Raises ArgumentError for an entry that is no mapping with a policy, or a wrong argument.
    """
    single = isinstance(policy, str) or not isinstance(policy, Sequence)
    entries: list[Any] = [{"policy": policy}] if single else [*policy]
    if not entries:
        raise ArgumentError(
            "policy: expected a policy or a list of placements, found an empty list (a model trained without clamps?)"
        )
    return [_read_placement(entry, defaults) for entry in entries]


def _read_placement(entry: object, defaults: Mapping[str, Any]) -> Placement:
    if not isinstance(entry, Mapping) or "policy" not in entry or not set(entry) <= {"policy", *defaults}:
        expected = f"mappings with policy, and perhaps {', '.join(defaults)}"
        raise ArgumentError(f"policy: expected {expected} in a list of placements, found {description(entry)}")
    chosen = {**defaults, **entry}
    policy = as_policy(chosen["policy"])
    check_policy(policy, chosen["scope"])
    origin, layers = policy_origin(chosen["policy"]), layer_indices(chosen["layers"])
    return Placement(
        policy, layers, chosen["scope"], source(chosen["noise"]), chosen["site"], chosen["experts"], origin
    )


def placements_content(placements: Sequence[Placement]) -> dict[str, object]:
    """The content of an armlet.json with these placements; raises ConfigError as `Placement.content`."""
    contents = [placement.content() for placement in placements]
    return contents[0] if len(contents) == 1 else several_placements(contents)
