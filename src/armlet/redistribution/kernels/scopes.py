"""Scopes longer than a row, by the same counting: each pass shared out over threads, none keeping more than a row."""

from collections.abc import Callable
from dataclasses import dataclass
from math import floor
from typing import Any

import numpy as np

from armlet.redistribution.inward import Inward
from armlet.redistribution.kernels import passes, threads
from armlet.redistribution.kernels.outward_rows import near_zero, replacement, smallest_count
from armlet.redistribution.kernels.rows import SIZES, scratch_size
from armlet.redistribution.kernels.selection import (
    ABSOLUTE,
    BELOW_HIGH,
    DEVIATION,
    HIGH,
    INFINITE,
    LOW,
    MAGNITUDE,
    SEARCH,
    SIGNED,
    absorb,
    between,
    propose,
    settle,
    value_of,
)
from armlet.redistribution.outward import Outward

Extremes = tuple[int, int]


@dataclass(frozen=True)
class Scope:
    """The rows of one scope.

    Args:
        tokens: how many rows.
        real: the address of a byte for each, 0 where it does not count; or 0.
        size: how many values count.
        source: the address of the values.
        dtype: as in `rows`.
        width: of a row.
        kept: what the addresses belong to, so that it outlives a part that goes on where the call was interrupted.
    """

    tokens: int
    real: int
    size: int
    source: int
    dtype: int
    width: int
    kept: tuple[object, ...]

    def over(self, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What a pass returns for the parts of the rows."""
        tensor = self.source, self.dtype, self.width, self.real

        def part(first: int, last: int) -> Any:
            return work(first, last, *tensor, threads.scratch(scratch_size(self.width)), *arguments)

        return threads.over(self.tokens, self.tokens * self.width, part)

    def extremes(self) -> Extremes:
        """The smallest and the largest signed key."""
        lows, highs = zip(*self.over(passes.extremes), strict=True)
        return min(lows), max(highs)

    def counts(self, kind: int, middle: float, thresholds: tuple[int, int, int, int]) -> list[int]:
        """How many keys are below each threshold."""
        return [sum(part) for part in zip(*self.over(passes.counts, kind, middle, *thresholds), strict=True)]

    def select(self, kind: int, rank: int, bounds: Extremes, middle: float = 0.0) -> tuple[int, int]:
        """The key of a rank, from 0; and how many keys are not above it. No key is outside `bounds`."""
        search = np.zeros(SEARCH, dtype=np.int64)
        search[LOW], search[HIGH], search[BELOW_HIGH] = bounds[0], bounds[1] + 1, self.size
        while search[HIGH] - search[LOW] > 1:
            gap = int(search[HIGH] - search[LOW])
            thresholds = propose(search, rank, 0)
            for threshold, below in zip(thresholds, self.counts(kind, middle, thresholds), strict=True):
                absorb(search, threshold, below, rank)
            settle(search, gap)
        return int(search[LOW]), int(search[BELOW_HIGH])

    def quantile(self, kind: int, q: float, bounds: Extremes) -> float:
        """The quantile of the values or magnitudes."""
        index = q * (self.size - 1)
        rank = floor(index)
        key, not_above = self.select(kind, rank, bounds)
        low = high = value_of(key, kind)
        if rank + 1 < self.size and rank + 1 >= not_above:
            high = value_of(min(self.over(passes.following, kind, key)), kind)
        return between(low, high, index)


def move(
    scope: Scope, policy: Outward | Inward, target: int, strength: float, draws: tuple[int, ...]
) -> tuple[int, bool]:
    """Writes a scope at `target`; how many values moved, and whether it holds NaN or Inf and passed through.

    Args:
        scope: what moves.
        policy: how.
        target: the address of the result.
        strength: in place of the policy's.
        draws: of `outward_rows`: kind, and the addresses of base, step, positions and uniforms.
    """
    bounds = scope.extremes() if scope.size else (0, 0)
    most = max(bounds[1], ~bounds[0])
    if most >= INFINITE or not scope.size or strength <= 0:
        passes.copy(scope.source, target, SIZES[scope.dtype] * scope.tokens * scope.width)
        return 0, most >= INFINITE
    if isinstance(policy, Inward):
        knee = scope.quantile(MAGNITUDE, float(policy.knee), (0, most))
        return sum(scope.over(passes.write_inwards, target, strength, knee, policy.curve == "log")), False
    if policy.ceiling_of == "magnitude":
        upper = scope.quantile(MAGNITUDE, float(policy.ceiling), (0, most))
    else:
        upper = scope.quantile(SIGNED, float(policy.ceiling), bounds)
    lower = -value_of(bounds[0], SIGNED) if bounds[0] < 0 else 0.0
    how = (strength, _reach(scope, policy, most), upper, lower, policy.write == "add")
    return sum(scope.over(passes.write_outwards, target, *draws, *how)), False


def _reach(scope: Scope, policy: Outward, most: int) -> int:
    """Magnitudes whose bits are below this move."""
    size, bounds = scope.size, (0, most)
    if policy.proportion is not None:
        return scope.select(MAGNITUDE, smallest_count(float(policy.proportion), size) - 1, bounds)[0] + 1
    middle = value_of(scope.select(MAGNITUDE, (size - 1) // 2, bounds)[0], MAGNITUDE)
    deviation = scope.select(DEVIATION, (size - 1) // 2, (0, ABSOLUTE), middle)[0]
    edge = near_zero(deviation, float(policy.band))
    below, not_above, _, _ = scope.counts(MAGNITUDE, 0.0, (edge, edge + 1, edge, edge))
    rank = replacement(below, not_above, size, float(policy.share[0]), float(policy.share[1]))
    return edge if rank < 0 else scope.select(MAGNITUDE, rank, bounds)[0] + 1
