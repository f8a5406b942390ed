"""The rows of a result, with intervals: one for each scheme and method, and one for each layer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import exp

from armlet.precision.choice import Chosen, reference
from armlet.precision.measure import Contraction, RoundingTrial, RunTrial, TrialOutcome
from armlet.precision.schemes import REFERENCES, QuantScheme
from armlet.prompts.texts import HELD_OUT
from armlet.statistics.perplexity import PerplexityRatio


@dataclass(frozen=True)
class MethodRow:
    """One method at one scheme, on the held-out text.

    `recovered` is a share of the gap between full precision and rounding to nearest; None if the interval of that gap
    includes 0.
    """

    scheme: QuantScheme | None  # None for the unrounded model
    method: str
    setting: str  # the setting that calibration chose, in words; empty if there is nothing to choose
    perplexity: float
    against_full: PerplexityRatio  # ratio to the unrounded model's perplexity
    recovered: float | None
    outcome: TrialOutcome

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        names = {"code": str(self.scheme or "none"), "method": self.method, "setting": self.setting}
        measures = {"perplexity": self.perplexity, **asdict(self.against_full), "recovered": self.recovered}
        return names | measures | self.outcome.to_dict()


def rows_with(rows: Iterable[MethodRow], scheme: QuantScheme | None) -> dict[str, MethodRow]:
    """The rows of one scheme, by method."""
    return {row.method: row for row in rows if row.scheme == scheme}


@dataclass(frozen=True)
class LayerRow:
    """A single layer: its damage on the calibration text, its best contraction, and its effect on held-out text."""

    layer: int
    damage: Mapping[QuantScheme, float]  # ratio of perplexities, rounded to unrounded, by reference scheme
    tried: bool  # whether contractions were tried in this layer
    setting: str | None  # the best contraction; None if none lowers the loss within the limit
    cost: PerplexityRatio | None  # without any rounding: with the contraction to without
    gain: PerplexityRatio | None  # with the layer rounded: with the contraction to without
    chosen: bool  # whether the layer is part of the chosen contraction

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        damage = {f"damage {scheme}": ratio for scheme, ratio in self.damage.items()}
        effect = {"cost": self.cost and asdict(self.cost), "gain": self.gain and asdict(self.gain)}
        contraction = {"tried": self.tried, "setting": self.setting, **effect, "chosen": self.chosen}
        return {"layer": self.layer, **damage, **contraction}


def method_rows(run: RunTrial, chosen: Chosen, scheme: QuantScheme | None, seed: int) -> list[MethodRow]:
    """A row for every method at one scheme; with None, for the unrounded model, without and with the contraction.

    `recovered` is None unless the interval shows that there is a gap.
    """
    full, nearest = run(RoundingTrial(HELD_OUT)), run(RoundingTrial(HELD_OUT, scheme))
    gap = nearest.perplexity - full.perplexity
    resolved = (PerplexityRatio.between(full.losses, nearest.losses, seed).low or 0) > 1
    rows = list[MethodRow]()
    for name, trial in chosen.methods[scheme and reference(scheme)].items():
        outcome = run(replace(trial, text=HELD_OUT, scheme=scheme))
        against_full = PerplexityRatio.between(full.losses, outcome.losses, seed)
        recovered = (nearest.perplexity - outcome.perplexity) / gap if resolved else None
        rows.append(MethodRow(scheme, name, _setting(trial), outcome.perplexity, against_full, recovered, outcome))
    return rows


def _setting(trial: RoundingTrial) -> str:
    """The setting that calibration chose, in words; empty if there is nothing to choose."""
    if trial.contraction:
        return contraction_setting(trial.contraction)
    if trial.layers is not None:
        return f"rounded: {_layer_spans(trial.layers)}"
    return ", ".join(f"{name} {value}" for name, value in vars(trial.transform).items() if name != "fixed")


def contraction_setting(contraction: Contraction) -> str:
    """A contraction and its layers in words."""
    return f"{contraction}, {_layer_spans(contraction.layers)}"


def _layer_spans(layers: Sequence[int]) -> str:
    """The layers as text, such as "layers 0-3,7"."""
    starts = [layer for layer in layers if layer - 1 not in layers]
    stops = [layer for layer in layers if layer + 1 not in layers]
    spans = ",".join(f"{a}-{b}" if b > a else str(a) for a, b in zip(starts, stops, strict=True))
    return f"layer{'s' * (len(layers) > 1)} {spans}"


def layer_rows(run: RunTrial, chosen: Chosen, seed: int) -> list[LayerRow]:
    """A row for each layer, with the effect of its best contraction on held-out windows."""
    rows = list[LayerRow]()
    for layer in chosen.damage[REFERENCES[0]]:
        damage = {scheme: exp(nats[layer]) for scheme, nats in chosen.damage.items()}
        setting = cost = benefit = None
        if gain := chosen.gains.get(layer):
            setting = str(gain.contraction)
            trials = RoundingTrial(HELD_OUT), RoundingTrial(HELD_OUT, REFERENCES[0], layers=(layer,))
            pairs = [(run(trial).losses, run(replace(trial, contraction=gain.contraction)).losses) for trial in trials]
            cost, benefit = (PerplexityRatio.between(*pair, seed) for pair in pairs)
        contracted = chosen.contraction is not None and layer in chosen.contraction.layers
        rows.append(LayerRow(layer, damage, layer in chosen.gains, setting, cost, benefit, contracted))
    return rows
