"""Scopes longer than a row, by the same counting: each pass shared out over threads, none keeping more than a row."""

from dataclasses import dataclass
from math import floor
from typing import Any

import numpy as np

from armlet.redistribution.backends.cpu import passes, threads
from armlet.redistribution.backends.cpu.compiled import Entry
from armlet.redistribution.backends.cpu.jobs import Job
from armlet.redistribution.backends.cpu.outward import near_zero, replacement, smallest_count
from armlet.redistribution.backends.cpu.rows import SIZES, copy, scratch_size
from armlet.redistribution.backends.cpu.selection import (
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
from armlet.redistribution.inward import Inward
from armlet.redistribution.outward import Outward

Extremes = tuple[int, int]


@dataclass(frozen=True)
class Scope:
    """The rows of one scope.

    Args:
        job: their tensors and the policy's numbers, with room for what a pass is given and finds.
        size: how many values count.
    """

    job: Job
    size: int

    def over(self, loop: Entry, *results: int, **numbers: Any) -> list[int]:
        """What a pass over all rows makes of the results that it starts with."""
        for name, number in numbers.items():
            setattr(self.job, name, number)
        self.job.results = (*results,)
        threads.run(self.job, loop, scratch_size(self.job.length))
        return [*self.job.results[: len(results)]]

    def extremes(self) -> Extremes:
        """The smallest and the largest signed key."""
        low, high = self.over(passes.extremes, ABSOLUTE, -ABSOLUTE - 1)
        return low, high

    def counts(self, kind: int, middle: float, thresholds: tuple[int, int, int, int]) -> list[int]:
        """How many keys are below each threshold."""
        return self.over(passes.counts, 0, 0, 0, 0, kind=kind, middle=middle, thresholds=thresholds)

    def following(self, kind: int, key: int) -> int:
        """The smallest key above another."""
        return self.over(passes.following, ABSOLUTE, kind=kind, thresholds=(key,))[0]

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
            high = value_of(self.following(kind, key), kind)
        return between(low, high, index)


def move(scope: Scope, policy: Outward | Inward) -> tuple[int, bool]:
    """Writes a scope where its job says; how many values moved, and whether it holds NaN or Inf and passed through."""
    job = scope.job
    bounds = scope.extremes() if scope.size else (0, 0)
    most = max(bounds[1], ~bounds[0])
    if most >= INFINITE or not scope.size or job.strength <= 0:
        copy(job.source, job.target, SIZES[job.dtype] * job.count * job.length)
        return 0, most >= INFINITE
    if isinstance(policy, Inward):
        knee = scope.quantile(MAGNITUDE, job.knee, (0, most))
        return scope.over(passes.write_inwards, 0, upper=knee)[0], False
    if job.of_magnitude:
        upper = scope.quantile(MAGNITUDE, job.ceiling, (0, most))
    else:
        upper = scope.quantile(SIGNED, job.ceiling, bounds)
    lower = -value_of(bounds[0], SIGNED) if bounds[0] < 0 else 0.0
    return scope.over(passes.write_outwards, 0, limit=_reach(scope, most), upper=upper, lower=lower)[0], False


def _reach(scope: Scope, most: int) -> int:
    """Magnitudes whose bits are below this move."""
    job, size, bounds = scope.job, scope.size, (0, most)
    if job.proportion >= 0:
        return scope.select(MAGNITUDE, smallest_count(job.proportion, size) - 1, bounds)[0] + 1
    middle = value_of(scope.select(MAGNITUDE, (size - 1) // 2, bounds)[0], MAGNITUDE)
    deviation = scope.select(DEVIATION, (size - 1) // 2, (0, ABSOLUTE), middle)[0]
    edge = near_zero(deviation, job.band)
    below, not_above, _, _ = scope.counts(MAGNITUDE, 0.0, (edge, edge + 1, edge, edge))
    rank = replacement(below, not_above, size, job.low, job.high)
    return edge if rank < 0 else scope.select(MAGNITUDE, rank, bounds)[0] + 1
