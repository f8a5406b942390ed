"""The units of a paired comparison: items or clusters of items, sorted and scaled so that their order is irrelevant."""

from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from armlet.redistribution.errors import ArgumentError
from armlet.statistics import FloatArray

OUTLIER_SHARE = 0.2  # of the sum of squares: above it, a bootstrap covers as little as 88 % (on lognormal scores)
OUTLIER_DEVIATIONS = 4  # standard deviations from the mean
MIN_CHANGED = 20  # units: below it, a bootstrap covers as little as 47 % (measured on a grid of designs)
SCORE_LIMIT = 1e100
SIGNIFICANT_DIGITS = 13  # digits kept of a difference, relative to the largest score; others are rounding error


@dataclass(frozen=True)
class Units:
    """Differences of items, or sums of differences of clusters.

    They are sorted, and negated if that puts them into the canonical order. So results do not depend on the order of
    the items, and swapping the sides swaps the result exactly.
    """

    sums: FloatArray  # [units], in units of `scale`; whole numbers for 0/1 answers, so that ties are exact
    sizes: FloatArray  # [units], the number of items in each unit
    sign: int  # −1 if the differences were negated, else +1; 0 if negating them changes nothing
    max_difference: float  # largest possible difference of an item, in units of `scale`; for scores, the observed range
    scale: float  # score difference that is 1 in `sums`
    binary: bool  # all scores are 0 or 1
    name: str  # "items" or "clusters"

    @property
    def weights(self) -> FloatArray:
        """Sizes relative to their mean."""
        return self.sizes / self.sizes.mean()

    @property
    def values(self) -> FloatArray:
        """Contribution of each unit in units of `scale`; the mean of these is the difference."""
        return self.sums / self.sizes.mean()

    @property
    def step(self) -> float:
        """The step of the lattice on which the difference of 0/1 answers lies, in units of `scale`; 0 for scores."""
        return int(np.gcd.reduce(self.sums.astype(np.int64))) / float(self.sizes.sum()) if self.binary else 0.0

    @property
    def changed_count(self) -> int:
        """Number of units that differ from the most common mean difference."""
        rounded = np.round(self.sums / self.sizes, SIGNIFICANT_DIGITS - 1)
        return len(self.sums) - int(np.unique(rounded, return_counts=True)[1].max())

    @property
    def has_outlier(self) -> bool:
        """Whether one unit makes up more than a fifth of the sum of squares and lies four standard deviations out.

        Only both together are rare: the first is common among few normal units, the second among many.
        """
        squares = (self.values - self.weights * self.values.mean()) ** 2
        return bool(squares.max() > max(OUTLIER_SHARE, OUTLIER_DEVIATIONS**2 / len(squares)) * squares.sum())

    @property
    def has_reliable_spread(self) -> bool:
        """Whether enough units differ from the most common difference, or all differ from one another."""
        return self.changed_count >= min(MIN_CHANGED, len(self.sums) - 1)


def score_matrix(name: str, values: ArrayLike) -> FloatArray:
    """Checks scores and returns them as `[items, samples]`; `name` is the argument's name in an ArgumentError."""
    try:
        scores = np.asarray(values)
    except ValueError:
        raise ArgumentError(f"{name} has rows of unequal length: give each item the same number of samples") from None
    if scores.dtype.kind not in "biuf":
        raise ArgumentError(f"{name} contains {'text' if scores.dtype.kind == 'U' else scores.dtype}: give numbers")
    if scores.ndim not in (1, 2) or not scores.size:
        raise ArgumentError(f"{name} has shape {scores.shape}: give [items] or [items, samples], at least one of each")
    scores = scores.astype(np.float64)
    if not (np.abs(scores) < SCORE_LIMIT).all():
        raise ArgumentError(f"{name} contains NaN, infinity or a number beyond 1e100: give finite scores")
    return scores.reshape(len(scores), -1)


def exact_mean(values: FloatArray) -> float:
    """Mean of `[items]`, rounded once: it does not depend on their order, and negating them negates it exactly."""
    return fsum(values) / len(values) + 0.0


def gather_units(before: FloatArray, after: FloatArray, clusters: ArrayLike | None) -> Units:
    """Differences of two `[items, samples]` matrices from `score_matrix`, by item or by cluster."""
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    binary = all(np.isin(side, (0, 1)).all() for side in (before, after))
    if binary:
        sums = after.sum(axis=1) * before.shape[1] - before.sum(axis=1) * after.shape[1]
        scale, max_difference = 1 / (before.shape[1] * after.shape[1]), float(before.shape[1] * after.shape[1])
    else:
        scale = float(max(-low, high)) or 1.0
        sums = (after / scale).mean(axis=1) - (before / scale).mean(axis=1)
        max_difference = float(high / scale - low / scale)
    sizes, name = np.ones(len(sums)), "items"
    if clusters is not None:
        indices, name = _cluster_indices(clusters, len(sums)), "clusters"
        sums, sizes = np.bincount(indices, sums).astype(np.float64), np.bincount(indices).astype(np.float64)
    return Units(*_canonical(np.round(sums, SIGNIFICANT_DIGITS), sizes), max_difference, scale, binary, name)


def _cluster_indices(clusters: ArrayLike, items: int) -> NDArray[np.intp]:
    try:
        labels = np.asarray(clusters)
    except ValueError:
        raise ArgumentError("clusters has rows of unequal length: give one label for each item") from None
    if labels.shape != (items,):
        raise ArgumentError(f"clusters has shape {labels.shape} for {items} items: give one label for each item")
    try:
        return np.unique(labels, return_inverse=True)[1]
    except TypeError:
        raise ArgumentError("clusters contains labels that cannot be sorted: give numbers or strings") from None


def _canonical(sums: FloatArray, sizes: FloatArray) -> tuple[FloatArray, FloatArray, int]:
    """Sorted sums and sizes, and the sign by which the sums were multiplied; 0 if both signs lead to the same."""
    orders = [np.lexsort((sizes, signed)) for signed in (sums, -sums)]
    same, negated = (np.stack((sign * sums[order], sizes[order])) for sign, order in zip((1, -1), orders, strict=True))
    differing = np.flatnonzero(same.ravel() != negated.ravel())
    if not len(differing):
        return *same, 0
    sign = 1 if same.ravel()[differing[0]] > negated.ravel()[differing[0]] else -1
    return *(same if sign > 0 else negated), sign


def check_share(name: str, value: float) -> None:
    """Raises ArgumentError unless the value is a number and 0 < value < 1."""
    if not isinstance(value, int | float | np.number) or not 0 < value < 1:
        raise ArgumentError(f"{name} is {value!r}: give a share between 0 and 1, for example 0.95")


def check_whole(name: str, value: int, minimum: int) -> int:
    """Returns the value as an int; raises ArgumentError unless it is a whole number of `minimum` or more."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < minimum:
        raise ArgumentError(f"{name} is {value!r}: give a whole number of {minimum} or more")
    return int(value)
