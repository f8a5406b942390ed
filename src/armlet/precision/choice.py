"""What is chosen on the calibration text: the setting of each method, the most damaging layers, and a contraction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log

from armlet.precision.codes import CODES, REFERENCES, Code
from armlet.precision.measure import CALIBRATION, Contraction, RoundingTrial, RunTrial
from armlet.precision.transforms import BY_ERROR, Compand, Hadamard, LeastError, Percentile, Plain, Smooth
from armlet.redistribution.inward import Inward

FULL, ROUNDED, COMPANDED, COMPANDED_STATIC = "full precision", "round to nearest", "compand", "compand, static knee"
WORST_KEPT, CONTRACT = "worst layers kept", "contract or clip"

TRANSFORMS: dict[str, Sequence[Plain]] = {
    ROUNDED: [Plain()],
    "percentile clip": [Percentile(share) for share in (0.99, 0.999, 0.9999, 0.99999)],
    "MSE clip": [LeastError()],
    "SmoothQuant": [Smooth(alpha) for alpha in (0.5, 0.75, 1.0)],
    "Hadamard rotation": [Hadamard()],
    COMPANDED: [Compand(knee) for knee in (0.5, 0.8, 0.9, 0.95)],
    COMPANDED_STATIC: [Compand(knee, fixed=True) for knee in (0.5, 0.9, 0.99, 0.999)],
}
"""Methods that transform all layers, and the settings among which one is chosen."""

EXPANDED = (COMPANDED, COMPANDED_STATIC)  # their codes cannot be used by an integer product
OURS = (*EXPANDED, CONTRACT)  # methods that use `Inward`; the others are the alternatives
KEPT_COUNTS = (1, 2, 4)  # how many layers `WORST_KEPT` leaves unrounded
WORST_LAYERS = 4  # for which contractions are tried: those with the largest damage

# By site and scope.
KNEES = {("gate", "token"): (0.99, 0.999), ("product", "token"): (0.99, 0.999), ("product", "sequence"): (0.9999,)}
CONTRACTIONS = tuple(
    Contraction(Inward(knee, curve), *where, ())
    for where, knees in KNEES.items()
    for curve in ("log", "clip")
    for knee in knees
)

UNROUNDED = RoundingTrial(CALIBRATION)


@dataclass(frozen=True)
class LayerGain:
    """A contraction that pays in one layer, with only that layer rounded (int8 tensor)."""

    contraction: Contraction  # in that layer alone
    cost: float  # nats per token by which it raises the loss without any rounding; within the limit
    gain: float  # nats per token by which it lowers the loss with the rounding; positive


@dataclass(frozen=True)
class Chosen:
    """Everything that calibration decides.

    `methods` has the trial of each method with its best setting, by reference code and name, in the order of the
    tables. With None for the code it has the unrounded model, without and with the contraction.
    """

    methods: Mapping[Code | None, Mapping[str, RoundingTrial]]
    damage: Mapping[Code, Mapping[int, float]]  # nats by which rounding one layer alone raises the loss
    gains: Mapping[int, LayerGain | None]  # the best of each layer that was tried; None where none pays
    contraction: Contraction | None  # in all its layers; None where none pays


def reference(code: Code) -> Code:
    """The code whose settings are used for `code`: the one with the same number format."""
    return next((known for known in REFERENCES if known.number == code.number), REFERENCES[0])


def most_trials(layers: int) -> int:
    """An upper bound of the number of trials of a run."""
    worst = min(WORST_LAYERS, layers)
    options = sum(map(len, TRANSFORMS.values())) + 1 + len(KEPT_COUNTS)  # 1: the knee by error
    held_out = len(CODES) * (len(TRANSFORMS) + 2) + 2 + 3 * worst
    return len(REFERENCES) * (layers + options) + len(CONTRACTIONS) * (2 * worst + 2) + held_out


def choose(run: RunTrial, layers: Sequence[int], limit: float, site: str | None = None) -> Chosen:
    """Chooses on the calibration text; `limit` and `site` as in `PrecisionPlan`."""
    damage = {code: layer_damage(run, layers, code) for code in REFERENCES}
    gains, contraction = choose_contraction(run, damage[REFERENCES[0]], limit, site)
    contracted = {CONTRACT: RoundingTrial(CALIBRATION, contraction=contraction)} if contraction else {}
    methods: dict[Code | None, dict[str, RoundingTrial]] = {None: {FULL: UNROUNDED} | contracted}
    methods |= {code: _choose_settings(run, code, damage[code]) | contracted for code in REFERENCES}
    return Chosen(methods, damage, gains, contraction)


def layer_damage(run: RunTrial, layers: Sequence[int], code: Code) -> dict[int, float]:
    """Nats per token by which rounding the input of a single layer's down raises the loss."""
    base = run(UNROUNDED).loss
    return {layer: run(RoundingTrial(CALIBRATION, code, layers=(layer,))).loss - base for layer in layers}


def _choose_settings(run: RunTrial, code: Code, damage: Mapping[int, float]) -> dict[str, RoundingTrial]:
    """Each method's trial of least loss; a single option is not run."""
    rounded, worst = RoundingTrial(CALIBRATION, code), _worst_first(damage)
    options = {name: [replace(rounded, transform=option) for option in TRANSFORMS[name]] for name in TRANSFORMS}
    if code.span == "token":  # which that knee assumes
        options[COMPANDED].append(replace(rounded, transform=Compand(BY_ERROR)))
    kept = [tuple(sorted(worst[count:])) for count in KEPT_COUNTS if count < len(worst)]
    options |= {WORST_KEPT: [replace(rounded, layers=layers) for layers in kept]} if kept else {}
    return {
        name: min(trials, key=lambda trial: run(trial).loss) if len(trials) > 1 else trials[0]
        for name, trials in options.items()
    }


def _worst_first(damage: Mapping[int, float]) -> list[int]:
    return sorted(damage, key=damage.__getitem__, reverse=True)


def choose_contraction(
    run: RunTrial, damage: Mapping[int, float], limit: float, site: str | None = None
) -> tuple[dict[int, LayerGain | None], Contraction | None]:
    """The best contraction of each of the worst layers, and the best one for several of them together.

    Each contraction is first measured in one layer at a time. Then layers are added, those with the largest net gain
    first, until their costs reach the limit. Together they are measured again, and the last layer is dropped until the
    limit is kept.
    """
    budget, rounded = log(1 + limit), RoundingTrial(CALIBRATION, REFERENCES[0])
    tried = [layer for layer in _worst_first(damage)[:WORST_LAYERS] if damage[layer] > 0]
    offered = [contraction for contraction in CONTRACTIONS if site in (None, contraction.site)]
    gains = [[_measure_gain(run, contraction, layer, budget) for layer in tried] for contraction in offered]
    by_layer = {layer: [gain for row in gains if (gain := row[at])] for at, layer in enumerate(tried)}
    best = {layer: max(paying, key=lambda gain: gain.gain, default=None) for layer, paying in by_layer.items()}
    paying = [[gain for gain in row if gain] for row in gains]
    joint = [contraction for row in paying if (contraction := _join_layers(run, row, budget))]
    losses = {contraction: run(replace(rounded, contraction=contraction)).loss for contraction in joint}
    chosen = min(losses, key=losses.__getitem__, default=None)
    return best, chosen if chosen and losses[chosen] < run(rounded).loss else None


def _measure_gain(run: RunTrial, contraction: Contraction, layer: int, budget: float) -> LayerGain | None:
    """None where it does not pay within the limit."""
    here, rounded = replace(contraction, layers=(layer,)), RoundingTrial(CALIBRATION, REFERENCES[0], layers=(layer,))
    cost = run(RoundingTrial(CALIBRATION, contraction=here)).loss - run(UNROUNDED).loss
    if cost > budget:
        return None
    gain = run(rounded).loss - run(replace(rounded, contraction=here)).loss
    return LayerGain(here, cost, gain) if gain > 0 else None


def _join_layers(run: RunTrial, gains: Sequence[LayerGain], budget: float) -> Contraction | None:
    """One contraction in as many of the layers in which it pays as the limit allows, measured together."""
    taken: list[LayerGain] = []
    for gain in sorted(gains, key=lambda gain: gain.gain - gain.cost, reverse=True):
        if sum(max(member.cost, 0) for member in (*taken, gain)) <= budget:
            taken.append(gain)
    while taken:
        layers = tuple(sorted(gain.contraction.layers[0] for gain in taken))
        joint = replace(taken[0].contraction, layers=layers)
        if run(RoundingTrial(CALIBRATION, contraction=joint)).loss - run(UNROUNDED).loss <= budget:
            return joint
        taken.pop()
    return None
