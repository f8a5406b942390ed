"""Paired bootstrap over prompts and their tokens: how far a mean could lie elsewhere with other prompts and tokens."""

import numpy as np
from numpy.typing import NDArray

REPLICATES = 2000
CONFIDENCE = 0.95
ROUNDING = 1e-12  # relative: sums of the same numbers in other orders differ by less

Values = NDArray[np.float64]


def draw_weights(prompts: NDArray[np.int64], *, seed: int = 0, replicates: int = REPLICATES) -> Values:
    """How often each token is drawn: prompts with replacement, and within each drawn prompt its tokens.

    Tokens of one prompt are alike, and their number alone would promise too narrow an interval. One draw serves every
    quantity and layer, and both sides of a pair.

    Args:
        prompts: `[tokens]`, the index of each token's prompt, from 0, each present.
        seed: of the draw.
        replicates: how many draws.

    Returns:
        `[replicates, tokens]`, whole numbers.
    """
    rng = np.random.default_rng(seed)
    sizes = np.bincount(prompts)
    drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=replicates)
    weights = np.empty((replicates, len(prompts)))
    for prompt, size in enumerate(sizes):
        weights[:, prompts == prompt] = rng.multinomial(drawn[:, prompt] * size, np.full(size, 1 / size))
    return weights


def replicate_means(values: Values, weights: Values) -> Values:
    """Each replicate's mean.

    Args:
        values: `[tokens, n]`, n quantities.
        weights: `[replicates, tokens]` of `draw_weights`, or some of its columns.

    Returns:
        `[replicates, n]`; nan where none of these tokens was drawn.
    """
    total = weights.sum(axis=1, keepdims=True)
    return weights @ values / np.where(total > 0, total, np.nan)


def interval(means: Values) -> Values:
    """The percentile interval at `CONFIDENCE`: `[replicates, n]` → `[2, n]`, low and high.

    nan where a mean is nan, and where all replicates agree: one prompt, or one token, says nothing of others.
    Replicates without a value at all are left out.
    """
    tail = (1 - CONFIDENCE) / 2
    kept = means[~np.isnan(means).all(axis=1)]
    if not len(kept):
        return np.full((2, means.shape[1]), np.nan)
    spread, size = np.ptp(kept, axis=0), np.abs(kept).max(axis=0)
    return np.where(spread > ROUNDING * size, np.quantile(kept, (tail, 1 - tail), axis=0), np.nan)
