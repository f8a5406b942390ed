"""Every interval of the package, of means and of paired differences; and sign flips, which resample as they do."""

from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from armlet.statistics import FloatArray
from armlet.statistics.units import VARIED, Units

REPLICATES = 2000  # of prompts and their tokens
RESAMPLES = 9999  # of paired units, for the bootstrap and for sign flips
TAIL_RESAMPLES = 5
BATCH_VALUES = 2**20  # that scipy resamples at a time
SUM_ROUNDING = 1e-12  # relative: the most by which sums of the same numbers differ when added in another order


def draw_weights(prompts: NDArray[np.int64], *, seed: int = 0, replicates: int = REPLICATES) -> FloatArray:
    """How often each replicate draws each token: prompts with replacement, then tokens within each drawn prompt.

    Tokens of one prompt are alike, so resampling tokens alone would give intervals that are too narrow. One draw serves
    every quantity and layer, and both sides of a pair.

    prompts: `[tokens]`, the index of each token's prompt, from 0, each present. Returns `[replicates, tokens]`, whole
    numbers.
    """
    rng = np.random.default_rng(seed)
    sizes = np.bincount(prompts)
    drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=replicates)
    weights = np.empty((replicates, len(prompts)))
    for prompt, size in enumerate(sizes):
        weights[:, prompts == prompt] = rng.multinomial(drawn[:, prompt] * size, np.full(size, 1 / size))
    return weights


def replicate_means(values: FloatArray, weights: FloatArray) -> FloatArray:
    """The means `[replicates, n]` of n quantities `[tokens, n]`; nan where none of these tokens was drawn.

    weights: `[replicates, tokens]` of `draw_weights`, or some of its columns.
    """
    total = weights.sum(axis=1, keepdims=True)
    return weights @ values / np.where(total > 0, total, np.nan)


def percentile_interval(means: FloatArray, confidence: float = 0.95) -> FloatArray:
    """The percentile interval of `[replicates, n]` means: `[2, n]`, low and high.

    nan where a mean is nan, and where all replicates are equal: a single prompt or token says nothing about others.
    Replicates in which every mean is nan are left out.
    """
    tail = (1 - confidence) / 2
    valid = means[~np.isnan(means).all(axis=1)]
    if not len(valid):
        return np.full((2, means.shape[1]), np.nan)
    spread, size = np.ptp(valid, axis=0), np.abs(valid).max(axis=0)
    return np.where(spread > SUM_ROUNDING * size, np.quantile(valid, (tail, 1 - tail), axis=0), np.nan)


def paired_interval(units: Units, confidence: float, seed: int) -> tuple[float, float, str]:
    """Low, high and the name of the method; infinite where the data say nothing about other items.

    BCa: `scipy.stats.bootstrap`. Resamples of n values spread too little, by n−1 against n and by z against Student's
    t, so the level is widened by as much (Hesterberg 2015, The American Statistician 69(4)).

    Bonett-Price: Student's t interval after adding one item in each direction, +1 and −1 (Bonett and Price 2012, J.
    Educ. Behav. Stat. 37(4)); for scores the step is their range, and with clusters each addition is a cluster of mean
    size. It replaces the bootstrap where that fails: where fewer than 20 units differ from the most common difference,
    where one unit is four standard deviations out and makes up more than a fifth of the sum of squares (heavy tails),
    or where the tail of the confidence contains fewer than five resamples. It never has width 0, and covers more often
    than it says where almost nothing differs.
    """
    if units.reach == 0:
        return -inf, inf, "none: every score is the same"
    if len(units.sums) == 1 and not units.binary:
        return -inf, inf, f"none: a single {units.name[:-1]}"
    level = _widened(confidence, len(units.sums))
    resampled = units.varied >= VARIED and not units.dominated and (1 - level) / 2 * RESAMPLES >= TAIL_RESAMPLES
    low, high = _bca(units, level, seed) if resampled else _bonett_price(units, confidence)
    if units.sign <= 0:
        low, high = -high, (-low if units.sign else high)  # −1: undo the negation; 0: symmetric
    bound = units.reach if units.binary else inf
    method = f"{'BCa bootstrap' if resampled else 'Bonett-Price'} over {units.name}"
    return float(max(low, -bound) * units.scale), float(min(high, bound) * units.scale), method


def sign_flips(units: Units, seed: int) -> float:
    """Two-sided p-value of the sum under random signs. Units that do not differ are unaffected by a flip: left out."""
    from scipy.stats import permutation_test

    sums = units.sums[units.sums != 0]
    if len(sums) < 2:  # for a single unit both signs are equally likely
        return 1.0
    batch, rng = max(1, BATCH_VALUES // len(sums)), np.random.default_rng(seed)
    drawing = {"n_resamples": RESAMPLES, "batch": batch, "rng": rng}
    return float(permutation_test((sums,), np.sum, permutation_type="samples", **drawing).pvalue)


def _widened(confidence: float, count: int) -> float:
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
    drawing = {"n_resamples": RESAMPLES, "batch": batch, "rng": rng, "paired": True}
    interval = bootstrap(data, statistic, confidence_level=level, **drawing).confidence_interval
    return interval.low, interval.high


def _bonett_price(units: Units, confidence: float) -> tuple[float, float]:
    from scipy.stats import t

    values = np.concatenate((units.values, [units.reach, -units.reach]))
    weights = np.concatenate((units.weights, [1, 1]))
    centre = values.sum() / weights.sum()
    error = (values - centre * weights).std(ddof=1) / sqrt(len(values))
    return t.interval(confidence, len(values) - 1, loc=centre, scale=error)
