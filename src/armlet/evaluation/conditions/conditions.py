"""What is compared on the same items: baseline, treated, filler, their combinations, and placebos."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from armlet.attachment.config import describe
from armlet.attachment.sites import GATE
from armlet.evaluation.conditions.placebos import GATE_PLACEBOS, placebo
from armlet.evaluation.tasks.problems import Kind
from armlet.prompts.fillers import Filler, Position
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise, Source
from armlet.redistribution.policies import settings
from armlet.redistribution.rows import Policy

Role = Literal["baseline", "treated", "filler", "combined", "placebo", "best-of"]

BASELINE = "baseline"

GREEDY_PLACEBO_TEMPERATURE = 0.3  # of the placebo for greedy answers
BEST_OF_TEMPERATURE = 0.7  # of best-of conditions where the other answers are greedy
PLACEBO_FACTOR = 1.1  # times the temperature of sampled answers, or of the choices' likelihoods


@dataclass(frozen=True)
class Treatment:
    """How ARM is attached: the arguments of `attach`. Keyed noise has a stream of its own for each sample."""

    policy: Policy
    layers: int | Sequence[int] | str = 0
    scope: str = "token"
    noise: Source = Noise(0)  # noqa: RUF009 - frozen
    site: str = GATE

    def plain(self) -> dict[str, object]:
        """The content of an armlet.json; "all" layers remain a word until there is a model to count them."""
        layers = [self.layers] if isinstance(self.layers, int) else self.layers
        content = describe(self.policy, [], self.scope, self.noise, self.site)
        return content | {"layers": layers if isinstance(layers, str) else list(layers)}

    def for_sample(self, placebo_name: str | None, sample: int) -> "Treatment":
        """The treatment of one sample, with the policy or a placebo for it."""
        noise = Noise(self.noise.seed, self.noise.stream + sample) if isinstance(self.noise, Noise) else self.noise
        return replace(self, policy=placebo(placebo_name, self.policy) if placebo_name else self.policy, noise=noise)


@dataclass(frozen=True)
class Filling:
    """A filler and its position."""

    filler: Filler
    position: Position = "between"

    def label(self) -> str:
        """The name of its condition."""
        return f"filler {self.filler.count} × {self.filler.kind!r} {self.position}"


@dataclass(frozen=True)
class Condition:
    """One way to run all items."""

    name: str  # unique in a run
    role: Role  # what it is for
    treatment: Treatment | None = None  # None without ARM
    placebo: str | None = None  # attached instead of the treatment's policy: one of `GATE_PLACEBOS`
    filling: Filling | None = None  # None without filler
    temperature: float = 0.0  # of sampling, 0 for greedy
    weighing: float = 1.0  # the temperature of the choices' likelihoods; 1 leaves them unchanged
    samples: int = 1  # answers to each item

    def plain(self) -> dict[str, Any]:
        """For the manifest and the report."""
        filling = self.filling and {**vars(self.filling.filler), "position": self.filling.position}
        return {**vars(self), "treatment": self.treatment and self.treatment.plain(), "filling": filling}


def applies(role: Role, kind: Kind) -> bool:
    """Whether tasks of this kind are run in this role: choices are weighed, not sampled, so they have no best-of."""
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
    """The baseline, a condition for each treatment and filling, and the placebos.

    `best_of` sampled answers to each item are for a majority vote and the likeliest. `combine` adds each treatment with
    each filler, and each of these conditions with `best_of`. `placebos` are identity and draw-only for the first
    treatment, matched for each, and a change of temperature.
    """
    if not 0 <= temperature < math.inf:
        raise ArgumentError(f"--temperature: expected a number from 0, found {temperature}")
    if samples > 1 and not temperature:
        raise ArgumentError("--samples: several greedy answers are the same; give --temperature too, such as 0.7")
    baseline = Condition(BASELINE, BASELINE, temperature=temperature, samples=samples)
    treated = [replace(baseline, name=_label(t), role="treated", treatment=t) for t in treatments]
    filled = [replace(baseline, name=f.label(), role="filler", filling=f) for f in fillings]
    compared = [baseline, *treated, *filled]
    if combine:
        compared += [
            replace(arm, name=f"{arm.name} + {filler.name}", role="combined", filling=filler.filling)
            for arm in treated
            for filler in filled
        ]
    if best_of:
        compared += [_best_of(sampled, best_of, temperature) for sampled in (compared if combine else [baseline])]
    if placebos:
        compared += _placebos(baseline, treated)
    for name, times in Counter(condition.name for condition in compared).items():
        if times > 1:
            raise ArgumentError(f"conditions: there are two named {name!r}; give each policy, layer and filler once")
    return compared


def _best_of(condition: Condition, samples: int, temperature: float) -> Condition:
    name = f"best of {samples}" if condition.role == BASELINE else f"{condition.name} + best of {samples}"
    temperature = temperature or BEST_OF_TEMPERATURE
    return replace(condition, name=name, role="best-of", samples=samples, temperature=temperature)


def _placebos(baseline: Condition, treated: Sequence[Condition]) -> list[Condition]:
    inside = [
        replace(arm, name=f"matched ({arm.name})" if name == "matched" else name, role="placebo", placebo=name)
        for index, arm in enumerate(treated)
        for name in GATE_PLACEBOS
        if index == 0 or name == "matched"
    ]
    warmer = baseline.temperature * PLACEBO_FACTOR or GREEDY_PLACEBO_TEMPERATURE
    outside = replace(baseline, name="temperature", role="placebo", temperature=warmer, weighing=PLACEBO_FACTOR)
    return [*inside, outside]


def _label(treatment: Treatment) -> str:
    """The policy's name, and those of the treatment's settings that are not the defaults."""
    actual, default = (
        {**settings(t.policy), "layers": t.plain()["layers"], "scope": t.scope, "site": t.site}
        for t in (treatment, Treatment(type(treatment.policy)()))
    )
    changed = [f"{name}={_spelled(value)}" for name, value in actual.items() if value != default[name]]
    return " ".join([treatment.policy.name, *changed])


def _spelled(value: object) -> str:
    if isinstance(value, list | tuple):
        return "/".join(map(_spelled, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
