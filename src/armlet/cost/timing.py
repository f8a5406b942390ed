"""How calls are timed: in turns, in one process, compared by the ratios of the same turn.

Times on a shared machine drift, so what is compared runs alternately, and the median of the turns' ratios is reported.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import median, quantiles

import torch

LEAST_SECONDS = 2e-3
"""Of one measurement: shorter calls are repeated."""

Tick = Callable[[], None]
"""Called after each turn."""


@dataclass(frozen=True)
class TimedJob:
    """What is timed: `call`, inside `context`, whose own time does not count."""

    call: Callable[[], object]
    context: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Spread:
    """Median, and lower and upper quartile."""

    median: float
    quartiles: tuple[float, float]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least two values."""
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(middle, (low, high))


def summarize(
    times: Mapping[str, Sequence[float]], pairs: Sequence[tuple[str, str]]
) -> tuple[dict[str, float], dict[str, Spread]]:
    """Median seconds of each job, and the turns' ratios of pairs (above, below) of jobs, by "above / below"."""
    turns = {pair: zip(times[pair[0]], times[pair[1]], strict=True) for pair in pairs}
    ratios = {" / ".join(pair): Spread.of([above / below for above, below in turns[pair]]) for pair in pairs}
    return {name: median(seconds) for name, seconds in times.items()}, ratios


def in_turns(jobs: Mapping[str, TimedJob], turns: int, tick: Tick = lambda: None) -> dict[str, list[float]]:
    """The seconds of each job in each turn, after it has run twice to warm up; at least two turns for a spread."""
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
    return max(1, round(LEAST_SECONDS / max(_time_job(job, 1), 1e-9)))


def _time_job(job: TimedJob, repeats: int) -> float:
    # Asking whether there is a GPU takes time too, so it is asked before the clock starts.
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    with job.context():
        synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            job.call()
        synchronize()
        return (time.perf_counter() - start) / repeats
