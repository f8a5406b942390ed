"""What is chosen on the calibration text: the knob of each method, the layers that do the damage, and a contraction."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from typing import Any

from armlet.precision.codes import Code
from armlet.precision.measure import Contraction, Trial
from armlet.precision.transforms import BY_ERROR, Compand, Hadamard, LeastError, Percentile, Plain, Smooth
from armlet.redistribution.inward import Inward

Run = Callable[[Trial], Mapping[str, Any]]
"""Runs a trial, or knows what came out of it."""

REFERENCES = (Code("int8", "tensor"), Code("int4", "token"))
"""The codes by which knobs are chosen; the first also for float8, and for what is done to layers."""

CANDIDATES: dict[str, Sequence[Plain]] = {
    "round to nearest": [Plain()],
    "percentile clip": [Percentile(share) for share in (0.99, 0.999, 0.9999, 0.99999)],
    "MSE clip": [LeastError()],
    "SmoothQuant": [Smooth(alpha) for alpha in (0.5, 0.75, 1.0)],
    "Hadamard rotation": [Hadamard()],
    "compand": [Compand(knee) for knee in (0.5, 0.8, 0.9, 0.95)],
    "compand, static knee": [Compand(knee, fixed=True) for knee in (0.5, 0.9, 0.99, 0.999)],
}
KEPT, CONTRACT = "worst layers kept", "contract or clip"
KEPT_COUNTS = (1, 2, 4)
ROUNDED, COMPANDED = "round to nearest", "compand"
EXPANDED = (COMPANDED, "compand, static knee")
"""Methods whose codes no integer product takes."""
OURS = (*EXPANDED, CONTRACT)
"""Methods that are `Inward`'s; the others are the alternatives."""

WORST = 4
"""Layers for which contractions are tried, those with the largest damage."""

CONTRACTIONS = (
    *(Contraction(Inward(knee, curve), "gate", "token", ()) for curve in ("log", "clip") for knee in (0.99, 0.999)),
    *(Contraction(Inward(knee, curve), "product", "token", ()) for curve in ("log", "clip") for knee in (0.99, 0.999)),
    *(Contraction(Inward(0.9999, curve), "product", "sequence", ()) for curve in ("log", "clip")),
)


@dataclass(frozen=True)
class Method:
    """A method with its knob chosen: what a trial of it needs besides text and code."""

    name: str
    transform: Plain = Plain()  # noqa: RUF009 - frozen
    layers: tuple[int, ...] | None = None
    contraction: Contraction | None = None

    def trial(self, text: str, code: Code | None) -> Trial:
        """This method at a code over a text."""
        return Trial(text, code, self.transform, self.layers, self.contraction)


@dataclass(frozen=True)
class LayerGain:
    """One contraction in one layer, with that layer alone rounded (int8 tensor), in nats a token.

    Args:
        contraction: in that layer alone.
        cost: what it adds to the loss without any rounding.
        gain: by how much it lowers the loss with the rounding; below 0 where it raises it, 0 and not measured where the
            cost alone is beyond the limit.
    """

    contraction: Contraction
    cost: float
    gain: float


@dataclass(frozen=True)
class Chosen:
    """All that calibration decides.

    Args:
        methods: by reference code, in the order of the tables.
        damage: nats that rounding one layer alone adds, by reference code and layer.
        gains: of each layer that was tried, its best contraction, None where none pays under the limit.
        contraction: in all its layers; None where none pays.
    """

    methods: Mapping[Code, Sequence[Method]]
    damage: Mapping[Code, Mapping[int, float]]
    gains: Mapping[int, LayerGain | None]
    contraction: Contraction | None


def reference(code: Code) -> Code:
    """The code by which knobs for `code` are chosen: that of its bits."""
    return next((each for each in REFERENCES if each.number == code.number), REFERENCES[0])


def choose(run: Run, layers: Sequence[int], limit: float, site: str | None = None) -> Chosen:
    """Chooses on the calibration text.

    Args:
        run: of trials.
        layers: of the model.
        limit: by how much a contraction may raise the perplexity without any rounding, as a fraction.
        site: the only one at which a contraction may be; None for either.
    """
    damage = {code: layer_damage(run, layers, code) for code in REFERENCES}
    gains, contraction = choose_contraction(run, damage[REFERENCES[0]], limit, site)
    methods = {code: list(_methods(run, code, damage[code], contraction)) for code in REFERENCES}
    return Chosen(methods, damage, gains, contraction)


def layer_damage(run: Run, layers: Sequence[int], code: Code) -> dict[int, float]:
    """Nats a token that rounding the input of one layer's down alone adds."""
    base = loss(run, Trial("calibration"))
    return {layer: loss(run, Trial("calibration", code, layers=(layer,))) - base for layer in layers}


def loss(run: Run, trial: Trial) -> float:
    """Mean over windows, in nats a token."""
    losses = run(trial)["nll"]
    return sum(losses) / len(losses)


def perplexity(losses: Sequence[float]) -> float:
    """Of windows of one length."""
    return exp(sum(losses) / len(losses))


def worst_first(damage: Mapping[int, float]) -> list[int]:
    """Layers by damage."""
    return sorted(damage, key=damage.__getitem__, reverse=True)


def _methods(run: Run, code: Code, damage: Mapping[int, float], contraction: Contraction | None) -> Iterator[Method]:
    options = {name: [Method(name, each) for each in transforms] for name, transforms in CANDIDATES.items()}
    worst = worst_first(damage)
    counts = [count for count in KEPT_COUNTS if count < len(worst)]
    if code.span == "token":  # which is what that knee presumes
        options[COMPANDED].append(Method(COMPANDED, Compand(BY_ERROR)))
    options[KEPT] = [Method(KEPT, layers=tuple(sorted(worst[count:]))) for count in counts]
    for methods in filter(None, options.values()):
        losses = [loss(run, each.trial("calibration", code)) if len(methods) > 1 else 0 for each in methods]
        yield methods[losses.index(min(losses))]
    if contraction:
        yield Method(CONTRACT, contraction=contraction)


def choose_contraction(
    run: Run, damage: Mapping[int, float], limit: float, site: str | None = None
) -> tuple[dict[int, LayerGain | None], Contraction | None]:
    """The best contraction of each of the worst layers, and the best one setting for several of them.

    Each setting is first measured in one layer at a time. Layers then join where they gain most for what they cost,
    until the costs reach the limit; what is chosen is measured jointly, and gives up its last layer until it keeps the
    limit.
    """
    room = log(1 + limit)
    tried = [layer for layer in worst_first(damage)[:WORST] if damage[layer] > 0]
    offered = [each for each in CONTRACTIONS if site in (None, each.site)]
    table = {(each, layer): _gain(run, each, layer, room) for each in offered for layer in tried}
    gains = {layer: _best([table[each, layer] for each in offered], room) for layer in tried}
    joint = [_join(run, [table[each, layer] for layer in tried], room) for each in offered]
    code = REFERENCES[0]
    losses = {each: loss(run, Trial("calibration", code, contraction=each)) for each in joint if each}
    losses = {each: found for each, found in losses.items() if found < loss(run, Trial("calibration", code))}
    return gains, min(losses, key=losses.__getitem__, default=None)


def _gain(run: Run, contraction: Contraction, layer: int, room: float) -> LayerGain:
    here = replace(contraction, layers=(layer,))
    code = REFERENCES[0]
    cost = loss(run, Trial("calibration", contraction=here)) - loss(run, Trial("calibration"))
    if cost > room:
        return LayerGain(here, cost, 0.0)
    rounded = Trial("calibration", code, layers=(layer,))
    return LayerGain(here, cost, loss(run, rounded) - loss(run, replace(rounded, contraction=here)))


def _best(gains: Sequence[LayerGain], room: float) -> LayerGain | None:
    paying = [each for each in gains if each.gain > 0 and each.cost <= room]
    return max(paying, key=lambda each: each.gain, default=None)


def _join(run: Run, gains: Sequence[LayerGain], room: float) -> Contraction | None:
    """One setting in as many layers as pay, measured together."""
    taken: list[LayerGain] = []
    for each in sorted(gains, key=lambda each: each.gain - each.cost, reverse=True):
        if each.gain > 0 and sum(max(one.cost, 0) for one in (*taken, each)) <= room:
            taken.append(each)
    base = loss(run, Trial("calibration"))
    while taken:
        layers = tuple(sorted(each.contraction.layers[0] for each in taken))
        joint = replace(taken[0].contraction, layers=layers)
        if loss(run, Trial("calibration", contraction=joint)) - base <= room:
            return joint
        taken.pop()
    return None
