"""Intervals of means and of paired differences, and the sign-flip test, which resamples the same paired units."""

from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from armlet.statistics import FloatArray
from armlet.statistics.units import MIN_CHANGED, Units

TOKEN_RESAMPLES = 2000  # prompts, then tokens within them
UNIT_RESAMPLES = 9999  # paired units: bootstrap and sign flips
MIN_PROMPTS = 2  # fewest prompts from which anything can be said about other prompts
MIN_TAIL_RESAMPLES = 5  # fewest resamples allowed in each tail
BATCH_VALUES = 2**20  # values per scipy batch
SUM_ROUNDING = 1e-12  # relative: largest difference between sums of the same numbers in different orders


def draw_weights(prompts: NDArray[np.int64], *, seed: int = 0, resamples: int = TOKEN_RESAMPLES) -> FloatArray:
    """Two-stage bootstrap counts: prompts are drawn with replacement, then tokens within each drawn prompt.

    Tokens of one prompt are correlated, so resampling tokens alone would give intervals that are too narrow. With a
    single prompt nothing but its tokens is resampled, for which `resample_means` returns nan. The same
    draw is used for every quantity, every layer and both sides of a pair.

    prompts: `[tokens]`, the prompt index of each token; each index from 0 occurs. Returns `[resamples, tokens]` counts.
    """
    rng = np.random.default_rng(seed)
    sizes = np.bincount(prompts)
    prompt_counts = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=resamples)
    weights = np.empty((resamples, len(prompts)))
    for prompt, size in enumerate(sizes):
        weights[:, prompts == prompt] = rng.multinomial(prompt_counts[:, prompt] * size, np.full(size, 1 / size))
    return weights


def resample_means(values: FloatArray, weights: FloatArray, prompts: NDArray[np.int64]) -> FloatArray:
    """Means `[resamples, n]` of n quantities `[tokens, n]`; nan if a resample drew none of these tokens.

    All are nan if the tokens are from fewer than `MIN_PROMPTS` prompts. Prompts are the independent units: resamples
    of a single prompt's tokens differ, or not, because of that prompt, and show nothing about other prompts.

    weights: `[resamples, tokens]` from `draw_weights`, or some of its columns; prompts: `[tokens]`, as there.
    """
    if len(np.unique(prompts)) < MIN_PROMPTS:
        return np.full((len(weights), values.shape[1]), np.nan)
    total = weights.sum(axis=1, keepdims=True)
    return weights @ values / np.where(total > 0, total, np.nan)


def percentile_interval(means: FloatArray, confidence: float = 0.95) -> FloatArray:
    """The percentile interval of `[resamples, n]` means: `[2, n]`, low and high.

    nan if a mean is nan, or if all resamples are equal: an interval without width would claim certainty.
    Resamples in which every mean is nan are left out.
    """
    tail = (1 - confidence) / 2
    valid = means[~np.isnan(means).all(axis=1)]
    if not len(valid):
        return np.full((2, means.shape[1]), np.nan)
    spread, size = np.ptp(valid, axis=0), np.abs(valid).max(axis=0)
    return np.where(spread > SUM_ROUNDING * size, np.quantile(valid, (tail, 1 - tail), axis=0), np.nan)


def paired_interval(units: Units, confidence: float, seed: int) -> tuple[float, float, str]:
    """Low, high and the method's name; bounds are infinite if the data cannot support an interval.

    BCa: `scipy.stats.bootstrap`. Bootstrap intervals are too narrow for small n, by a factor sqrt((n−1)/n) and by using
    z, not Student's t; the level is raised to compensate (Hesterberg 2015, The American Statistician 69(4)).

    Bonett-Price: Student's t interval after adding two items, +1 and −1 (Bonett and Price 2012, J. Educ. Behav. Stat.
    37(4)); for scores ±1 becomes ± their range; with clusters, each added item is a cluster of mean size. It replaces
    the bootstrap if fewer than 20 units differ from the most common difference, if one unit lies four standard
    deviations out and makes up over a fifth of the sum of squares (heavy tails), or if a tail has fewer than five
    resamples. Its width is never 0, and it is conservative when almost nothing differs.
    """
    if units.max_difference == 0:
        return -inf, inf, "none: all scores are equal"
    if len(units.sums) == 1 and not units.binary:
        return -inf, inf, f"none: only one {units.name[:-1]}"
    level = _raised_level(confidence, len(units.sums))
    enough_resamples = (1 - level) / 2 * UNIT_RESAMPLES >= MIN_TAIL_RESAMPLES
    bootstrapped = units.changed_count >= MIN_CHANGED and not units.has_outlier and enough_resamples
    low, high = _bca(units, level, seed) if bootstrapped else _bonett_price(units, confidence)
    if units.sign <= 0:  # −1: undo the negation; 0: make it symmetric
        low, high = -high, (-low if units.sign else high)
    bound = units.max_difference if units.binary else inf
    method = f"{'BCa bootstrap' if bootstrapped else 'Bonett-Price'} over {units.name}"
    return float(max(low, -bound) * units.scale), float(min(high, bound) * units.scale), method


def sign_flips(units: Units, seed: int) -> float:
    """Two-sided p-value of the sum under random sign flips. Units with difference 0 do not matter and are dropped."""
    from scipy.stats import permutation_test

    sums = units.sums[units.sums != 0]
    if len(sums) < 2:  # for a single unit both signs are equally likely
        return 1.0
    batch, rng = max(1, BATCH_VALUES // len(sums)), np.random.default_rng(seed)
    options = {"n_resamples": UNIT_RESAMPLES, "batch": batch, "rng": rng}
    return float(permutation_test((sums,), np.sum, permutation_type="samples", **options).pvalue)


def _raised_level(confidence: float, count: int) -> float:
    from scipy.stats import norm, t

    if count == 1:
        return 1.0
    return float(1 - 2 * norm.cdf(t.ppf((1 - confidence) / 2, count - 1) * sqrt(count / (count - 1))))


def _bca(units: Units, level: float, seed: int) -> tuple[float, float]:
    from scipy.stats import bootstrap

    def ratio(sums: FloatArray, sizes: FloatArray, axis: int = -1) -> FloatArray:
        return sums.sum(axis=axis) / sizes.sum(axis=axis)

    data, statistic = ((units.sums, units.sizes), ratio) if np.ptp(units.sizes) else ((units.values,), np.mean)
    batch, rng = max(1, BATCH_VALUES // len(units.sums)), np.random.default_rng(seed)
    options = {"n_resamples": UNIT_RESAMPLES, "batch": batch, "rng": rng, "paired": True}
    interval = bootstrap(data, statistic, confidence_level=level, **options).confidence_interval
    return interval.low, interval.high


def _bonett_price(units: Units, confidence: float) -> tuple[float, float]:
    from scipy.stats import t

    centre, residuals = centred(units, 1)
    error = residuals.std(ddof=1) / sqrt(len(residuals))
    return t.interval(confidence, len(residuals) - 1, loc=centre, scale=error)


def centred(units: Units, added: int) -> tuple[float, FloatArray]:
    """The mean, and each unit's residual, after adding so many units of mean size at each extreme difference."""
    values = np.concatenate((units.values, [units.max_difference, -units.max_difference] * added))
    weights = np.concatenate((units.weights, np.ones(2 * added)))
    centre = values.sum() / weights.sum()
    return centre, values - centre * weights
