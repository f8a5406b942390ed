"""Compares two conditions on the same items: difference, interval, test, and smallest detectable difference."""

from dataclasses import asdict, dataclass
from math import floor, isfinite, log10

from numpy.typing import ArrayLike

from armlet.redistribution.errors import ArgumentError
from armlet.statistics.intervals import paired_interval, sign_flips
from armlet.statistics.power import detectable, t_detectable
from armlet.statistics.significance import corrected, is_significant
from armlet.statistics.units import Units, check_share, check_whole, exact_mean, gather_units, score_matrix

UNDECIDED = "no difference shown"


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`, treated against baseline. Shares are fractions; scores keep their unit.

    Attributes:
        difference: mean over items of treated − baseline, after averaging each item's samples.
        interval: low and high, at `confidence`; infinite for a single score, a single cluster of scores, or scores that
            are all equal, because these give no information about others.
        p_value: two-sided p-value.
        smallest_detectable: the smallest true difference in either direction that this test detects with 80 % power,
            given the number of items and the observed variability; None if it cannot detect even the largest.
        items, clusters: number of items and of clusters; clusters is None if no labels were passed.
        gained, lost: items correct only with or only without treatment; None unless both sides are `[items]` of 0/1.
        method: how the interval was computed.
        test: how the p-value was computed.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    smallest_detectable: float | None
    baseline_mean: float
    treated_mean: float
    items: int
    clusters: int | None
    gained: int | None
    lost: int | None
    confidence: float
    method: str
    test: str

    @property
    def verdict(self) -> str:
        """Depends on the sign of the difference if p_value < 1 − confidence (`is_significant`), else `UNDECIDED`."""
        if not is_significant(self.p_value, self.confidence):
            return UNDECIDED
        return "helped" if self.difference > 0 else "hurt"

    @property
    def sentence(self) -> str:
        """The verdict in one sentence, with the interval and the smallest detectable difference."""
        low, high = self.interval
        width = high - low
        digits = max(3, 1 - floor(log10(width))) if isfinite(width) and width > 0 else 3
        difference, *bounds = (_signed_number(value, digits) for value in (self.difference, low, high))
        start = f"{self.verdict}: {difference} [{', '.join(bounds)}]"
        if self.verdict != UNDECIDED:
            return f"{start} over {self._counts()}"
        if self.smallest_detectable is None:
            return f"{start}; {self._counts()} could not have shown any"
        return f"{start}; a true difference below {self.smallest_detectable:.{digits}f} could have gone undetected"

    def _counts(self) -> str:
        items = f"{self.items:,} item" + "s" * (self.items != 1)
        return items if self.clusters is None else f"{items} in {self.clusters:,} cluster" + "s" * (self.clusters != 1)

    def plain(self) -> dict[str, object]:
        """For JSON: every attribute and the verdict; None in place of an infinite bound."""
        return asdict(self) | {"interval": [*self.finite_interval], "verdict": self.verdict}

    @property
    def finite_interval(self) -> tuple[float | None, float | None]:
        """The bounds of the interval; None means infinite, which JSON cannot express."""
        low, high = (bound if isfinite(bound) else None for bound in self.interval)
        return low, high


def compare(
    baseline: ArrayLike,
    treated: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    comparisons: int = 1,
) -> Comparison:
    """Tests whether the treatment helped.

    `[items]` of 0/1 are tested by exact McNemar, and the smallest detectable difference follows from its exact power.
    Samples, scores and clusters are tested by sign flips, with the power of the t-test. The interval is BCa or
    Bonett-Price (`intervals.paired_interval`).

    Sign flips assume that the sides are exchangeable if the treatment does nothing. Sides of equal mean but different
    skewness violate that: with 50 differences of exponential skewness, about 6 % are rejected instead of 5 %.

    Args:
        baseline: `[items]` or `[items, samples]`, of 0/1 or finite scores below 1e100.
        treated: the same items in the same order; the number of samples may differ.
        clusters: `[items]` labels of items that belong together; clusters are resampled and flipped as a whole, and
            every item has the same weight.
        confidence: confidence level of the interval; the verdict uses the level 1 − confidence.
        seed: seed of the bootstrap, and of the sign flips if there are too many to enumerate.
        comparisons: number of comparisons that `holm` corrects together, including this one; the smallest detectable
            difference is at the strictest of Holm's levels, (1 − confidence) / comparisons. The verdict is uncorrected.

    Raises:
        ArgumentError: arrays are empty, do not match or are not finite, there are more or fewer labels than items, the
            confidence is outside (0, 1), or the seed is not a whole number of 0 or more.
    """
    check_share("confidence", confidence)
    seed, comparisons = check_whole("seed", seed, 0), check_whole("comparisons", comparisons, 1)
    before, after = score_matrix("baseline", baseline), score_matrix("treated", treated)  # [items, samples]
    if len(before) != len(after):
        raise ArgumentError(f"baseline has {len(before)} items and treated {len(after)}: give both the same items")
    units = gather_units(before, after, clusters)
    single = units.binary and before.shape[1] == after.shape[1] == 1
    pairs = (int((after > before).sum()), int((after < before).sum())) if single else None
    difference = exact_mean(after.mean(axis=1) - before.mean(axis=1))
    low, high, method = paired_interval(units, confidence, seed)
    interval = min(low, difference), max(high, difference)
    strictest = corrected(confidence, comparisons)
    p_value, smallest, test = _test(units, pairs if clusters is None else None, strictest, seed)
    gained, lost = pairs or (None, None)
    return Comparison(
        difference,
        interval,
        p_value,
        smallest,
        baseline_mean=exact_mean(before.mean(axis=1)),
        treated_mean=exact_mean(after.mean(axis=1)),
        items=len(before),
        clusters=None if clusters is None else len(units.sums),
        gained=gained,
        lost=lost,
        confidence=confidence,
        method=method,
        test=test,
    )


def _signed_number(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−").replace("inf", "∞")


def _test(units: Units, pairs: tuple[int, int] | None, confidence: float, seed: int) -> tuple[float, float | None, str]:
    """Returns the p-value, the smallest detectable difference, and the name of the test."""
    from statsmodels.stats.contingency_tables import mcnemar

    if pairs is None:
        return sign_flips(units, seed), t_detectable(units, confidence), f"sign flips of {units.name}"
    gained, lost = pairs
    smallest = detectable(len(units.sums), (gained + lost) / len(units.sums), confidence)
    result = mcnemar([[0, gained], [lost, 0]], exact=True)
    p_value = float(result.pvalue)  # pyright: ignore[reportAttributeAccessIssue]: a bunch of attributes, untyped
    return p_value, smallest, "exact McNemar"
