"""The result of `armlet quantize`: a row for each code and method and one for each layer, with intervals."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, isfinite
from pathlib import Path

from armlet.attachment.config import ARMLET_FILE, describe
from armlet.precision.codes import Code
from armlet.precision.measure import Contraction, TrialOutcome
from armlet.precision.plan import PrecisionPlan
from armlet.presentation.files import write_json
from armlet.redistribution.noise import Noise
from armlet.statistics.comparison import compare


@dataclass(frozen=True)
class PerplexityRatio:
    """The ratio of two perplexities over the same windows, and its 95 % interval; None where there is no bound."""

    ratio: float
    low: float | None
    high: float | None

    @classmethod
    def between(cls, before: Sequence[float], after: Sequence[float], seed: int = 0) -> "PerplexityRatio":
        """Of after to before, from the losses of their windows.

        The windows' differences are compared with 0, so that a Bonett-Price interval, below 21 windows, takes its step
        from their range and not from that of the losses, which differ because texts differ.
        """
        differences = [b - a for a, b in zip(before, after, strict=True)]
        if not any(differences):  # the same run twice
            return cls(1.0, 1.0, 1.0)
        comparison = compare([0.0] * len(differences), differences, seed=seed)
        low, high = (exp(bound) if isfinite(bound) else None for bound in comparison.interval)
        return cls(exp(comparison.difference), low, high)

    def describe(self, digits: int) -> str:
        """The ratio, and its interval where there is one."""
        bounds = "" if self.low is None else f" [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        return f"{self.ratio:.{digits}f}{bounds}"


@dataclass(frozen=True)
class MethodRow:
    """One method at one code, on the held-out text.

    `recovered` is a share of the gap between full precision and rounding to nearest; None where the interval of that
    gap includes 0.
    """

    code: Code | None  # None for the unrounded model
    method: str
    setting: str  # what calibration chose, in words; empty where there is nothing to choose
    perplexity: float
    against_full: PerplexityRatio  # to the unrounded model's perplexity
    recovered: float | None
    outcome: TrialOutcome

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        named = {"code": str(self.code or "none"), "method": self.method, "setting": self.setting}
        measured = {"perplexity": self.perplexity, **asdict(self.against_full), "recovered": self.recovered}
        return named | measured | self.outcome.to_dict()


def rows_at(rows: Iterable[MethodRow], code: Code | None) -> dict[str, MethodRow]:
    """The rows of one code, by method."""
    return {row.method: row for row in rows if row.code == code}


@dataclass(frozen=True)
class LayerRow:
    """One layer alone: its damage on the calibration text, its best contraction and what that does on held-out text."""

    layer: int
    damage: Mapping[Code, float]  # ratio of perplexities, rounded to unrounded, by reference code
    tried: bool  # whether contractions were
    setting: str | None  # the best contraction; None where none pays within the limit
    cost: PerplexityRatio | None  # contracted to unrounded, without any rounding
    gain: PerplexityRatio | None  # with the layer rounded: with the contraction to without
    chosen: bool  # whether the layer is part of the chosen contraction

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        damage = {f"damage {code}": ratio for code, ratio in self.damage.items()}
        effect = {"cost": self.cost and asdict(self.cost), "gain": self.gain and asdict(self.gain)}
        described = {"tried": self.tried, "setting": self.setting, **effect, "chosen": self.chosen}
        return {"layer": self.layer, **damage, **described}


@dataclass(frozen=True)
class Precision:
    """Everything that a run measured."""

    plan: PrecisionPlan
    dtype: str  # of the model's weights
    rows: Sequence[MethodRow]  # the unrounded model first, then every method at each complete code
    layers: Sequence[LayerRow]
    contraction: Contraction | None  # the chosen one; None where none pays
    headline: Sequence[str]  # the first lines to show
    cautions: Sequence[str]  # what to know before the contraction is used
    interrupted: bool  # whether codes are missing

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        plan = self.plan
        source = {"source": plan.model, "dtype": self.dtype, "data": plan.data and str(plan.data)}
        said = {"interrupted": self.interrupted, "headline": self.headline, "cautions": self.cautions}
        layers, rows = ([row.to_dict() for row in table] for table in (self.layers, self.rows))
        return {**source, **plan.options(), "seed": plan.seed, **said, "layers": layers, "rows": rows}


def save_setting(contraction: Contraction | None, folder: Path) -> list[str]:
    """Writes armlet.json for a contraction and returns its path; without one, removes the file of an earlier run."""
    if contraction is None:
        (folder / ARMLET_FILE).unlink(missing_ok=True)
        return []
    content = describe(contraction.policy, contraction.layers, contraction.scope, Noise(0), contraction.site)
    return [str(write_json(folder / ARMLET_FILE, content))]
