"""Chooses on the calibration text: a limit for each layer that exceeds the bound, and the layers to limit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, log

import numpy as np
import torch

from armlet.attachment.sites import GATE, PRODUCT
from armlet.bounds.curves import limit_for
from armlet.bounds.formats import VALUE_BOUNDS, rounded_down
from armlet.bounds.limits_measure import CURVES, Limit, LimitOutcome, LimitTrial, RunLimitTrial
from armlet.prompts.texts import CALIBRATION
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.rows import SMALLEST_LIMIT

LIMITED_SITES = (PRODUCT, GATE)

UNLIMITED = LimitTrial(CALIBRATION)


@dataclass(frozen=True)
class Target:
    """What the product of every layer must not exceed, and which limits may be used.

    bound: the magnitude; dtype: the model's, in which limited values come out.
    """

    bound: float
    margin: float  # how much larger the values on other texts may be
    dtype: torch.dtype
    site: str | None = None
    curve: str | None = None

    @classmethod
    def of(
        cls, format: str, headroom: float, margin: float, dtype: torch.dtype, site: str | None, curve: str | None
    ) -> "Target":
        """The target that leaves this headroom in a format."""
        return cls(VALUE_BOUNDS[format] / headroom, margin, dtype, site, curve)

    @property
    def inner_bound(self) -> float:
        """The bound less what rounding in the model's dtype may add, twice: to the curve's value, and to a product."""
        return self.bound * (1 - 2 * torch.finfo(self.dtype).eps)

    @property
    def gate_bound(self) -> float:
        """The largest product on the calibration text if the gate is limited: `up` may be larger by the margin."""
        return self.inner_bound / self.margin

    def allows(self, site: str, curve: str) -> bool:
        """Whether such a limit may be used."""
        return self.site in (None, site) and self.curve in (None, curve)

    def clip(self, layer: int) -> Limit:
        """The limit that keeps the product inside on every text."""
        return Limit(layer, PRODUCT, "clip", rounded_down(self.bound, self.dtype))


@dataclass(frozen=True)
class ChosenLimits:
    """Everything that calibration decides."""

    limits: Mapping[int, Limit]  # by layer
    costs: Mapping[int, float]  # nats per token by which the limit of only this layer raises the loss
    recommended: tuple[int, ...]  # layers whose limits together cost no more than allowed
    over: tuple[int, ...]  # layers that exceed the bound even with all limits


def layers_to_limit(outcome: LimitOutcome, target: Target) -> list[int]:
    """The layers whose product exceeds the bound on the calibration text, or may, by the margin, on another."""
    return [layer for layer in sorted(outcome.peaks) if outcome.largest(layer) * target.margin > target.bound]


def candidates(layer: int, outcome: LimitOutcome, target: Target) -> list[Limit]:
    """The limits to try in a layer; a clip that moves no value of the calibration text is the only one."""
    largest = outcome.largest(layer)
    if largest <= target.bound and target.allows(PRODUCT, "clip"):
        return [target.clip(layer)]
    by_gate = outcome.gate_limits.get(layer, {})
    knee = limit_for("log", np.array(largest * target.margin), np.array(target.inner_bound))
    numbers = {(PRODUCT, "clip"): target.bound, (PRODUCT, "log"): float(knee)}
    numbers |= {(GATE, curve): by_gate[curve] for curve in CURVES if curve in by_gate}
    return [
        Limit(layer, *place, rounded_down(number, target.dtype))
        for place, number in numbers.items()
        if target.allows(*place) and isfinite(number) and rounded_down(number, target.dtype) >= SMALLEST_LIMIT
    ]


def max_limit_trials(layers: int) -> int:
    """An upper bound on the number of trials with limits in so many layers."""
    return layers * (len(LIMITED_SITES) * len(CURVES) + 3) + 4


def choose_limits(run: RunLimitTrial, target: Target, max_cost: float) -> ChosenLimits:
    """Chooses each layer's limit by itself, makes sure that all together hold, then chooses the layers to limit.

    Raises ArgumentError if no allowed limit can be used in a layer that needs one.
    """
    before = run(UNLIMITED)
    limits = dict[int, Limit]()
    for layer in layers_to_limit(before, target):
        costs = {limit: _cost(run, (limit,)) for limit in candidates(layer, before, target)}
        usable = [limit for limit, cost in costs.items() if isfinite(cost)]
        if not usable:
            place = f"at the site {target.site}" if target.site else "at any site"
            raise ArgumentError(
                f"layer {layer}: its product exceeds {target.bound:g}, and no limit {place} can be used: the activated "
                "gate cannot be read, the limit is no number of float32, or the limited model returns NaN; "
                + ("leave the site out" if target.site else "choose another headroom or format")
            )
        limits[layer] = min(usable, key=costs.__getitem__)
    limits, over = _hold_together(run, limits, target)
    costs = {layer: _cost(run, (limit,)) for layer, limit in limits.items()}
    return ChosenLimits(limits, costs, _recommend(run, limits, costs, log(1 + max_cost)), over)


def _cost(run: RunLimitTrial, limits: Sequence[Limit]) -> float:
    """Nats per token by which limits raise the loss on the calibration text; infinite if the loss is no number."""
    before = run(UNLIMITED)
    if all(_moves_nothing(limit, before) for limit in limits):
        return 0.0
    cost = run(LimitTrial(CALIBRATION, tuple(limits))).loss - before.loss
    return cost if isfinite(cost) else inf


def _moves_nothing(limit: Limit, before: LimitOutcome) -> bool:
    return limit.site == PRODUCT and before.largest(limit.layer) <= limit.limit


def _hold_together(
    run: RunLimitTrial, limits: dict[int, Limit], target: Target
) -> tuple[dict[int, Limit], tuple[int, ...]]:
    """The limits, and the layers that exceed the bound with all of them.

    A layer's input changes if an earlier one is limited. Where its product then exceeds the bound, it is clipped
    instead, if that is allowed.
    """
    while True:
        joint = run(LimitTrial(CALIBRATION, tuple(limits.values())) if limits else UNLIMITED)
        over = tuple(layer for layer in sorted(joint.peaks) if not joint.largest(layer) <= target.bound)
        clips = {layer: target.clip(layer) for layer in over if target.allows(PRODUCT, "clip")}
        if not clips or clips.items() <= limits.items():
            return limits, over
        limits = dict(sorted({**limits, **clips}.items()))


def _recommend(
    run: RunLimitTrial, limits: Mapping[int, Limit], costs: Mapping[int, float], budget: float
) -> tuple[int, ...]:
    """As many layers as the budget, in nats, allows: the cheapest first, measured together."""
    selected = list[int]()
    for layer in sorted(costs, key=costs.__getitem__):
        if sum(max(costs[other], 0) for other in (*selected, layer)) <= budget:
            selected.append(layer)
    while selected and _cost(run, [limits[layer] for layer in sorted(selected)]) > budget:
        selected.pop()
    return tuple(sorted(selected))
