"""The rows of a result: the headroom of each layer, and the effect of each limit, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, log2

from armlet.attachment.sites import PRODUCT
from armlet.bounds.extremes import QUANTITIES, Peak
from armlet.bounds.formats import FLOAT_FORMATS, INT8_STATIC, MAXIMA, NVFP4, Q8_1
from armlet.bounds.limits_choice import ChosenLimits
from armlet.bounds.limits_measure import Limit, LimitOutcome, LimitTrial, RunLimitTrial
from armlet.bounds.limits_plan import LimitsRun
from armlet.prompts.texts import HELD_OUT
from armlet.statistics.perplexity import PerplexityRatio


@dataclass(frozen=True)
class TokenPeak:
    """The largest magnitude of a quantity in one layer on held-out text, and the first token that has it."""

    value: float
    calibration: float  # the largest magnitude on calibration text
    window: int
    position: int
    token: str

    @property
    def where(self) -> str:
        """The token and its place, as text."""
        return f"{self.token!r} {self.window}:{self.position}"


@dataclass(frozen=True)
class LayerHeadroom:
    """The largest values of one layer; a quantity that cannot be read is absent.

    zeros, lost: shares of the product's values that NVFP4 stores as 0 though they are not, and that are in blocks
    whose scale it stores as 0; its float32 scale maps the largest value of the calibration text to its largest number.
    None if its blocks do not fill the width.
    """

    layer: int
    peaks: Mapping[str, TokenPeak]
    zeros: float | None
    lost: float | None

    def headroom(self, quantity: str = PRODUCT) -> dict[str, float]:
        """By format, its maximum over the largest value; without formats that do not apply, and none for zeros."""
        peak = self.peaks.get(quantity)
        if peak is None or not peak.value:
            return {}
        maxima = {**FLOAT_FORMATS, INT8_STATIC: peak.calibration} if quantity != Q8_1 else {Q8_1: MAXIMA[Q8_1]}
        maxima |= {NVFP4: MAXIMA[NVFP4]} if quantity == PRODUCT else {}
        factors = {name: maximum / peak.value for name, maximum in maxima.items() if maximum}
        return factors | (self.headroom(Q8_1) if quantity == PRODUCT else {})

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        quantities = {name: {**asdict(peak), "headroom": self._factors(name)} for name, peak in self.peaks.items()}
        return {"layer": self.layer, **quantities, "nvfp4 zeros": self.zeros, "nvfp4 lost": self.lost}

    def _factors(self, quantity: str) -> dict[str, dict[str, float]]:
        factors = self.headroom(quantity)
        return {name: {"factor": factor, "bits": log2(factor)} for name, factor in factors.items()}


@dataclass(frozen=True)
class LimitRow:
    """The limit of one layer, and its effect on held-out text.

    `owed` is the ratio of all limits to all but this one; `share` is its share of the cost of all limits in nats, None
    if the interval does not show that they cost anything.
    """

    limit: Limit
    calibration: float  # ratio of perplexities on calibration text, with the limit of this layer alone to without
    before: float  # the largest product without limits
    after: float  # with all limits
    within: bool  # whether it is then within the bound
    alone: PerplexityRatio  # with the limit of this layer alone to without
    without: PerplexityRatio  # with all other limits to without
    owed: PerplexityRatio
    share: float | None
    recommended: bool

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        ratios = {name: asdict(getattr(self, name)) for name in ("alone", "without", "owed")}
        values = {name: getattr(self, name) for name in ("calibration", "before", "after", "within")}
        return {**asdict(self.limit), **values, **ratios, "share": self.share, "recommended": self.recommended}


@dataclass(frozen=True)
class LimitSet:
    """Several limits together, on held-out text."""

    limits: tuple[Limit, ...]
    cost: PerplexityRatio  # to the model without limits
    perplexity: float
    largest: Mapping[int, float]  # the largest product of every layer
    over: tuple[int, ...]  # layers whose product exceeds the bound

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that are limited."""
        return tuple(limit.layer for limit in self.limits)

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        largest = [self.largest[layer] for layer in sorted(self.largest)]
        facts = {"cost": asdict(self.cost), "perplexity": self.perplexity, "largest": largest, "over": [*self.over]}
        return {"layers": [*self.layers], **facts}


def headroom_rows(run: LimitsRun, held_out: LimitOutcome, calibration: LimitOutcome) -> list[LayerHeadroom]:
    """A row for each layer."""
    rows = list[LayerHeadroom]()
    for layer, by_name in sorted(held_out.peaks.items()):
        names = [name for name in QUANTITIES if name in by_name]
        before = calibration.peaks[layer]
        peaks = {name: _with_token(run, by_name[name], before[name].value) for name in names if name in before}
        rows.append(LayerHeadroom(layer, peaks, *held_out.zeros.get(layer, (None, None))))
    return rows


def _with_token(run: LimitsRun, peak: Peak, calibration: float) -> TokenPeak:
    token = run.token(HELD_OUT, peak.window, peak.position)
    return TokenPeak(peak.value, calibration, peak.window, peak.position, token)


def limit_set(run: RunLimitTrial, limits: Sequence[Limit], bound: float, seed: int) -> LimitSet:
    """Measures several limits together on held-out text."""
    full, outcome = run(LimitTrial(HELD_OUT)), run(LimitTrial(HELD_OUT, tuple(limits)))
    largest = {layer: outcome.largest(layer) for layer in outcome.peaks}
    over = tuple(layer for layer, value in sorted(largest.items()) if not value <= bound)
    cost = PerplexityRatio.between(full.losses, outcome.losses, seed)
    return LimitSet(tuple(limits), cost, outcome.perplexity, largest, over)


def limit_row(run: RunLimitTrial, chosen: ChosenLimits, layer: int, bound: float, seed: int) -> LimitRow:
    """Measures one limit on held-out text: alone, and all limits without it."""
    limits = chosen.limits
    others = tuple(limit for limit in limits.values() if limit.layer != layer)
    kinds = [(), (limits[layer],), others, tuple(limits.values())]
    full, alone, without, together = (run(LimitTrial(HELD_OUT, kind)) for kind in kinds)
    before, after = full.largest(layer), together.largest(layer)
    return LimitRow(
        limits[layer],
        exp(chosen.costs[layer]),
        before,
        after,
        after <= bound,
        alone=PerplexityRatio.between(full.losses, alone.losses, seed),
        without=PerplexityRatio.between(full.losses, without.losses, seed),
        owed=PerplexityRatio.between(without.losses, together.losses, seed),
        share=_share(full, without, together, seed),
        recommended=layer in chosen.recommended,
    )


def _share(full: LimitOutcome, without: LimitOutcome, together: LimitOutcome, seed: int) -> float | None:
    """The share of the cost of all limits, in nats, that is saved without one; None if they are not shown to cost."""
    costs = (PerplexityRatio.between(full.losses, together.losses, seed).low or 0) > 1
    return (together.loss - without.loss) / (together.loss - full.loss) if costs else None
