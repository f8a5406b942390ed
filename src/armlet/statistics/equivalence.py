"""Tests that a difference is smaller than a margin: two one-sided tests, of which the larger p-value counts."""

from math import pi, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from armlet.statistics import FloatArray
from armlet.statistics.intervals import centred
from armlet.statistics.units import Units

NUISANCE_STEPS = 200  # shares of gained pairs over which a p-value is maximised; twice as many change it by under 1 %
ADDED_PAIRS = 2  # of extreme units: with fewer, a margin that no unit happened to exceed is claimed too often
TIE = 1e-9  # scores that differ by less are equal


def pairs_equivalence(items: int, gained: int, lost: int, margin: float) -> float:
    """The p-value for 0/1 pairs: exact and unconditional, with Tango's score as the order of the outcomes.

    Sources: Tango 1998, Statistics in Medicine 17(8), for the score; Sidik 2003, Statistics in Medicine 22(2), for the
    exact test. The probability of the observed or a more extreme score is maximised over the share of gained pairs.

    Args:
        items: number of pairs.
        gained: number of pairs that are correct only with treatment.
        lost: number of pairs that are correct only without treatment.
        margin: share of the items, between 0 and 1.
    """
    return max(tail_probability(items, gained, lost, margin), tail_probability(items, lost, gained, margin))


def units_equivalence(units: Units, margin: float) -> float:
    """The p-value for samples, scores and clusters, by t-tests that are corrected for skewness.

    Hall's transformation (1992, J. R. Stat. Soc. B 54(1)) removes the skewness of the t-statistic, as when one side
    alone is better in a few items. Added units at both extremes, as in the Bonett-Price interval, keep the spread from
    being underestimated when almost nothing differs. Sums of 0/1 lie on a lattice, so half a step is subtracted.

    margin: in the unit of the scores.
    """
    from scipy.stats import t

    if len(units.sums) == 1 or units.max_difference == 0:
        return 1.0
    centre, residuals = centred(units, ADDED_PAIRS)
    count, spread = len(residuals), float(residuals.std(ddof=1))
    skewness = float((residuals**3).mean()) / spread**3
    distances = (margin / units.scale - units.step / 2 + sign * centre for sign in (1, -1))
    statistics = [distance * sqrt(count) / spread for distance in distances]
    corrected = [_unskewed(*pair, count) for pair in zip(statistics, (skewness, -skewness), strict=True)]
    return float(t.sf(min(corrected), count - 1))


def _unskewed(statistic: float, skewness: float, count: int) -> float:
    bent = skewness / (3 * sqrt(count))
    return statistic + bent * statistic**2 + bent**2 * statistic**3 / 3 + bent / 2


def tail_probability(items: int, gained: int, lost: int, margin: float) -> float:
    """The p-value against a treatment that loses `margin`: the chance of the observed or a higher score, maximised."""
    from scipy.stats import binom

    most_lost = _most_lost(items, np.arange(items + 1), float(tango_score(items, gained, lost, margin)), margin)
    angles = np.linspace(0, pi / 2, NUISANCE_STEPS)[:, None]
    shares = (1 - margin) / 2 * np.sin(angles) ** 2  # of gained pairs, in steps of equal standard errors
    spread = int(4.5 * sqrt(items)) + 9  # numbers farther from the mean have a probability below 1e-15
    numbers = (items * shares).astype(np.int64) + np.arange(-spread, spread + 1)
    gains = numbers.clip(0, items)  # the probability of a number outside is 0
    lost_shares = ((shares + margin) / (1 - shares)).clip(max=1)  # among the pairs that are not gained
    chances = binom.pmf(numbers, items, shares) * binom.cdf(most_lost[gains], items - gains, lost_shares)
    return min(1.0, float(chances.sum(axis=1).max()))


def _most_lost(items: int, gains: NDArray[np.int64], score: float, margin: float) -> NDArray[np.int64]:
    """For each number of gained pairs, the most lost ones at which the score is not lower than this; −1 for none."""
    low, high = np.full(len(gains), -1), items - gains
    while (low < high).any():
        middle = (low + high + 1) // 2
        reached = tango_score(items, gains, middle, margin) >= score - TIE
        low, high = np.where(reached, middle, low), np.where(reached, high, middle - 1)
    return low


def tango_score(items: int, gained: ArrayLike, lost: ArrayLike, margin: float) -> FloatArray:
    """Tango's score against a difference of −margin; the variance is the most likely one at that difference."""
    gained, lost = np.asarray(gained), np.asarray(lost)
    linear = (gained + lost) * (1 - margin) + 2 * margin * (lost - items)
    share = (linear + np.sqrt(linear**2 + 8 * items * gained * margin * (1 - margin))) / (4 * items)
    return (gained - lost + items * margin) / np.sqrt(items * (2 * share + margin * (1 - margin)))
