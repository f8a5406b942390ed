"""The result of `armlet quantize`: a row for each scheme and method and one for each layer, with intervals."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, isfinite
from pathlib import Path

from armlet.attachment.config import ARMLET_FILE, describe
from armlet.precision.measure import Contraction, TrialOutcome
from armlet.precision.plan import PrecisionPlan
from armlet.precision.schemes import QuantScheme
from armlet.presentation.files import write_json
from armlet.redistribution.noise import Noise
from armlet.statistics.comparison import compare


@dataclass(frozen=True)
class PerplexityRatio:
    """The ratio of two perplexities over the same windows, and its 95 % interval; None for an infinite bound."""

    ratio: float
    low: float | None
    high: float | None

    @classmethod
    def between(cls, before: Sequence[float], after: Sequence[float], seed: int = 0) -> "PerplexityRatio":
        """The ratio of after to before, from the losses of their windows.

        The differences are compared with 0, so that a Bonett-Price interval, used below 21 windows, depends on their
        range and not on the range of the losses, which also differ between texts.
        """
        differences = [b - a for a, b in zip(before, after, strict=True)]
        if not any(differences):  # the same run twice
            return cls(1.0, 1.0, 1.0)
        comparison = compare([0.0] * len(differences), differences, seed=seed)
        low, high = (exp(bound) if isfinite(bound) else None for bound in comparison.interval)
        return cls(exp(comparison.difference), low, high)

    def describe(self, digits: int) -> str:
        """The ratio as text, with its interval if it has one."""
        bounds = "" if self.low is None else f" [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        return f"{self.ratio:.{digits}f}{bounds}"


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


@dataclass(frozen=True)
class Precision:
    """Everything that a run measured."""

    plan: PrecisionPlan
    dtype: str  # dtype of the model's weights
    rows: Sequence[MethodRow]  # the unrounded model first, then every method at each complete scheme
    layers: Sequence[LayerRow]
    contraction: Contraction | None  # the chosen contraction; None if none lowers the loss within the limit
    headline: Sequence[str]  # the first lines to show
    cautions: Sequence[str]  # warnings about the use of the contraction
    interrupted: bool  # whether schemes are missing

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        plan = self.plan
        source = {"source": plan.model, "dtype": self.dtype, "data": plan.data and str(plan.data)}
        messages = {"interrupted": self.interrupted, "headline": self.headline, "cautions": self.cautions}
        layers, rows = ([row.to_dict() for row in table] for table in (self.layers, self.rows))
        return {**source, **plan.options(), "seed": plan.seed, **messages, "layers": layers, "rows": rows}


def save_setting(contraction: Contraction | None, folder: Path) -> list[str]:
    """Writes armlet.json for a contraction and returns its path; without one, removes the file of an earlier run."""
    if contraction is None:
        (folder / ARMLET_FILE).unlink(missing_ok=True)
        return []
    content = describe(contraction.policy, contraction.layers, contraction.scope, Noise(0), contraction.site)
    return [str(write_json(folder / ARMLET_FILE, content))]
