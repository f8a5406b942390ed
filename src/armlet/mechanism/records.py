"""A record for each quantity and each class of tokens, with paired intervals over prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

import numpy as np

from armlet.mechanism.classes import CLASSES
from armlet.mechanism.layers import LayerFindings, Setup
from armlet.mechanism.measure import QUANTITIES
from armlet.presentation.numbers import finite_or_none
from armlet.prompts.fillers import RANDOM_SENTENCE, Filler
from armlet.redistribution.policies import detail
from armlet.redistribution.rows import Policy
from armlet.statistics import FloatArray
from armlet.statistics.intervals import draw_weights, percentile_interval, resample_means

NO_TREATMENT = "as it is"

UNFILLED = {"mass": 1.0, "lambda": 1.0, "shift": 0.0}
"""Values of the attention quantities without filler; the other attention quantities are not defined without it."""

JSON_KEYS = {"filled": "with", "name": "class"}  # keys in JSON and CSV that are not valid as names of Python fields


@dataclass(frozen=True)
class LayerRecord:
    """Means in one layer, with an interval over prompts; NaN if they are not defined.

    The interval is NaN if fewer than two prompts contribute (see `resample_means`) or if resamples cannot differ.
    """

    layer: int

    def to_dict(self) -> dict[str, object]:
        """For JSON and CSV: None in place of NaN."""
        return finite_or_none({JSON_KEYS.get(name, name): value for name, value in vars(self).items()})


@dataclass(frozen=True)
class QuantityChange(LayerRecord):
    """The means of one quantity without and with filler."""

    filler: str  # kind of the filler
    count: int  # number of filler tokens
    quantity: str  # one of `QUANTITIES`
    without: float
    filled: float
    change: float  # filled − without
    interval_of: str  # "change" if `low` and `high` bound the change; "value" if there is no value without filler
    low: float
    high: float


@dataclass(frozen=True)
class ClassShare(LayerRecord):
    """The mean near-zero share of one class of tokens.

    Without treatment it is compared with the class "other", after a treatment with the same class untreated.
    """

    name: str  # one of `CLASSES`
    tokens: int  # number of tokens in this class
    treatment: str  # `NO_TREATMENT`, or the name that `treatment_of` returns for the filler or policy
    share: float
    share_low: float
    share_high: float
    against: str  # name of the reference: "other" or `NO_TREATMENT`
    reference: float  # mean of the reference
    change: float  # share − reference
    low: float
    high: float


def summarise(findings: Sequence[LayerFindings], setup: Setup) -> tuple[list[QuantityChange], list[ClassShare]]:
    """Computes the means of every layer, with paired bootstrap intervals from one set of resamples."""
    weights = draw_weights(setup.prompt_of_tokens(), seed=setup.seed)
    changes = [change for layer in findings for change in quantity_changes(layer, setup, weights)]
    shares = [share for layer in findings for share in class_shares(layer, setup, weights)]
    return changes, shares


def quantity_changes(findings: LayerFindings, setup: Setup, weights: FloatArray) -> list[QuantityChange]:
    """A record for each filler and each of `QUANTITIES`; weights: `[resamples, tokens]` from `draw_weights`."""
    prompts = setup.prompt_of_tokens()
    before = {name: findings.without.get(name, UNFILLED.get(name, nan)) for name in QUANTITIES}
    without = np.array([np.mean(before[name]) for name in QUANTITIES])
    records: list[QuantityChange] = []
    for filler, filled in zip(setup.fillers, findings.filled, strict=True):
        changes = np.stack([filled[name] - np.nan_to_num(before[name]) for name in QUANTITIES], axis=1)
        values = np.array([filled[name].mean() for name in QUANTITIES])
        interval = percentile_interval(resample_means(changes, weights, prompts))
        table = np.vstack([without, values, values - without, interval])
        table[~np.isfinite(table)] = nan
        for name, (baseline, value, change, low, high) in zip(QUANTITIES, table.T.tolist(), strict=True):
            interval_of = "value" if isnan(baseline) else "change"
            place = (findings.layer, filler.kind, filler.count, name)
            records.append(QuantityChange(*place, baseline, value, change, interval_of, low, high))
    return records


def class_shares(findings: LayerFindings, setup: Setup, weights: FloatArray) -> list[ClassShare]:
    """For each class of the questions' tokens, a record without treatment and one for each filler and policy."""
    classes, before, prompts = setup.classes(), findings.without["near_zero"], setup.prompt_of_tokens()

    def means(shares: FloatArray, name: str) -> FloatArray:
        """The mean over the tokens of a class, followed by the mean of each resample: `[1 + resamples]`."""
        chosen = classes == name
        mean = shares[chosen].mean() if chosen.any() else nan
        return np.append(mean, resample_means(shares[chosen, None], weights[:, chosen], prompts[chosen]))

    treatments = [treatment_of(cause) for cause in (*setup.fillers, *setup.policies)]
    after = [*(filled["near_zero"] for filled in findings.filled), *findings.treated]
    records: list[ClassShare] = []
    other = means(before, "other")
    for name in CLASSES:
        if name not in classes:
            continue
        untreated = means(before, name)
        comparisons = [(NO_TREATMENT, untreated, "other", other)]
        for treatment, shares in zip(treatments, after, strict=True):
            comparisons.append((treatment, means(shares, name), NO_TREATMENT, untreated))
        tokens = int((classes == name).sum())
        for treatment, share, against, reference in comparisons:
            numbers = *_estimate(share), against, float(reference[0]), *_estimate(share - reference)
            records.append(ClassShare(findings.layer, name, tokens, treatment, *numbers))
    return records


def treatment_of(cause: Filler | Policy) -> str:
    """The name of a filler or policy in `ClassShare.treatment`."""
    if isinstance(cause, Filler):
        return f"{cause.count} × {cause.kind if cause.kind == RANDOM_SENTENCE else repr(cause.kind)}"
    return f"{type(cause).__name__}, {detail(cause)}"


def _estimate(means: FloatArray) -> tuple[float, float, float]:
    """The mean and its interval, from a mean followed by the mean of each resample."""
    low, high = percentile_interval(means[1:, None])[:, 0]
    return float(means[0]), float(low), float(high)
