"""What an explanation found: a record for each quantity and for each class of tokens, with paired intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, isnan, nan

import numpy as np
from numpy.typing import NDArray

from armlet.mechanism.classes import CLASSES
from armlet.mechanism.layers import LayerFindings, Setup
from armlet.mechanism.measure import QUANTITIES, TokenValues
from armlet.presentation.numbers import finite_or_none
from armlet.prompts.fillers import RANDOM_SENTENCE, Filler
from armlet.redistribution.rows import Policy
from armlet.redistribution.spelling import detail
from armlet.statistics.resampling import draw_weights, percentile_interval, replicate_means

NO_TREATMENT = "as it is"

UNFILLED = {"mass": 1.0, "lambda": 1.0, "shift": 0.0}
"""Values of the quantities of attention where there is no filler; the others are not defined there."""


@dataclass(frozen=True)
class QuantityChange:
    """The mean of one quantity without filler and with it; NaN where it is not defined.

    Args:
        layer, filler, count, quantity: the layer's index, the filler's kind and tokens, and one of `QUANTITIES`.
        without, filled, change: mean without filler, mean with it, and `filled` − `without`.
        interval_of: what `low` and `high` are bounds of, "change", or "value" where there is none without a filler.
    """

    layer: int
    filler: str
    count: int
    quantity: str
    without: float
    filled: float
    change: float
    interval_of: str
    low: float
    high: float

    def to_dict(self) -> dict[str, object]:
        """For JSON and CSV: None in place of NaN."""
        return finite_or_none({"with" if name == "filled" else name: value for name, value in vars(self).items()})


@dataclass(frozen=True)
class ClassShare:
    """The mean near-zero share of one class of tokens; NaN where it is not defined.

    Args:
        layer, name, tokens: the layer's index, one of `CLASSES`, and how many tokens are of this class.
        treatment: `NO_TREATMENT`, or what `treatment_of` calls the filler or policy.
        share, share_low, share_high: the mean and its interval.
        against, reference: what it is compared with, and its mean. Without treatment, that is the class "other"; after
            a treatment, the same class without it.
        change, low, high: `share` − `reference`, and its interval.
    """

    layer: int
    name: str
    tokens: int
    treatment: str
    share: float
    share_low: float
    share_high: float
    against: str
    reference: float
    change: float
    low: float
    high: float

    def to_dict(self) -> dict[str, object]:
        """For JSON and CSV: None in place of NaN."""
        return finite_or_none({"class" if name == "name" else name: value for name, value in vars(self).items()})


@dataclass(frozen=True)
class Explanation:
    """All findings of a run: its setup, those of each layer (at least one), and the records, layer by layer."""

    setup: Setup
    findings: Sequence[LayerFindings]
    quantities: list[QuantityChange]
    classes: list[ClassShare]

    def to_dict(self) -> dict[str, object]:
        """For JSON: all records, and the attention that each token of the first prompt receives, as in the figure."""
        setup, first = self.setup, self.findings[0]
        prompt, filler = setup.prompts[0], setup.fillers[setup.example()]
        without, filled = ([number if isfinite(number) else None for number in s.tolist()] for s in first.received)
        place = {"layer": first.layer, "filler": filler.kind, "count": filler.count, "at": prompt.at}
        return {
            "attention": place | {"words": prompt.words, "without": without, "with": filled},
            "rows": [change.to_dict() for change in self.quantities],
            "classes": [share.to_dict() for share in self.classes],
        }


def summarise(findings: Sequence[LayerFindings], setup: Setup) -> Explanation:
    """Takes the means of every layer, with paired bootstrap intervals from one set of resamples."""
    weights = draw_weights(setup.prompt_of_tokens(), seed=setup.seed)
    changes = [change for layer in findings for change in quantity_changes(layer, setup.fillers, weights)]
    shares = [share for layer in findings for share in class_shares(layer, setup, weights)]
    return Explanation(setup, findings, changes, shares)


def quantity_changes(findings: LayerFindings, fillers: Sequence[Filler], weights: TokenValues) -> list[QuantityChange]:
    """A record for each filler and each of `QUANTITIES`; weights: `[resamples, tokens]`, of `draw_weights`."""
    before = {name: findings.without.get(name, UNFILLED.get(name, np.nan)) for name in QUANTITIES}
    records: list[QuantityChange] = []
    for filler, filled in zip(fillers, findings.filled, strict=True):
        changes = np.stack([filled[name] - np.nan_to_num(before[name]) for name in QUANTITIES], axis=1)
        bounds = percentile_interval(replicate_means(changes, weights)).T
        for name, (low, high) in zip(QUANTITIES, bounds, strict=True):
            without, value = float(np.mean(before[name])), float(filled[name].mean())
            bounded = "value" if isnan(without) else "change"
            place = (findings.layer, filler.kind, filler.count, name)
            means = (_finite_or_nan(without), _finite_or_nan(value), _finite_or_nan(value - without))
            records.append(QuantityChange(*place, *means, bounded, _finite_or_nan(low), _finite_or_nan(high)))
    return records


def class_shares(findings: LayerFindings, setup: Setup, weights: TokenValues) -> list[ClassShare]:
    """For each class of the questions' tokens a record untreated, and one for each filler and each policy."""
    classes, before = setup.classes(), findings.without["near_zero"]
    treatments = [treatment_of(cause) for cause in (*setup.fillers, *setup.policies)]
    after = [*(filled["near_zero"] for filled in findings.filled), *findings.treated]
    records: list[ClassShare] = []
    for name in CLASSES:
        chosen = classes == name
        if not chosen.any():
            continue
        place, untreated = (findings.layer, name, int(chosen.sum())), _share_means(before, chosen, weights)
        other = _share_means(before, classes == "other", weights)
        records.append(_class_share(place, NO_TREATMENT, untreated, "other", other))
        for treatment, shares in zip(treatments, after, strict=True):
            treated = _share_means(shares, chosen, weights)
            records.append(_class_share(place, treatment, treated, NO_TREATMENT, untreated))
    return records


def treatment_of(cause: Filler | Policy) -> str:
    """What a `ClassShare` calls a filler or a policy."""
    if isinstance(cause, Filler):
        return f"{cause.count} × {cause.kind if cause.kind == RANDOM_SENTENCE else repr(cause.kind)}"
    return f"{type(cause).__name__}, {detail(cause)}"


def _share_means(shares: TokenValues, chosen: NDArray[np.bool_], weights: TokenValues) -> TokenValues:
    """The mean over the chosen tokens, followed by that of each resample: `[1 + resamples]`."""
    mean = shares[chosen].mean() if chosen.any() else nan
    return np.append(mean, replicate_means(shares[chosen, None], weights[:, chosen]))


def _class_share(
    place: tuple[int, str, int], treatment: str, means: TokenValues, against: str, reference: TokenValues
) -> ClassShare:
    share, compared, change = _estimate(means), float(reference[0]), _estimate(means - reference)
    return ClassShare(*place, treatment, *share, against, compared, *change)


def _estimate(means: TokenValues) -> tuple[float, float, float]:
    """The mean, and its interval by those of the resamples after it."""
    low, high = percentile_interval(means[1:, None])[:, 0]
    return float(means[0]), float(low), float(high)


def _finite_or_nan(number: float) -> float:
    return float(number) if isfinite(number) else nan
