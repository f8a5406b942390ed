"""Two conditions on the same items: the difference, its interval, a test, and what could have gone unseen.

| data | test | interval | smallest detectable difference |
| --- | --- | --- | --- |
| `[items]` of 0/1 | exact McNemar | BCa or Bonett-Price | from that test's exact power |
| samples, scores, clusters | sign flips of items or clusters | BCa or Bonett-Price | from the power of the t-test |

BCa: `scipy.stats.bootstrap` over items, or over whole clusters. Resamples of n values spread too little, by n−1 against
n and by z against Student's t, so the level is widened by as much (Hesterberg 2015, The American Statistician 69(4)).

Bonett-Price: Student's t interval after one more item in each direction, one of +1 and one of −1 (Bonett and Price
2012, J. Educ. Behav. Stat. 37(4)); for scores the step is their range, and with clusters it is a cluster of mean size.
It serves where a bootstrap cannot: where fewer than 20 items (clusters) differ from the commonest difference, where one
lies four standard deviations out and makes up more than a fifth of the sum of squares (heavy tails), or where the
confidence asks for a tail of fewer than five resamples. It is never a point, and covers more often than it says, where
next to nothing differs always.
"""

from dataclasses import asdict, dataclass
from math import floor, inf, isfinite, log10, sqrt

import numpy as np
from numpy.typing import ArrayLike

from armlet.redistribution.errors import ArgumentError
from armlet.statistics.power import RESAMPLES, detectable, t_detectable
from armlet.statistics.units import VARIED, Units, Values, check_share, check_whole, gather, matrix, mean

TAIL = 5  # resamples


@dataclass(frozen=True)
class Comparison:
    """Treated against baseline. Shares are fractions; scores keep their unit.

    Attributes:
        difference: mean over items of treated − baseline, the mean of an item's samples first.
        interval: low and high, at `confidence`; infinite where one score, one cluster of scores, or scores all the
            same, say nothing of others.
        p_value: two-sided.
        smallest_detectable: the smallest true difference, either way, that this test shows at 80 % power with so many
            items and the variability seen; None where none is large enough.
        items, clusters: their numbers; clusters None where none were given.
        gained, lost: items right only with, only without; None unless both sides are `[items]` of 0/1.
        method: the rule of the interval.
        test: the rule of the p-value.
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
        """By one rule: p_value < 1 − confidence decides, and the sign of the difference says "helped" or "hurt"."""
        if self.p_value >= 1 - self.confidence:
            return "no difference shown"
        return "helped" if self.difference > 0 else "hurt"

    @property
    def sentence(self) -> str:
        """The verdict in one plain sentence, with the interval and what could have gone unseen."""
        low, high = self.interval
        width = high - low
        digits = max(3, 1 - floor(log10(width))) if isfinite(width) and width > 0 else 3
        found = f"{self.verdict}: {_signed(self.difference, digits)} [{_signed(low, digits)}, {_signed(high, digits)}]"
        if self.verdict != "no difference shown":
            return f"{found} over {self._counted()}"
        if self.smallest_detectable is None:
            return f"{found}; {self._counted()} could not have shown any"
        return f"{found}; a true difference below {self.smallest_detectable:.{digits}f} could have gone unseen"

    def _counted(self) -> str:
        items = f"{self.items:,} item" + "s" * (self.items != 1)
        return items if self.clusters is None else f"{items} in {self.clusters:,} cluster" + "s" * (self.clusters != 1)

    def plain(self) -> dict[str, object]:
        """For JSON: every attribute and the verdict; None in place of an infinite bound."""
        interval = [bound if isfinite(bound) else None for bound in self.interval]
        return asdict(self) | {"interval": interval, "verdict": self.verdict}


def compare(
    baseline: ArrayLike,
    treated: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    comparisons: int = 1,
) -> Comparison:
    """Whether the treatment helped: the module's table says which test and which interval serve which data.

    The flips take the sides as interchangeable where the treatment does nothing. A mean difference of 0 between sides
    of unlike skewness is outside of that: 50 differences of exponential skewness reject in about 6 % instead of 5 %.

    Args:
        baseline: `[items]` or `[items, samples]`, of 0/1 or finite scores below 1e100.
        treated: the same items in the same order; the number of samples may be another.
        clusters: `[items]` labels of items that belong together; whole clusters are resampled and flipped, items weigh
            the same.
        confidence: of the interval; the verdict is at 1 − confidence.
        seed: of the bootstrap and of flips too many to go through all.
        comparisons: how many are judged together by `holm`, this one among them: the smallest detectable difference is
            at the strictest of Holm's levels, (1 − confidence) / comparisons. The verdict here is uncorrected.

    Raises:
        ArgumentError: arrays that are empty, do not match or are not finite, labels of another length, a confidence
            outside of (0, 1), or a seed that is no whole number from 0 on.
    """
    check_share("confidence", confidence)
    seed = check_whole("seed", seed, 0)
    strictest = corrected(confidence, check_whole("comparisons", comparisons, 1))
    before, after = matrix("baseline", baseline), matrix("treated", treated)
    if len(before) != len(after):
        raise ArgumentError(f"baseline has {len(before)} items and treated {len(after)}: give both the same items")
    units = gather(before, after, clusters)
    pairs = _discordant(before, after) if units.binary and before.shape[1] == after.shape[1] == 1 else None
    low, high, method = _interval(units, confidence, seed)
    difference = mean(after.mean(axis=1) - before.mean(axis=1))
    p_value, smallest, test = _test(units, None if clusters is not None else pairs, strictest, seed)
    return Comparison(
        difference=difference,
        interval=(min(low, difference), max(high, difference)),
        p_value=p_value,
        smallest_detectable=smallest,
        baseline_mean=mean(before.mean(axis=1)),
        treated_mean=mean(after.mean(axis=1)),
        items=len(before),
        clusters=None if clusters is None else len(units.sums),
        gained=pairs[0] if pairs else None,
        lost=pairs[1] if pairs else None,
        confidence=confidence,
        method=method,
        test=test,
    )


def corrected(confidence: float, comparisons: int) -> float:
    """The confidence at which the smallest of so many p-values rejects under `holm`."""
    return 1 - (1 - confidence) / comparisons


def holm(p_values: ArrayLike) -> list[float]:
    """P-values of several tasks after Holm's step-down: reject where below 1 − confidence, for all of them together."""
    from statsmodels.stats.multitest import multipletests

    values = np.asarray(p_values, dtype=float)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ArgumentError("p_values must be a list of numbers from 0 to 1")
    return np.asarray(multipletests(values, method="holm")[1]).tolist() if len(values) else []


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−").replace("inf", "∞")


def _discordant(before: Values, after: Values) -> tuple[int, int]:
    return int((after > before).sum()), int((after < before).sum())


def _test(units: Units, pairs: tuple[int, int] | None, confidence: float, seed: int) -> tuple[float, float | None, str]:
    if pairs is None:
        return _sign_flips(units, seed), t_detectable(units, confidence), f"sign flips of {units.name}"
    smallest = detectable(len(units.sums), sum(pairs) / len(units.sums), confidence)
    return _mcnemar(*pairs), smallest, "exact McNemar"


def _mcnemar(gained: int, lost: int) -> float:
    from statsmodels.stats.contingency_tables import mcnemar

    found = mcnemar([[0, gained], [lost, 0]], exact=True)
    return float(found.pvalue)  # pyright: ignore[reportAttributeAccessIssue]: a bunch of attributes, untyped


def _sign_flips(units: Units, seed: int) -> float:
    """Units that do not differ stay what they are under a flip, and are left out."""
    from scipy.stats import permutation_test

    sums = units.sums[units.sums != 0]
    if len(sums) < 2:  # one unit: either sign is as likely
        return 1.0
    batch, rng = max(1, 2**20 // len(sums)), np.random.default_rng(seed)
    found = permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=RESAMPLES, batch=batch, rng=rng)
    return float(found.pvalue)


def _interval(units: Units, confidence: float, seed: int) -> tuple[float, float, str]:
    if units.reach == 0:
        return -inf, inf, "none: every score is the same"
    if len(units.sums) == 1 and not units.binary:
        return -inf, inf, f"none: a single {units.name[:-1]}"
    level = _widened(confidence, len(units.sums))
    spread_out = units.varied >= VARIED and not units.dominated
    bootstrap = spread_out and (1 - level) / 2 * RESAMPLES >= TAIL
    low, high = _bca(units, level, seed) if bootstrap else _bonett_price(units, confidence)
    if units.sign <= 0:
        low, high = -high, (-low if units.sign else high)  # −1: turned back; 0: symmetric
    bound = units.reach if units.binary else inf
    method = f"{'BCa bootstrap' if bootstrap else 'Bonett-Price'} over {units.name}"
    return float(max(low, -bound) * units.scale), float(min(high, bound) * units.scale), method


def _widened(confidence: float, count: int) -> float:
    from scipy.stats import norm, t

    if count == 1:
        return 1.0
    return float(1 - 2 * norm.cdf(t.ppf((1 - confidence) / 2, count - 1) * sqrt(count / (count - 1))))


def _bca(units: Units, level: float, seed: int) -> tuple[float, float]:
    from scipy.stats import bootstrap

    def ratio(sums: Values, sizes: Values, axis: int = -1) -> Values:
        return sums.sum(axis=axis) / sizes.sum(axis=axis)

    data, statistic = ((units.sums, units.sizes), ratio) if np.ptp(units.sizes) else ((units.values,), np.mean)
    batch, rng = max(1, 2**20 // len(units.sums)), np.random.default_rng(seed)
    found = bootstrap(data, statistic, paired=True, confidence_level=level, n_resamples=RESAMPLES, batch=batch, rng=rng)
    return found.confidence_interval.low, found.confidence_interval.high


def _bonett_price(units: Units, confidence: float) -> tuple[float, float]:
    from scipy.stats import t

    values = np.concatenate((units.values, [units.reach, -units.reach]))
    weights = np.concatenate((units.weights, [1, 1]))
    centre = values.sum() / weights.sum()
    error = (values - centre * weights).std(ddof=1) / sqrt(len(values))
    return t.interval(confidence, len(values) - 1, loc=centre, scale=error)
