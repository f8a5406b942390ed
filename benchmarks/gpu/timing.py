"""Times of GPU work by CUDA events, in turns; without a GPU by the clock."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import torch

from benchmarks.gpu.recording import Recording, recorded

RECORDED_SECONDS = 1e-3  # of the calls that one recording repeats: many times what a launch takes
MOST_REPEATS = 50
BUSY_CYCLES = 200_000  # about 0.1 ms


@dataclass
class Job:
    """Work to time: `run` does it `repeats` times; before it runs `prepare`, outside the measurement."""

    run: Callable[[], object]
    repeats: int = 1
    prepare: Callable[[], object] = lambda: None
    in_graph: bool = False


def seconds(run: Callable[[], object]) -> float:
    """The seconds from the start of the first kernel to the end of the last, by CUDA events (in milliseconds)."""
    if not torch.cuda.is_available():
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(BUSY_CYCLES)  # meanwhile Python launches what follows, whose latency then does not count
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3


def graph_job(work: Callable[[], Any], most: int = MOST_REPEATS) -> Job:
    """A job whose calls are recorded in a CUDA graph one after another, so that launches from Python do not count."""
    repeats = _repeats(work, most)

    def several() -> object:
        result = None
        for _ in range(repeats):
            result = work()
        return result

    recording: Recording = recorded(several)
    return Job(lambda: recording.replay(), repeats, in_graph=torch.cuda.is_available())


def eager_job(work: Callable[[], Any]) -> Job:
    """A job that Python launches call by call: for work that waits for the GPU."""
    repeats = _repeats(work, 5)

    def several() -> None:
        for _ in range(repeats):
            work()

    return Job(several, repeats)


def _repeats(work: Callable[[], Any], most: int) -> int:
    """How often to repeat a call in one measurement; runs it first, which compiles it."""
    work()
    return max(1, min(most, round(RECORDED_SECONDS / max(seconds(work), 1e-9))))


def in_turns(jobs: Mapping[str, Job], turns: int) -> dict[str, list[float]]:
    """The seconds of one repeat of each job, in each turn; one turn before does not count."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(turns + 1):
        for name, job in jobs.items():
            job.prepare()
            taken = seconds(job.run) / job.repeats
            times[name] += [taken] if turn else []
    return times


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles, by name."""
    low, _, high = quantiles(values, n=4, method="inclusive")
    return {"median": median(values), "lower quartile": low, "upper quartile": high}
