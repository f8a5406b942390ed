"""The smallest difference that a test detects with a given power, before a run or from the variability observed."""

from math import ceil, floor, log, log1p, sqrt

import numpy as np

from armlet.redistribution.errors import ArgumentError
from armlet.statistics.equivalence import tango_score
from armlet.statistics.intervals import UNIT_RESAMPLES
from armlet.statistics.significance import P_ROUNDING, significance_level
from armlet.statistics.units import Units, check_share, check_whole

POWER = 0.8

SMALLEST_DIFFERENCE = 1e-12  # lower end of the search for a difference, instead of 0


def likely_shown(difference: str, repetitions: str) -> str:
    """What a smallest detectable difference means, at a power of 80 %; `repetitions` are "runs" or "comparisons"."""
    return f"if the true difference were {difference}, 4 of 5 such {repetitions} would show it"


def detectable(items: int, discordant: float, confidence: float = 0.95, power: float = POWER) -> float | None:
    """The smallest difference between 0/1 pairs at which the exact McNemar test reaches this power exactly.

    The number of discordant pairs is binomial, and so is the number of gained pairs among them; the power is summed
    over both. A difference d needs at least a share d of discordant pairs, so a smaller share is raised to d:
    discordant = 0 returns the same difference as any share below that difference.

    Args:
        items: number of pairs.
        discordant: share of the pairs that are correct on one side only.
        confidence: the test rejects at p < 1 − confidence.
        power: probability of rejection to reach.

    Returns:
        The difference, up to 1; None if even `items` pairs discordant in one direction are too few; 0 if the test
        rejects that often without any difference (a confidence below 1 − power).
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


def items_for_margin(margin: float, discordant: float, confidence: float = 0.95, power: float = POWER) -> int:
    """About how many 0/1 pairs show, with this power, that a difference is smaller than a margin if there is none.

    It is the normal approximation of the two one-sided tests of `compare`, at least as many pairs as they need if no
    pair is discordant.

    Args:
        margin: share of the items, between 0 and 1.
        discordant: share of the pairs that are correct on one side only.
        confidence: each of the two tests rejects at p < 1 − confidence.
        power: probability that both reject.
    """
    from scipy.stats import norm

    for name, value in {"margin": margin, "confidence": confidence, "power": power}.items():
        check_share(name, value)
    level = significance_level(confidence)
    spread = margin / float(tango_score(1, discordant / 2, discordant / 2, margin))  # if the difference is the margin
    deviations = norm.isf(level) * spread + norm.isf((1 - power) / 2) * sqrt(discordant)
    return ceil(max((deviations / margin) ** 2, log(level) / log1p(-margin)))


def t_detectable(units: Units, confidence: float) -> float | None:
    """The smallest difference that sign flips of items or clusters detect, from their spread and the t-test's power.

    Flipped sums of 0/1 lie on a lattice, and ties count against the treatment: half a lattice step is added on average.
    P-values of flips come in steps, so the t-test uses the largest step below 1 − confidence. The sums of clusters of
    unequal sizes vary more as the difference grows, which is corrected for. If few units differ at all, their spread
    is unreliable, and the result is at least the difference that 0/1 pairs need times `Units.max_difference`.
    """
    noncentrality = _noncentrality(len(units.sums), significance_level(confidence))
    if noncentrality is None or units.max_difference == 0:
        return None
    effect = noncentrality / sqrt(len(units.sums))
    remainder = 1 - float(effect * units.weights.std()) ** 2
    if remainder <= 0:
        return None
    spread = float((units.values - units.weights * units.values.mean()).std(ddof=1))
    smallest = effect * spread / sqrt(remainder) + units.step  # half a step of flips, which change a unit twice over
    if units.has_reliable_spread:
        return smallest * units.scale
    minimum = detectable(len(units.sums), 0, confidence)
    return None if minimum is None else max(smallest, minimum * units.max_difference) * units.scale


def _noncentrality(count: int, alpha: float) -> float | None:
    from scipy.optimize import root_scalar
    from scipy.stats import t
    from statsmodels.stats.power import ttest_power

    step = 2 / min(2.0 ** min(count, 60), UNIT_RESAMPLES + 1)
    level = (ceil(alpha * (1 - P_ROUNDING) / step) - 1) * step  # p = alpha is not significant
    if level <= 0:
        return None
    if level >= POWER:
        return 0.0

    def excess(shift: float) -> float:
        # One-sided: the probability of rejecting in the wrong direction is negligible, and computing it can return NaN.
        return float(ttest_power(shift / sqrt(count), count, level / 2, alternative="larger")) - POWER

    return root_scalar(excess, bracket=(0, 2 * float(t.isf(level / 2, count - 1)) + 2)).root


def _mcnemar_power(items: int, discordant: float, difference: float, alpha: float) -> float:
    from scipy.stats import binom

    spread = 9 * sqrt(items * discordant * (1 - discordant)) + 9  # numbers outside have a probability below 1e-15
    pairs = np.arange(max(0, floor(items * discordant - spread)), min(items, floor(items * discordant + spread)) + 1)
    # The largest number of pairs against the difference at which p = 2 · cdf is below alpha; −1 if there is none.
    max_against = binom.ppf(alpha / 2, pairs, 0.5) - 1
    share = (1 + difference / discordant) / 2
    rejects = binom.cdf(max_against, pairs, share) + binom.sf(pairs - max_against - 1, pairs, share)
    return float(binom.pmf(pairs, items, discordant) @ rejects)
