"""What a paired comparison resamples and flips: items, or clusters of items, in one canonical form."""

import operator
from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from armlet.redistribution.errors import ArgumentError

DOMINANT = 0.2  # of the sum of squares: above, a bootstrap covers as little as 88 % (measured on lognormal scores)
FAR = 4  # standard deviations
VARIED = 20  # units: below, a bootstrap covers as little as 47 % (measured on a grid of designs)
LARGEST = 1e100
DIGITS = 13  # of a difference relative to the largest score: beyond lies rounding

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Units:
    """What is resampled and flipped: items, or clusters with their sizes.

    Sorted, and turned so that the same data with the sides swapped is the same: results do not hang on the order of the
    items, and swap with the sides. `sums` of 0/1 are whole numbers (in units of `scale`), so that ties are ties.
    """

    sums: Values
    sizes: Values
    sign: int  # +1, −1, or 0 where swapping the sides changes nothing
    reach: float  # the most one item can differ: 1 for 0/1, the range seen for scores; in units of `scale`
    scale: float
    binary: bool
    name: str

    @property
    def weights(self) -> Values:
        """Sizes relative to their mean."""
        return self.sizes / self.sizes.mean()

    @property
    def values(self) -> Values:
        """Each unit's part of the difference, in units of `scale`: their mean is the difference."""
        return self.sums / self.sizes.mean()

    @property
    def varied(self) -> int:
        """How many units differ from the commonest mean difference."""
        return len(self.sums) - self._alike()

    @property
    def dominated(self) -> bool:
        """Whether one unit makes up more than a fifth of the sum of squares, and lies four standard deviations out.

        Either alone is common: the first among few normal units, the second among many.
        """
        squares = (self.values - self.weights * self.values.mean()) ** 2
        return bool(squares.max() > max(DOMINANT, FAR**2 / len(squares)) * squares.sum())

    @property
    def settled(self) -> bool:
        """Whether the spread seen can be trusted: enough units vary, or all do."""
        return self.varied >= VARIED or self._alike() == 1

    def _alike(self) -> int:
        return int(np.unique(np.round(self.sums / self.sizes, DIGITS - 1), return_counts=True)[1].max())


def matrix(name: str, values: ArrayLike) -> Values:
    """`[items, samples]`, checked."""
    try:
        found = np.asarray(values)
    except ValueError:
        raise ArgumentError(f"{name} has rows of unequal length: give as many samples for every item") from None
    if found.dtype.kind not in "biuf":
        raise ArgumentError(f"{name} holds {found.dtype}: give numbers")
    if found.ndim not in (1, 2) or not found.size:
        raise ArgumentError(f"{name} has shape {found.shape}: give [items] or [items, samples], at least one of each")
    found = found.astype(np.float64)
    if not (np.abs(found) < LARGEST).all():
        raise ArgumentError(f"{name} holds NaN, infinity or a number beyond 1e100: give finite scores for every item")
    return found.reshape(len(found), -1)


def mean(values: Values) -> float:
    """Of `[items]`, rounded once: the same in any order, and turned where the values are."""
    return fsum(values) / len(values) + 0.0


def gather(before: Values, after: Values, clusters: ArrayLike | None) -> Units:
    """Both sides, checked and `[items, samples]`, as differences of items or of clusters."""
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    binary = all(np.isin(side, (0, 1)).all() for side in (before, after))
    if binary:
        sums = after.sum(axis=1) * before.shape[1] - before.sum(axis=1) * after.shape[1]
        scale, reach = 1 / (before.shape[1] * after.shape[1]), float(before.shape[1] * after.shape[1])
    else:
        scale = float(max(-low, high)) or 1.0
        sums = (after / scale).mean(axis=1) - (before / scale).mean(axis=1)
        reach = float(high / scale - low / scale)
    sizes, name = np.ones(len(sums)), "items"
    if clusters is not None:
        owners, name = _owners(clusters, len(sums)), "clusters"
        sums, sizes = np.bincount(owners, sums).astype(np.float64), np.bincount(owners).astype(np.float64)
    return Units(*_canonical(np.round(sums, DIGITS), sizes), reach, scale, binary, name)


def _owners(clusters: ArrayLike, items: int) -> NDArray[np.intp]:
    labels = np.asarray(clusters)
    if labels.shape != (items,):
        raise ArgumentError(f"clusters has shape {labels.shape} for {items} items: give one label for each item")
    try:
        return np.unique(labels, return_inverse=True)[1]
    except TypeError:
        raise ArgumentError("clusters holds labels that cannot be sorted: give numbers or strings") from None


def _canonical(sums: Values, sizes: Values) -> tuple[Values, Values, int]:
    orders = [np.lexsort((sizes, turned)) for turned in (sums, -sums)]
    as_is, turned = (np.stack((sign * sums[order], sizes[order])) for sign, order in zip((1, -1), orders, strict=True))
    apart = np.flatnonzero(as_is.ravel() != turned.ravel())
    if not len(apart):
        return *as_is, 0
    sign = 1 if as_is.ravel()[apart[0]] > turned.ravel()[apart[0]] else -1
    return *(as_is if sign > 0 else turned), sign


def check_share(name: str, value: float) -> None:
    """Raises ArgumentError unless 0 < value < 1."""
    if not 0 < value < 1:
        raise ArgumentError(f"{name} is {value}: give a share between 0 and 1, for example 0.95")


def check_whole(name: str, value: int, least: int) -> int:
    """The value as an int; ArgumentError unless it is a whole number from `least` on."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ArgumentError(f"{name} is {value!r}: give a whole number from {least} on")
    return number
