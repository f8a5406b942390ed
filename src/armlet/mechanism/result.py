"""What an explanation found: a record for each quantity and for each class of tokens, with paired intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, isnan, nan

import numpy as np
from numpy.typing import NDArray

from armlet.mechanism.classes import CLASSES
from armlet.mechanism.layers import LayerFindings, Setup
from armlet.mechanism.measure import QUANTITIES, TokenValues
from armlet.prompts.fillers import RANDOM_SENTENCE, Filler
from armlet.redistribution.rows import Policy
from armlet.redistribution.spelling import detail
from armlet.statistics.resampling import draw_weights, percentile_interval, replicate_means

NO_TREATMENT = "as it is"

UNFILLED = {"mass": 1.0, "lambda": 1.0, "shift": 0.0}
"""Values of the quantities of attention where there is no filler; the others are not defined there."""


@dataclass(frozen=True)
class QuantityChange:
    """The mean of one quantity without filler and with it; None where it is not defined.

    Args:
        layer, filler, count, quantity: the layer's index, the filler's kind and tokens, and one of `QUANTITIES`.
        without, filled, change: mean without filler, mean with it, and `filled` − `without`.
        interval_of: what `low` and `high` are bounds of, "change", or "value" where there is none without a filler.
    """

    layer: int
    filler: str
    count: int
    quantity: str
    without: float | None
    filled: float | None
    change: float | None
    interval_of: str
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, object]:
        """For JSON and CSV."""
        return {"with" if name == "filled" else name: value for name, value in vars(self).items()}


@dataclass(frozen=True)
class ClassShare:
    """The mean near-zero share of one class of tokens; None where it is not defined.

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
    share: float | None
    share_low: float | None
    share_high: float | None
    against: str
    reference: float | None
    change: float | None
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, object]:
        """For JSON and CSV."""
        return {"class" if name == "name" else name: value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Explanation:
    """All findings of a run.

    Args:
        setup: what was run.
        findings: of each layer, at least one.
        quantities: of `quantity_changes`, layer by layer.
        classes: of `class_shares`, layer by layer.
    """

    setup: Setup
    findings: Sequence[LayerFindings]
    quantities: list[QuantityChange]
    classes: list[ClassShare]

    def to_dict(self) -> dict[str, object]:
        """For JSON: all records, and the attention that each token of the first prompt receives, as in the figure."""
        setup, first = self.setup, self.findings[0]
        prompt, filler = setup.prompts[0], setup.fillers[setup.example()]
        without, filled = ([_defined(number) for number in side.tolist()] for side in first.received)
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
    """A record for each filler and each of `QUANTITIES`.

    Args:
        findings: of one layer.
        fillers: of the run.
        weights: `[resamples, tokens]`, of `draw_weights`.
    """
    before = {name: findings.without.get(name, UNFILLED.get(name, np.nan)) for name in QUANTITIES}
    records: list[QuantityChange] = []
    for filler, filled in zip(fillers, findings.filled, strict=True):
        changes = np.stack([filled[name] - np.nan_to_num(before[name]) for name in QUANTITIES], axis=1)
        bounds = percentile_interval(replicate_means(changes, weights)).T
        for name, (low, high) in zip(QUANTITIES, bounds, strict=True):
            without, value = float(np.mean(before[name])), float(filled[name].mean())
            bounded = "value" if isnan(without) else "change"
            place = (findings.layer, filler.kind, filler.count, name)
            means = (_defined(without), _defined(value), _defined(value - without))
            records.append(QuantityChange(*place, *means, bounded, _defined(low), _defined(high)))
    return records


@dataclass(frozen=True)
class _Tokens:
    """The near-zero share `[tokens]` of all tokens, and which of them are meant."""

    shares: TokenValues
    chosen: NDArray[np.bool_]

    def mean(self) -> float:
        return float(self.shares[self.chosen].mean()) if self.chosen.any() else nan

    def resampled(self, weights: TokenValues) -> TokenValues:
        """The mean of each resample, `[resamples, 1]`."""
        return replicate_means(self.shares[self.chosen, None], weights[:, self.chosen])


def class_shares(findings: LayerFindings, setup: Setup, weights: TokenValues) -> list[ClassShare]:
    """For each class of the questions' tokens a record untreated, and one for each filler and each policy.

    Args:
        findings: of one layer.
        setup: of the run.
        weights: `[resamples, tokens]`, of `draw_weights`.
    """
    classes, before = setup.classes(), findings.without["near_zero"]
    treatments = [treatment_of(cause) for cause in (*setup.fillers, *setup.policies)]
    after = [*(filled["near_zero"] for filled in findings.filled), *findings.treated]
    other = _Tokens(before, classes == "other")
    records: list[ClassShare] = []
    for name in CLASSES:
        chosen = classes == name
        if not chosen.any():
            continue
        place, untreated = (findings.layer, name, int(chosen.sum())), _Tokens(before, chosen)
        records.append(_class_share(place, NO_TREATMENT, untreated, "other", other, weights))
        for treatment, shares in zip(treatments, after, strict=True):
            treated = _Tokens(shares, chosen)
            records.append(_class_share(place, treatment, treated, NO_TREATMENT, untreated, weights))
    return records


def treatment_of(cause: Filler | Policy) -> str:
    """What a `ClassShare` calls a filler or a policy."""
    if isinstance(cause, Filler):
        return f"{cause.count} × {cause.kind if cause.kind == RANDOM_SENTENCE else repr(cause.kind)}"
    return f"{type(cause).__name__}, {detail(cause)}"


def _class_share(
    place: tuple[int, str, int],
    treatment: str,
    tokens: _Tokens,
    against: str,
    reference: _Tokens,
    weights: TokenValues,
) -> ClassShare:
    means = tokens.resampled(weights)
    low, high = map(_defined, percentile_interval(means)[:, 0])
    change_low, change_high = map(_defined, percentile_interval(means - reference.resampled(weights))[:, 0])
    share, compared = tokens.mean(), reference.mean()
    bounded = (_defined(share), low, high)
    change = _defined(share - compared)
    return ClassShare(*place, treatment, *bounded, against, _defined(compared), change, change_low, change_high)


def _defined(number: float) -> float | None:
    return float(number) if isfinite(number) else None
