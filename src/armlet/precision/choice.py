"""What is chosen on the calibration text: the setting of each method, the most damaging layers, and a contraction."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log

from armlet.precision.codes import CODES, Code
from armlet.precision.transforms import BY_ERROR, Compand, Hadamard, LeastError, Percentile, Plain, Smooth
from armlet.precision.trials import CALIBRATION, Contraction, RoundingTrial, TrialOutcome
from armlet.redistribution.inward import Inward

RunTrial = Callable[[RoundingTrial], TrialOutcome]
"""Runs a trial, or looks its outcome up."""

REFERENCES = (Code("int8", "tensor"), Code("int4", "token"))
"""The codes for which settings are chosen; the first also stands for float8, and for the damage of single layers."""

FULL, ROUNDED, COMPANDED = "full precision", "round to nearest", "compand"
WORST_KEPT, CONTRACT = "worst layers kept", "contract or clip"

TRANSFORMS: dict[str, Sequence[Plain]] = {
    ROUNDED: [Plain()],
    "percentile clip": [Percentile(share) for share in (0.99, 0.999, 0.9999, 0.99999)],
    "MSE clip": [LeastError()],
    "SmoothQuant": [Smooth(alpha) for alpha in (0.5, 0.75, 1.0)],
    "Hadamard rotation": [Hadamard()],
    COMPANDED: [Compand(knee) for knee in (0.5, 0.8, 0.9, 0.95)],
    "compand, static knee": [Compand(knee, fixed=True) for knee in (0.5, 0.9, 0.99, 0.999)],
}
"""Methods that transform all layers, and the settings among which one is chosen."""

EXPANDED = (COMPANDED, "compand, static knee")
"""Methods whose codes an integer product cannot use."""

OURS = (*EXPANDED, CONTRACT)
"""Methods that use `Inward`; the others are the alternatives."""

KEPT_COUNTS = (1, 2, 4)
"""How many layers `WORST_KEPT` leaves unrounded."""

WORST_LAYERS = 4
"""Number of layers for which contractions are tried: those with the largest damage."""

CONTRACTIONS = (
    *(Contraction(Inward(knee, curve), "gate", "token", ()) for curve in ("log", "clip") for knee in (0.99, 0.999)),
    *(Contraction(Inward(knee, curve), "product", "token", ()) for curve in ("log", "clip") for knee in (0.99, 0.999)),
    *(Contraction(Inward(0.9999, curve), "product", "sequence", ()) for curve in ("log", "clip")),
)

UNROUNDED = RoundingTrial(CALIBRATION)


@dataclass(frozen=True)
class LayerGain:
    """One contraction in one layer, with only that layer rounded (int8 tensor); in nats per token.

    Attributes:
        contraction: in that layer alone.
        cost: by how much it raises the loss without any rounding.
        gain: by how much it lowers the loss with the rounding; negative where it raises it, 0 and not measured where
            the cost alone exceeds the limit.
    """

    contraction: Contraction
    cost: float
    gain: float


@dataclass(frozen=True)
class Chosen:
    """Everything that calibration decides.

    Attributes:
        methods: by reference code and name, in the order of the tables: the trial with the best setting. With None for
            the code, the unrounded model, without and with the contraction.
        damage: nats by which rounding one layer alone raises the loss, by reference code and layer.
        gains: the best contraction of each layer that was tried, None where none pays within the limit.
        contraction: in all its layers; None where none pays.
    """

    methods: Mapping[Code | None, Mapping[str, RoundingTrial]]
    damage: Mapping[Code, Mapping[int, float]]
    gains: Mapping[int, LayerGain | None]
    contraction: Contraction | None


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
    """Chooses on the calibration text.

    Args:
        run: runs a trial.
        layers: of the model.
        limit: by how much a contraction may raise the perplexity without any rounding, as a fraction.
        site: the only one at which a contraction may be; None for either.
    """
    damage = {code: layer_damage(run, layers, code) for code in REFERENCES}
    gains, contraction = choose_contraction(run, damage[REFERENCES[0]], limit, site)
    contracted = {CONTRACT: RoundingTrial(CALIBRATION, contraction=contraction)} if contraction else {}
    methods: dict[Code | None, dict[str, RoundingTrial]] = {None: {FULL: UNROUNDED} | contracted}
    methods |= {code: dict(_choose_settings(run, code, damage[code])) | contracted for code in REFERENCES}
    return Chosen(methods, damage, gains, contraction)


def layer_damage(run: RunTrial, layers: Sequence[int], code: Code) -> dict[int, float]:
    """Nats per token by which rounding the input of a single layer's down raises the loss."""
    base = run(UNROUNDED).loss
    return {layer: run(RoundingTrial(CALIBRATION, code, layers=(layer,))).loss - base for layer in layers}


def _choose_settings(run: RunTrial, code: Code, damage: Mapping[int, float]) -> Iterator[tuple[str, RoundingTrial]]:
    """Each method's name, and its trial of least loss."""
    rounded = RoundingTrial(CALIBRATION, code)
    options = {
        name: [replace(rounded, transform=transform) for transform in settings] for name, settings in TRANSFORMS.items()
    }
    if code.span == "token":  # which that knee assumes
        options[COMPANDED].append(replace(rounded, transform=Compand(BY_ERROR)))
    worst = _worst_first(damage)
    kept = [worst[count:] for count in KEPT_COUNTS if count < len(worst)]
    options[WORST_KEPT] = [replace(rounded, layers=tuple(sorted(layers))) for layers in kept]
    for name, trials in options.items():
        if trials:
            yield name, min(trials, key=lambda trial: run(trial).loss) if len(trials) > 1 else trials[0]


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
    best = {layer: _best_gain([row[at] for row in gains], budget) for at, layer in enumerate(tried)}
    joint = [contraction for row in gains if (contraction := _join_layers(run, row, budget))]
    losses = {contraction: run(replace(rounded, contraction=contraction)).loss for contraction in joint}
    chosen = min(losses, key=losses.__getitem__, default=None)
    return best, chosen if chosen and losses[chosen] < run(rounded).loss else None


def _measure_gain(run: RunTrial, contraction: Contraction, layer: int, budget: float) -> LayerGain:
    here = replace(contraction, layers=(layer,))
    cost = run(RoundingTrial(CALIBRATION, contraction=here)).loss - run(UNROUNDED).loss
    if cost > budget:
        return LayerGain(here, cost, 0.0)
    rounded = RoundingTrial(CALIBRATION, REFERENCES[0], layers=(layer,))
    return LayerGain(here, cost, run(rounded).loss - run(replace(rounded, contraction=here)).loss)


def _best_gain(gains: Sequence[LayerGain], budget: float) -> LayerGain | None:
    paying = [gain for gain in gains if gain.gain > 0 and gain.cost <= budget]
    return max(paying, key=lambda gain: gain.gain, default=None)


def _join_layers(run: RunTrial, gains: Sequence[LayerGain], budget: float) -> Contraction | None:
    """One contraction in as many of the layers as pay, measured together."""
    taken: list[LayerGain] = []
    for gain in sorted(gains, key=lambda gain: gain.gain - gain.cost, reverse=True):
        if gain.gain > 0 and sum(max(member.cost, 0) for member in (*taken, gain)) <= budget:
            taken.append(gain)
    while taken:
        layers = tuple(sorted(gain.contraction.layers[0] for gain in taken))
        joint = replace(taken[0].contraction, layers=layers)
        if run(RoundingTrial(CALIBRATION, contraction=joint)).loss - run(UNROUNDED).loss <= budget:
            return joint
        taken.pop()
    return None
