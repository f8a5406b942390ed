"""What is compared on the same items: baseline, treated, filler, their combinations, and placebos."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from armlet.attachment.config import describe
from armlet.attachment.sites import GATE
from armlet.evaluation.conditions.placebos import PLACEBOS, placebo
from armlet.evaluation.tasks.problems import Kind
from armlet.prompts.fillers import Filler, Position
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise, Source
from armlet.redistribution.rows import Policy
from armlet.redistribution.spelling import settings

Role = Literal["baseline", "treated", "filler", "combined", "placebo", "best-of"]

BASELINE = "baseline"

WARMER = 0.3
"""Temperature of the placebo beside greedy answers."""

SAMPLED = 0.7
"""Temperature of the best of several where the other answers are greedy."""

FACTOR = 1.1
"""By how much the placebo's temperature is higher where answers are sampled, or choices weighed."""


@dataclass(frozen=True)
class Treatment:
    """How ARM is attached: the arguments of `attach`.

    Args:
        policy: what moves.
        layers: where.
        scope: over which values statistics are taken.
        noise: of each sample its own stream, where it is keyed.
        site: "gate" or "product".
    """

    policy: Policy
    layers: int | Sequence[int] | str = 0
    scope: str = "token"
    noise: Source = Noise(0)  # noqa: RUF009 - frozen
    site: str = GATE

    def plain(self) -> dict[str, Any]:
        """The content of an armlet.json; "all" layers stay a word until there is a model to count them."""
        listed: Any = [self.layers] if isinstance(self.layers, int) else self.layers
        whole = isinstance(listed, str)
        found = describe(self.policy, [] if whole else listed, self.scope, self.noise, self.site)
        return found | {"layers": listed if whole else list(listed)}

    def arguments(self, placebo_name: str | None, sample: int) -> dict[str, Any]:
        """The arguments of `attach` for one sample, of the policy or of a placebo for it."""
        noise = self.noise
        if isinstance(noise, Noise):
            noise = Noise(noise.seed, noise.stream + sample)
        policy = placebo(placebo_name, self.policy) if placebo_name else self.policy
        return {"policy": policy, "layers": self.layers, "scope": self.scope, "noise": noise, "site": self.site}


@dataclass(frozen=True)
class Filling:
    """A filler and where it stands."""

    filler: Filler
    position: Position = "between"


@dataclass(frozen=True)
class Condition:
    """One way to run all items.

    Args:
        name: unique in a run.
        role: what it is for.
        treatment: None without ARM.
        placebo: attached in place of the treatment's policy: one of `PLACEBOS`.
        filling: None without filler.
        temperature: of sampling, 0 for greedy.
        weighing: the temperature of the choices' likelihoods; 1 leaves them.
        samples: answers to each item.
    """

    name: str
    role: Role
    treatment: Treatment | None = None
    placebo: str | None = None
    filling: Filling | None = None
    temperature: float = 0.0
    weighing: float = 1.0
    samples: int = 1

    def plain(self) -> dict[str, Any]:
        """For the manifest and the report."""
        found: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.treatment:
            found["treatment"] = self.treatment.plain()
        if self.filling:
            found["filling"] = {**settings(self.filling.filler), "position": self.filling.position}
        return found


def applies(role: Role, kind: Kind) -> bool:
    """Whether a task of this kind is run so: choices are weighed, and there is no best of several weighings."""
    return kind != "choice" or role != "best-of"


def conditions(
    treatments: Sequence[Treatment],
    fillings: Sequence[Filling],
    *,
    temperature: float = 0.0,
    samples: int = 1,
    best_of: int = 0,
    combine: bool = False,
    placebos: bool = True,
) -> list[Condition]:
    """The baseline, what it is compared with, and the placebos.

    Args:
        treatments: each is a condition.
        fillings: each is a condition.
        temperature: of all conditions but the placebo for it and the best of several.
        samples: of all conditions but the best of several.
        best_of: so many sampled answers to each item, for a majority vote and the likeliest; 0 for none.
        combine: also each treatment with each filler, and either with `best_of`.
        placebos: identity and draw-only for the first treatment, matched for each, and a change of temperature.

    Raises:
        ArgumentError: no temperature, several samples of greedy answers, which would be the same, or two conditions of
            one name.
    """
    if not 0 <= temperature < math.inf:
        raise ArgumentError(f"--temperature: expected a number from 0, found {temperature}")
    if samples > 1 and not temperature:
        raise ArgumentError("--samples: several greedy answers are the same; give --temperature too, such as 0.7")
    base = Condition(BASELINE, BASELINE, temperature=temperature, samples=samples)
    treated = [replace(base, name=_label(each), role="treated", treatment=each) for each in treatments]
    filled = [replace(base, name=_filler_label(each), role="filler", filling=each) for each in fillings]
    found = [base, *treated, *filled]
    if combine:
        found += [_both(one, other) for one in treated for other in filled]
    if best_of:
        found += [_best_of(each, best_of, temperature) for each in (found if combine else [base])]
    found += _placebos(base, treated) if placebos else []
    twice = next((name for name, times in Counter(each.name for each in found).items() if times > 1), None)
    if twice:
        raise ArgumentError(f"conditions: there are two of the name {twice!r}; give each policy, layer and filler once")
    return found


def _both(one: Condition, other: Condition) -> Condition:
    return replace(one, name=f"{one.name} + {other.name}", role="combined", filling=other.filling)


def _best_of(condition: Condition, samples: int, temperature: float) -> Condition:
    prefix = "" if condition.role == BASELINE else f"{condition.name} + "
    name = f"{prefix}best of {samples}"
    return replace(condition, name=name, role="best-of", samples=samples, temperature=temperature or SAMPLED)


def _placebos(base: Condition, treated: Sequence[Condition]) -> list[Condition]:
    found = [
        replace(each, name=f"{name} ({each.name})" if name == "matched" else name, role="placebo", placebo=name)
        for at, each in enumerate(treated)
        for name in PLACEBOS
        if not at or name == "matched"
    ]
    warmer = base.temperature * FACTOR if base.temperature else WARMER
    return [*found, replace(base, name="temperature", role="placebo", temperature=warmer, weighing=FACTOR)]


def _label(treatment: Treatment) -> str:
    """The policy, and what of it and of its place is no default."""
    policy, usual = treatment.policy, Treatment(type(treatment.policy)())
    place = {"layers": treatment.plain()["layers"], "scope": treatment.scope, "site": treatment.site}
    given = {**settings(policy), **place}
    plain = {**settings(usual.policy), "layers": [usual.layers], "scope": usual.scope, "site": usual.site}
    changed = [f"{name}={_short(value)}" for name, value in given.items() if value != plain[name]]
    return " ".join([policy.name, *changed])


def _short(value: object) -> str:
    if isinstance(value, list | tuple):
        return "/".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _filler_label(filling: Filling) -> str:
    return f"filler {filling.filler.count} × {filling.filler.kind!r} {filling.position}"
