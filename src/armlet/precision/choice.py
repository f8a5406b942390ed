"""Chooses on the calibration text: the setting of each method, the most damaging layers, and a contraction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log

from armlet.precision.measure import Contraction, RoundingTrial, RunTrial
from armlet.precision.schemes import REFERENCES, SCHEMES, QuantScheme
from armlet.precision.transforms import BY_ERROR, Compand, Hadamard, LeastError, Percentile, Smooth, Transform
from armlet.prompts.texts import CALIBRATION
from armlet.redistribution.inward import Inward

FULL, ROUNDED, COMPANDED, COMPANDED_STATIC = "full precision", "round to nearest", "compand", "compand, static knee"
WORST_KEPT, CONTRACT = "worst layers kept", "contract or clip"

TRANSFORMS: dict[str, Sequence[Transform]] = {
    ROUNDED: [Transform()],
    "percentile clip": [Percentile(share) for share in (0.99, 0.999, 0.9999, 0.99999)],
    "MSE clip": [LeastError()],
    "SmoothQuant": [Smooth(alpha) for alpha in (0.5, 0.75, 1.0)],
    "Hadamard rotation": [Hadamard()],
    COMPANDED: [Compand(knee) for knee in (0.5, 0.8, 0.9, 0.95)],
    COMPANDED_STATIC: [Compand(knee, fixed=True) for knee in (0.5, 0.9, 0.99, 0.999)],
}
"""Methods that transform all layers, each with the settings to choose from."""

EXPANDED = (COMPANDED, COMPANDED_STATIC)  # methods whose values an integer matmul cannot use
OURS = (*EXPANDED, CONTRACT)  # methods that use `Inward`; the others are the alternatives
KEPT_COUNTS = (1, 2, 4)  # numbers of layers that `WORST_KEPT` may leave unrounded
WORST_LAYERS = 4  # number of layers, those with the largest damage, in which contractions are tried

# Knees to try, by site and scope.
KNEES = {("gate", "token"): (0.99, 0.999), ("product", "token"): (0.99, 0.999), ("product", "sequence"): (0.9999,)}
CONTRACTIONS = tuple(
    Contraction(Inward(knee=knee, curve=curve), *place, ())
    for place, knees in KNEES.items()
    for curve in ("log", "clip")
    for knee in knees
)

UNROUNDED = RoundingTrial(CALIBRATION)


@dataclass(frozen=True)
class LayerGain:
    """A contraction that lowers the loss if only its layer is rounded (int8 tensor)."""

    contraction: Contraction  # only in that layer
    cost: float  # nats per token by which it raises the loss without any rounding; within the limit
    gain: float  # nats per token by which it lowers the loss with the rounding; positive


@dataclass(frozen=True)
class Chosen:
    """Everything that calibration decides.

    `methods` maps each reference scheme and method name to the trial with the best setting, in the order of the tables.
    The scheme None stands for the unrounded model, without and with the contraction.
    """

    methods: Mapping[QuantScheme | None, Mapping[str, RoundingTrial]]
    damage: Mapping[QuantScheme, Mapping[int, float]]  # nats by which rounding only this layer raises the loss
    gains: Mapping[int, LayerGain | None]  # the best for each layer that was tried; None if none lowers the loss
    contraction: Contraction | None  # with all its layers; None if none lowers the loss


def reference(scheme: QuantScheme) -> QuantScheme:
    """The scheme whose settings are used for `scheme`: the one of the same dtype, or else the first."""
    return next((candidate for candidate in REFERENCES if candidate.dtype == scheme.dtype), REFERENCES[0])


def max_trials(layers: int) -> int:
    """An upper bound on the number of trials in a run."""
    worst = min(WORST_LAYERS, layers)
    options = sum(map(len, TRANSFORMS.values())) + 1 + len(KEPT_COUNTS)  # 1: the knee by error
    held_out = len(SCHEMES) * (len(TRANSFORMS) + 2) + 2 + 3 * worst
    return len(REFERENCES) * (layers + options) + len(CONTRACTIONS) * (2 * worst + 2) + held_out


def choose(run: RunTrial, layers: Sequence[int], limit: float, site: str | None = None) -> Chosen:
    """Chooses on the calibration text; `limit` and `site` as in `PrecisionPlan`."""
    damage = {scheme: layer_damage(run, layers, scheme) for scheme in REFERENCES}
    gains, contraction = choose_contraction(run, damage[REFERENCES[0]], limit, site)
    contracted = {CONTRACT: RoundingTrial(CALIBRATION, contraction=contraction)} if contraction else {}
    methods: dict[QuantScheme | None, dict[str, RoundingTrial]] = {None: {FULL: UNROUNDED} | contracted}
    methods |= {scheme: _choose_settings(run, scheme, damage[scheme]) | contracted for scheme in REFERENCES}
    return Chosen(methods, damage, gains, contraction)


def layer_damage(run: RunTrial, layers: Sequence[int], scheme: QuantScheme) -> dict[int, float]:
    """Nats per token by which rounding the input of a single layer's `down` raises the loss."""
    base = run(UNROUNDED).loss
    return {layer: run(RoundingTrial(CALIBRATION, scheme, layers=(layer,))).loss - base for layer in layers}


def _choose_settings(run: RunTrial, scheme: QuantScheme, damage: Mapping[int, float]) -> dict[str, RoundingTrial]:
    """The trial with the lowest loss for each method; a single option is not run."""
    rounded, worst = RoundingTrial(CALIBRATION, scheme), _worst_first(damage)
    options = {name: [replace(rounded, transform=option) for option in TRANSFORMS[name]] for name in TRANSFORMS}
    if scheme.granularity == "token":  # as `BY_ERROR` assumes
        options[COMPANDED].append(replace(rounded, transform=Compand(BY_ERROR)))
    choices = [tuple(sorted(worst[count:])) for count in KEPT_COUNTS if count < len(worst)]
    options |= {WORST_KEPT: [replace(rounded, layers=layers) for layers in choices]} if choices else {}
    return {
        name: min(trials, key=lambda trial: run(trial).loss) if len(trials) > 1 else trials[0]
        for name, trials in options.items()
    }


def _worst_first(damage: Mapping[int, float]) -> list[int]:
    return sorted(damage, key=damage.__getitem__, reverse=True)


def choose_contraction(
    run: RunTrial, damage: Mapping[int, float], limit: float, site: str | None = None
) -> tuple[dict[int, LayerGain | None], Contraction | None]:
    """The best contraction for each of the worst layers, and the best one for several of them together.

    Each contraction is first measured in one layer at a time. Then layers are added, those with the largest net gain
    first, until their costs reach the limit. The layers are measured together, and the last one is dropped until the
    cost is within the limit.
    """
    budget, rounded = log(1 + limit), RoundingTrial(CALIBRATION, REFERENCES[0])
    layers = [layer for layer in _worst_first(damage)[:WORST_LAYERS] if damage[layer] > 0]
    allowed = [contraction for contraction in CONTRACTIONS if site in (None, contraction.site)]
    gains = [[_measure_gain(run, contraction, layer, budget) for layer in layers] for contraction in allowed]
    by_layer = {layer: [gain for row in gains if (gain := row[index])] for index, layer in enumerate(layers)}
    best = {layer: max(options, key=lambda gain: gain.gain, default=None) for layer, options in by_layer.items()}
    by_contraction = [[gain for gain in row if gain] for row in gains]
    joint = [contraction for row in by_contraction if (contraction := _join_layers(run, row, budget))]
    losses = {contraction: run(replace(rounded, contraction=contraction)).loss for contraction in joint}
    chosen = min(losses, key=losses.__getitem__, default=None)
    return best, chosen if chosen and losses[chosen] < run(rounded).loss else None


def _measure_gain(run: RunTrial, contraction: Contraction, layer: int, budget: float) -> LayerGain | None:
    """Measures the contraction in one layer; None if it costs more than the budget or does not lower the loss."""
    single, rounded = replace(contraction, layers=(layer,)), RoundingTrial(CALIBRATION, REFERENCES[0], layers=(layer,))
    cost = run(RoundingTrial(CALIBRATION, contraction=single)).loss - run(UNROUNDED).loss
    if cost > budget:
        return None
    gain = run(rounded).loss - run(replace(rounded, contraction=single)).loss
    return LayerGain(single, cost, gain) if gain > 0 else None


def _join_layers(run: RunTrial, gains: Sequence[LayerGain], budget: float) -> Contraction | None:
    """One contraction in as many of these layers as the budget allows, measured together; None if in no layer."""
    selected: list[LayerGain] = []
    for gain in sorted(gains, key=lambda gain: gain.gain - gain.cost, reverse=True):
        if sum(max(member.cost, 0) for member in (*selected, gain)) <= budget:
            selected.append(gain)
    while selected:
        layers = tuple(sorted(gain.contraction.layers[0] for gain in selected))
        joint = replace(selected[0].contraction, layers=layers)
        if run(RoundingTrial(CALIBRATION, contraction=joint)).loss - run(UNROUNDED).loss <= budget:
            return joint
        selected.pop()
    return None
