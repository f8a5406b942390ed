"""The conditions that are compared on the same items: baseline, ARM, fillers, their combinations, and placebos."""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

from armlet.attachment.config import (
    AttachArguments,
    SeveralPlacements,
    describe,
    layer_indices,
    load_config,
    load_origin,
)
from armlet.attachment.origin import Origin, policy_origin
from armlet.attachment.sites import ALL_EXPERTS, GATE
from armlet.evaluation.conditions.interventions import (
    Intervention,
    ModelChange,
    make_intervention,
    placements_intervention,
    read_treatment,
)
from armlet.evaluation.conditions.placebos import COMPARED_PLACEBOS, REPEAT, placebo, placebo_names
from armlet.evaluation.tasks.problems import Kind
from armlet.prompts.fillers import Filler, Position
from armlet.redistribution.built_in import POLICIES, PUBLISHED, is_user_policy
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise, Source, source
from armlet.redistribution.policies import parse_one_policy, settings
from armlet.redistribution.policy_class import default_settings
from armlet.redistribution.python_file import names_python_file
from armlet.redistribution.registry import code_identity, installed_names
from armlet.redistribution.rows import Policy

Role = Literal["baseline", "treated", "filler", "combined", "placebo", "best-of"]

BASELINE = "baseline"
DEFAULT_PLACE = {"layers": [0], "scope": "token", "site": GATE, "experts": ALL_EXPERTS}

GREEDY_PLACEBO_TEMPERATURE = 0.3  # of the temperature placebo if answers are greedy
BEST_OF_TEMPERATURE = 0.7  # of best-of conditions if the other answers are greedy
PLACEBO_FACTOR = 1.1  # multiplies the temperature of sampled answers, or of multiple-choice scoring


@dataclass(frozen=True)
class Treatment:
    """The arguments of `attach`. Keyed noise uses a separate stream for each sample."""

    policy: Policy
    layers: int | Sequence[int] | str = 0
    scope: str = "token"
    noise: Source = Noise(0)  # noqa: RUF009 - frozen
    site: str = GATE
    experts: str = ALL_EXPERTS
    origins: tuple[Origin, ...] = field(default=(), compare=False, repr=False)  # what chose the setting, if known

    def place(self) -> dict[str, Any]:
        """The arguments of `attach` without the policy."""
        return {name: value for name, value in vars(self).items() if name not in ("policy", "origins")}

    def plain(self) -> dict[str, object]:
        """What a run is recognised by: the content of an armlet.json, and the code of a package's policy."""
        return self.content() | code_identity(self.policy)

    def content(self) -> dict[str, object]:
        """The content of an armlet.json; layers "all" stay a word, because the number of layers is not known yet."""
        content = describe(self.policy, [], self.scope, self.noise, self.site, self.experts)
        return content | {"layers": layer_indices(self.layers)}

    def for_sample(self, placebo_name: str | None, sample: int) -> "Treatment":
        """The treatment for one sample, with its policy or with a placebo in place of the policy."""
        noise = Noise(self.noise.seed, self.noise.stream + sample) if isinstance(self.noise, Noise) else self.noise
        return replace(self, policy=placebo(placebo_name, self.policy) if placebo_name else self.policy, noise=noise)


AnyTreatment = Treatment | Intervention
"""ARM with its place, or a user's function."""

TreatmentSource = AnyTreatment | Policy | str | Path | AttachArguments | SeveralPlacements | ModelChange
"""A treatment, a policy as an object or text, the path of an armlet.json, the result of `load_config`, or a function
that returns a context manager over the model, as an object or as "file.py:function"."""


def make_treatments(
    sources: TreatmentSource | Sequence[TreatmentSource],
    *,
    layers: int | Sequence[int] | str = 0,
    scope: str = "token",
    site: str = GATE,
    experts: str = ALL_EXPERTS,
    seed: int = 0,
) -> list[AnyTreatment]:
    """The distinct treatments; `layers`, `scope`, `site`, `experts` and `seed` apply to policies.

    Raises ArgumentError for an unknown policy, and if the place has no effect because there is no policy.
    """
    listed: Sequence[TreatmentSource] = sources if isinstance(sources, list | tuple) else [sources]  # type: ignore[list-item]
    several = [_path_or_source(source) for source in listed]
    stated = [source for source in several if isinstance(source, AnyTreatment | Path | Mapping)]
    chosen_layers = layer_indices(layers)
    if len(stated) == len(several) and (chosen_layers, scope, site, experts) != ([0], "token", GATE, ALL_EXPERTS):
        raise ArgumentError("layers, scope, site, experts: they apply to a policy, and there is none; leave them out")
    place = {"layers": chosen_layers, "scope": scope, "noise": Noise(seed), "site": site, "experts": experts}
    distinct: dict[str, AnyTreatment] = {}
    for treatment in (_make_treatment(given, place) for given in several):
        known = distinct.setdefault(json.dumps(treatment.plain()), treatment)
        if isinstance(known, Treatment) and isinstance(treatment, Treatment):  # equal settings may have two origins
            origins = tuple(dict.fromkeys((*known.origins, *treatment.origins)))
            distinct[json.dumps(treatment.plain())] = replace(known, origins=origins)
    return list(distinct.values())


def _make_treatment(given: TreatmentSource, place: dict[str, Any]) -> AnyTreatment:
    if isinstance(given, Intervention):
        return given
    if isinstance(given, Path):
        arguments, origin = load_config(given), load_origin(given)
        if "layers" not in arguments:
            return placements_intervention(arguments, given.name)
        return Treatment(**arguments, origins=(origin,) if origin else ())
    if isinstance(given, Mapping) and isinstance(given.get("policy"), list):
        return placements_intervention(cast("SeveralPlacements", given), None)
    treatment = given if isinstance(given, Treatment) else Treatment(**_arguments(given, place))
    try:
        policy, origin = parse_one_policy(treatment.policy, treatment.scope), policy_origin(treatment.policy)
        origins = (origin,) if origin else treatment.origins
        return replace(treatment, policy=policy, noise=source(treatment.noise), origins=origins)
    except ArgumentError as error:
        raise ArgumentError(re.sub("^policy:", "treatments:", str(error))) from error


def _arguments(given: Policy | str | Mapping[str, Any] | ModelChange, place: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a treatment, of a policy at this place, or of a mapping as `load_config` returns it."""
    if not isinstance(given, Mapping):
        return {"policy": given, **place}
    names = [argument.name for argument in fields(Treatment) if argument.compare]
    if "policy" not in given or not set(given) <= set(names):
        expected = f"expected a mapping with policy, and perhaps {', '.join(names[1:])}"
        raise ArgumentError(f"treatments: {expected}, found {', '.join(map(str, given)) or 'an empty one'}")
    return dict(given)


def _path_or_source(source: TreatmentSource) -> TreatmentSource:
    """The path for a text that names an armlet.json or its folder, but no policy; a function as an `Intervention`.

    "file.py:name" is a function or a policy's class, as the file says.
    """
    if isinstance(source, Callable) and not isinstance(source, type) and not is_user_policy(source):
        return make_intervention(source)
    if isinstance(source, str) and names_python_file(source):
        return read_treatment(source)
    if not isinstance(source, str) or source.partition(":")[0] in (*POLICIES, PUBLISHED, *installed_names()):
        return source
    return Path(source) if source.endswith(".json") or os.path.exists(source) else source


@dataclass(frozen=True)
class Filling:
    """A filler and its position."""

    filler: Filler
    position: Position = "between"

    def label(self) -> str:
        """The name of the condition that uses this filler."""
        return f"filler {self.filler.count} × {self.filler.kind!r} {self.position}"


@dataclass(frozen=True)
class Condition:
    """One way to run all items."""

    name: str  # unique in a run
    role: Role  # its purpose
    treatment: AnyTreatment | None = None  # None for the model as it is
    placebo: str | None = None  # one of `GATE_PLACEBOS`, attached in place of the treatment's policy, or `REPEAT`
    filling: Filling | None = None  # None without filler
    temperature: float = 0.0  # of sampling, 0 for greedy
    weighing: float = 1.0  # the temperature of multiple-choice scoring
    samples: int = 1  # answers per item

    def plain(self) -> dict[str, Any]:
        """The condition as plain values, for the manifest and the report."""
        filling = self.filling and {**vars(self.filling.filler), "position": self.filling.position}
        return {**vars(self), "treatment": self.treatment and self.treatment.plain(), "filling": filling}


def applies(role: Role, kind: Kind) -> bool:
    """Whether tasks of this kind use this role: multiple choice is not sampled, so it has no best-of."""
    return kind != "choice" or role != "best-of"


def conditions(
    treatments: Sequence[AnyTreatment],
    fillings: Sequence[Filling],
    *,
    temperature: float = 0.0,
    samples: int = 1,
    best_of: int = 0,
    combine: bool = False,
    placebos: bool = True,
) -> list[Condition]:
    """The baseline, a condition for each treatment and filling, and the placebos.

    `best_of` is the number of answers sampled per item, of which the majority or the most likely one is selected.
    `combine` adds each treatment with each filler, and each of these conditions with `best_of`. `placebos` adds
    identity and draw-only for the first treatment, matched for each treatment, zeroed for each `Outward`, A/A, and a
    change of temperature. A user's function has neither a strength nor values that can be matched, so only the last
    two apply to it.
    """
    if not 0 <= temperature < math.inf:
        raise ArgumentError(f"temperature: expected a finite number of 0 or more, found {temperature}")
    if samples > 1 and not temperature:
        raise ArgumentError("samples: all greedy answers to an item are the same; add a temperature, such as 0.7")
    if best_of == 1:
        raise ArgumentError("best_of: a vote needs at least 2 answers, found 1; 0 for none")
    baseline = Condition(BASELINE, BASELINE, temperature=temperature, samples=samples)
    treated = [
        replace(baseline, name=name, role="treated", treatment=treatment)
        for name, treatment in zip(_treatment_names(treatments), treatments, strict=True)
    ]
    filled = [replace(baseline, name=f.label(), role="filler", filling=f) for f in fillings]
    compared = [baseline, *treated, *filled]
    if combine:
        if bool(treated) + bool(filled) + bool(best_of) < 2:
            raise ArgumentError("combine: needs two of a policy, a filler and best_of; leave it out")
        compared += [
            replace(arm, name=f"{arm.name} + {filler.name}", role="combined", filling=filler.filling)
            for arm in treated
            for filler in filled
        ]
    if best_of:
        compared += [_best_of(sampled, best_of, temperature) for sampled in (compared if combine else [baseline])]
    if placebos:
        compared += _placebos(baseline, treated)
    for name, count in Counter(condition.name for condition in compared).items():
        if count > 1:
            raise ArgumentError(f"conditions: two are named {name!r}; name each policy, layer and filler only once")
    return compared


def _best_of(condition: Condition, samples: int, temperature: float) -> Condition:
    name = f"best of {samples}" if condition.role == BASELINE else f"{condition.name} + best of {samples}"
    temperature = temperature or BEST_OF_TEMPERATURE
    return replace(condition, name=name, role="best-of", samples=samples, temperature=temperature)


def _placebos(baseline: Condition, treated: Sequence[Condition]) -> list[Condition]:
    gate_placebos = [
        replace(arm, name=f"{name} ({arm.name})" if name in COMPARED_PLACEBOS else name, role="placebo", placebo=name)
        for index, (arm, treatment) in enumerate(
            (arm, arm.treatment) for arm in treated if isinstance(arm.treatment, Treatment)
        )
        for name in placebo_names(treatment.policy, first=index == 0)
    ]
    higher = baseline.temperature * PLACEBO_FACTOR or GREEDY_PLACEBO_TEMPERATURE
    temperature = replace(baseline, name="temperature", role="placebo", temperature=higher, weighing=PLACEBO_FACTOR)
    return [*gate_placebos, replace(baseline, name="A/A", role="placebo", placebo=REPEAT), temperature]


def _treatment_names(treatments: Sequence[AnyTreatment]) -> list[str]:
    """The names of treatments; of equal ones, such as of two versions of a file, with digits of the file's sha256."""
    names = [_label(treatment) for treatment in treatments]
    codes = [str(treatment.plain().get("sha256", ""))[-8:] for treatment in treatments]
    return [
        f"{name} {code}" if code and names.count(name) > 1 else name for name, code in zip(names, codes, strict=True)
    ]


def _label(treatment: AnyTreatment) -> str:
    """The policy's name, and the treatment's settings that differ from the defaults; the name of a user's function."""
    if isinstance(treatment, Intervention):
        return treatment.name
    actual = settings(treatment.policy) | {**treatment.place(), "layers": layer_indices(treatment.layers)}
    default = default_settings(type(treatment.policy)) | DEFAULT_PLACE
    del actual["noise"]
    changed = [f"{name}={_setting_text(value)}" for name, value in actual.items() if value != default[name]]
    return " ".join([treatment.policy.name, *changed])


def _setting_text(value: object) -> str:
    if isinstance(value, list | tuple):
        return "/".join(map(_setting_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
