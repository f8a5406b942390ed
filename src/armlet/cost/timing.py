"""Times calls in turns, in one process, because times on a shared machine drift.

The calls to compare run alternately, and the median of the turns' ratios is reported.
"""

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import median, quantiles

import torch

from armlet.presentation.progress import Tick

MIN_SECONDS = 2e-3
"""Shortest measurement; shorter calls are repeated."""

RETAINED_BYTES = 2**30
"""Smaller freed blocks are not returned to the system. It is larger than any tensor of a prefill."""


@dataclass(frozen=True)
class TimedJob:
    """A job to time: `call` inside `context`; entering and leaving the context does not count."""

    call: Callable[[], object]
    context: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Spread:
    """Median, and lower and upper quartile."""

    median: float
    quartiles: tuple[float, float]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The median and quartiles of at least two values."""
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(middle, (low, high))


def summarize(
    times: Mapping[str, Sequence[float]], pairs: Sequence[tuple[str, str]]
) -> tuple[dict[str, float], dict[str, Spread]]:
    """Median seconds of each job, and the ratios of pairs of jobs in the same turn, by "first / second"."""
    turns = {pair: zip(times[pair[0]], times[pair[1]], strict=True) for pair in pairs}
    ratios = {" / ".join(pair): Spread.of([first / second for first, second in turns[pair]]) for pair in pairs}
    return {name: median(seconds) for name, seconds in times.items()}, ratios


def in_turns(jobs: Mapping[str, TimedJob], turns: int, tick: Tick = lambda _=1, /: None) -> dict[str, list[float]]:
    """The seconds of each job in each turn, after two runs to warm up; a spread needs at least two turns."""
    repeats = {name: _count_repeats(job) for name, job in jobs.items()}
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(turns):
        for name, job in jobs.items():
            times[name].append(_time_job(job, repeats[name]))
        tick()
    return times


def _count_repeats(job: TimedJob) -> int:
    with job.context():
        job.call()
    return max(1, round(MIN_SECONDS / max(_time_job(job, 1), 1e-9)))


def _time_job(job: TimedJob, repeats: int) -> float:
    # Checking for a GPU takes time too, so it is done before the clock starts.
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    with job.context():
        synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            job.call()
        synchronize()
        return (time.perf_counter() - start) / repeats


def keep_freed_memory() -> bool:
    """Makes glibc reuse freed memory for the rest of this process; returns False if there is no glibc.

    By default glibc returns the memory of large tensors and requests it again, and the system clears each page at its
    first use: between 0 and 190,000 page faults in one prefill of SmolLM2, at random, with or without ARM. That changes
    the time of a prefill by a tenth, twice the cost of ARM.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    trim_threshold, mmap_threshold = -1, -3  # malloc.h; mallopt(3)
    accepted = [mallopt(threshold, RETAINED_BYTES) for threshold in (trim_threshold, mmap_threshold)]
    return all(accepted)
