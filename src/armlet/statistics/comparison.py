"""Compares two conditions on the same items: difference, interval, test, and smallest detectable difference."""

from dataclasses import asdict, dataclass
from math import floor, inf, isfinite, log10

import numpy as np
from numpy.typing import ArrayLike

from armlet.redistribution.errors import ArgumentError
from armlet.statistics.equivalence import pairs_equivalence, units_equivalence
from armlet.statistics.intervals import paired_interval, sign_flips
from armlet.statistics.power import detectable, likely_shown, t_detectable
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
        margin: a difference that would be too small to matter; None unless `compare` was given one.
        p_equivalence: the p-value against a difference as large as the margin: the larger of two one-sided ones.
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
    margin: float | None = None
    p_equivalence: float | None = None

    @property
    def verdict(self) -> str:
        """What the tests show at the level 1 − confidence; `UNDECIDED` if neither of them rejects."""
        return self.judged(self.p_value, self.p_equivalence, f"{self.margin:g}" if self.margin else "")

    def judged(self, p_value: float, p_equivalence: float | None, margin: str) -> str:
        """The verdict for these p-values, such as corrected ones; `margin` is its text."""
        is_small = p_equivalence is not None and is_significant(p_equivalence, self.confidence)
        if not is_significant(p_value, self.confidence):
            return f"no difference larger than {margin}" if is_small else UNDECIDED
        direction = "helped" if self.difference > 0 else "hurt"
        return f"{direction} by less than {margin}" if is_small else direction

    @property
    def sentence(self) -> str:
        """The verdict in one sentence: the interval, and if no difference is shown, what would have been needed."""
        low, high = self.interval
        width = high - low
        digits = max(3, 1 - floor(log10(width))) if isfinite(width) and width > 0 else 3
        difference, *bounds = (_signed_number(value, digits) for value in (self.difference, low, high))
        start = f"{self.verdict}: {difference} [{', '.join(bounds)}] over {self._counts()}"
        if self.verdict != UNDECIDED:
            return start
        if low <= 0 <= high:
            reason = "they fit any true difference in the interval, 0 included"
        else:
            reason = f"the interval excludes 0, but p = {self.p_value:.3f}"
        margin = "" if self.margin is None else f"; one larger than {self.margin:g} is not ruled out"
        if self.smallest_detectable is None:
            return f"{start}; {reason}{margin}; so few cannot show any"
        smallest = f"{self.smallest_detectable:.{digits}f}"
        return f"{start}; {reason}{margin}; {likely_shown(smallest, 'comparisons')}"

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
    margin: float | None = None,
) -> Comparison:
    """Tests whether the treatment helped, and with a margin also whether the difference is smaller than that.

    `[items]` of 0/1 are tested by exact McNemar, and the smallest detectable difference follows from its exact power.
    Samples, scores and clusters are tested by sign flips, with the power of the t-test. The interval is BCa or
    Bonett-Price (`intervals.paired_interval`).

    Sign flips assume that the sides are exchangeable if the treatment does nothing. Sides of equal mean but different
    skewness violate that: with 50 differences of exponential skewness, about 6 % are rejected instead of 5 %.

    With a margin, two one-sided tests, each at the level 1 − confidence, decide whether the difference is both above
    −margin and below margin: exact ones for `[items]` of 0/1 (`pairs_equivalence`), else `units_equivalence`. Both
    tests may reject at once: then the treatment helped or hurt by less than the margin. Two such tests at 5 %
    correspond to a 90 % interval, so the 95 % interval of such a difference may reach slightly beyond the margin.

    Args:
        baseline: `[items]` or `[items, samples]`, of 0/1 or finite scores below 1e100.
        treated: the same items in the same order; the number of samples may differ.
        clusters: `[items]` labels of items that belong together; clusters are resampled and flipped as a whole, and
            every item has the same weight.
        confidence: confidence level of the interval; the verdict uses the level 1 − confidence.
        seed: seed of the bootstrap, and of the sign flips if there are too many to enumerate.
        comparisons: number of comparisons that `holm` corrects together, including this one; the smallest detectable
            difference is at the strictest of Holm's levels, (1 − confidence) / comparisons. The verdict is uncorrected.
        margin: the largest difference that would not matter, above 0, in the unit of the difference: of 0/1 answers a
            fraction of the items, such as 0.02.

    Raises:
        ArgumentError: arrays are empty, do not match or are not finite, there are more or fewer labels than items, the
            confidence or the margin is out of range, or the seed is not a whole number of 0 or more.
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
    tested = pairs if clusters is None else None
    p_value, smallest, test = _test(units, tested, strictest, seed)
    p_equivalence = None if margin is None else _test_margin(units, tested, margin)
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
        margin=margin,
        p_equivalence=p_equivalence,
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


def _test_margin(units: Units, pairs: tuple[int, int] | None, margin: float) -> float:
    """Returns the p-value against a difference as large as the margin; raises ArgumentError for another margin."""
    if not isinstance(margin, int | float | np.number) or not 0 < margin < (1 if units.binary else inf):
        meaning = "a fraction of the items, such as 0.02 for 2 points" if units.binary else "a score above 0"
        raise ArgumentError(f"margin is {margin!r}: give {meaning}")
    return units_equivalence(units, margin) if pairs is None else pairs_equivalence(len(units.sums), *pairs, margin)
