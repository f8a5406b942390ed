"""The smallest difference that a test shows with a given power: before a run, or with the variability of one."""

from math import ceil, floor, sqrt

import numpy as np

from armlet.redistribution.errors import ArgumentError
from armlet.statistics.intervals import RESAMPLES
from armlet.statistics.significance import P_ROUNDING, significance_level
from armlet.statistics.units import Units, check_share, check_whole

POWER = 0.8

SMALLEST_DIFFERENCE = 1e-12  # where the search for a difference starts, in place of 0


def detectable(items: int, discordant: float, confidence: float = 0.95, power: float = POWER) -> float | None:
    """The smallest difference between 0/1 pairs at which the exact McNemar test reaches exactly this power.

    The number of discordant pairs is binomial, and so is the number of gained ones among them; the power is summed over
    both. A difference d needs at least a share d of discordant pairs, so a smaller share is raised to d: discordant = 0
    gives the same answer as any share below the answer.

    Args:
        items: number of pairs.
        discordant: share of the pairs that are correct on one side only.
        confidence: the test rejects at p < 1 − confidence.
        power: to reach.

    Returns:
        The difference, up to 1; None where even pairs that are all discordant in one direction are too few, and 0 where
        the test rejects so often without any difference (a confidence below 1 − power).
    """
    from scipy.optimize import root_scalar

    items = check_whole("items", items, 1)
    check_share("confidence", confidence)
    if not 0 <= discordant <= 1:
        raise ArgumentError(f"discordant is {discordant}: give a share of the items, from 0 to 1")
    check_share("power", power)

    def excess(difference: float) -> float:
        return _mcnemar_power(items, max(discordant, difference), difference, significance_level(confidence)) - power

    if excess(1) < 0:
        return None
    if excess(SMALLEST_DIFFERENCE) >= 0:
        return 0.0
    return root_scalar(excess, bracket=(SMALLEST_DIFFERENCE, 1), xtol=1e-9).root


def t_detectable(units: Units, confidence: float) -> float | None:
    """The same for sign flips of items or clusters: from the observed spread and the power of the t-test.

    Flipped sums of 0/1 lie on a lattice, and ties count against the treatment: half a lattice step is added on average.
    P-values of flips come in steps, so the t-test is taken at the largest step below 1 − confidence. Clusters of
    unequal sizes differ the more from one another the larger the difference is; that is accounted for. Where few units
    differ at all, their spread says little: then the answer is at least what 0/1 pairs need, times `Units.reach`.
    """
    noncentrality = _noncentrality(len(units.sums), significance_level(confidence))
    if noncentrality is None or units.reach == 0:
        return None
    effect = noncentrality / sqrt(len(units.sums))
    rest = 1 - float(effect * units.weights.std()) ** 2
    if rest <= 0:
        return None
    spread = float((units.values - units.weights * units.values.mean()).std(ddof=1))
    # A flip changes the sum by twice a unit's value, so half a step of the lattice is their greatest common divisor.
    half_step = int(np.gcd.reduce(units.sums.astype(np.int64))) / float(units.sizes.sum()) if units.binary else 0.0
    smallest = effect * spread / sqrt(rest) + half_step
    if units.settled:
        return smallest * units.scale
    least = detectable(len(units.sums), 0, confidence)
    return None if least is None else max(smallest, least * units.reach) * units.scale


def _noncentrality(count: int, alpha: float) -> float | None:
    from scipy.optimize import root_scalar
    from scipy.stats import t
    from statsmodels.stats.power import ttest_power

    step = 2 / min(2.0 ** min(count, 60), RESAMPLES + 1)
    level = (ceil(alpha * (1 - P_ROUNDING) / step) - 1) * step  # p = alpha is not significant
    if level <= 0:
        return None
    if level >= POWER:
        return 0.0

    def excess(shift: float) -> float:
        # One side: rejecting in the wrong direction has no weight here, and computing it can give NaN.
        return float(ttest_power(shift / sqrt(count), count, level / 2, alternative="larger")) - POWER

    return root_scalar(excess, bracket=(0, 2 * float(t.isf(level / 2, count - 1)) + 2)).root


def _mcnemar_power(items: int, discordant: float, difference: float, alpha: float) -> float:
    from scipy.stats import binom

    spread = 9 * sqrt(items * discordant * (1 - discordant)) + 9  # numbers outside have a probability below 1e-15
    pairs = np.arange(max(0, floor(items * discordant - spread)), min(items, floor(items * discordant + spread)) + 1)
    # The most pairs against the difference with which p = 2 · cdf is below alpha; −1 where there is none.
    few = binom.ppf(alpha / 2, pairs, 0.5) - 1
    share = (1 + difference / discordant) / 2
    rejects = binom.cdf(few, pairs, share) + binom.sf(pairs - few - 1, pairs, share)
    return float(binom.pmf(pairs, items, discordant) @ rejects)
