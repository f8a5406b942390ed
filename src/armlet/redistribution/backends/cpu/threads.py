"""Divides the rows of a job among as many threads as torch uses; small jobs run in the calling thread.

Torch's threads are used if possible. Threads of another team would compete for cores with torch's, which spin for some
milliseconds after each operation, as long as our rows take.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from ctypes import CDLL, addressof, c_uint, c_void_p
from functools import cache
from typing import Any

import torch
from torch import Tensor

from armlet.redistribution.backends.cpu.jobs import RowJob, take_part
from armlet.redistribution.backends.cpu.rows import ALIGNED

WORTH_A_THREAD = 1 << 16
"""The number of values from which waking threads saves time."""

CHUNK = 1 << 14
"""The number of values that a thread takes at a time; small, so that the wait for the last thread is short."""

_thread = threading.local()
_forked = False


def run_job(job: RowJob) -> None:
    """Moves all rows of a job."""
    count, width = job.count, job.length
    threads = torch.get_num_threads() if count > 1 and count * width >= WORTH_A_THREAD else 1
    if threads == 1:
        job.chunk, job.scratch = count, scratch(job.room)
        take_part.call(addressof(job))
        return
    job.chunk = max(1, min(CHUNK // width, count // threads))
    parts = min(threads, -(-count // job.chunk))
    buffer, job.scratch = memory(parts * job.room)
    team = None if _forked else _team()
    if team is None:
        _run_in_pool(job, (buffer, job.owners), parts)
    else:
        # As many threads as torch uses; for a team of another size the runtime would end and restart threads.
        team(take_part.address, addressof(job), threads, 0)


def scratch(size: int) -> int:
    """Returns the address of `size` bytes for this thread, a multiple of `ALIGNED`; later calls reuse them."""
    buffer: tuple[Tensor, int] | None = getattr(_thread, "scratch", None)
    if buffer is None or len(buffer[0]) < size + ALIGNED:
        buffer = _thread.scratch = memory(size)
    return buffer[1]


def memory(size: int) -> tuple[Tensor, int]:
    """Returns a buffer with at least `size` bytes at an address that is a multiple of `ALIGNED`, and this address."""
    buffer = torch.empty(size + ALIGNED, dtype=torch.uint8, device="cpu")
    return buffer, (buffer.data_ptr() + ALIGNED - 1) // ALIGNED * ALIGNED


@cache
def _team() -> Any:
    """`GOMP_parallel(function, data, threads, flags)` of the OpenMP runtime that torch uses, or None.

    Looked up through torch's library, because another runtime would have other threads. LLVM's and Intel's runtimes
    have it, too. Source: libgomp's manual, 'Implementing PARALLEL construct'.
    """
    try:
        parallel = CDLL("libtorch_cpu.so", mode=os.RTLD_NOLOAD | os.RTLD_NOW).GOMP_parallel
    except (OSError, AttributeError):  # macOS, Windows; a torch without OpenMP
        return None
    parallel.argtypes, parallel.restype = (c_void_p, c_void_p, c_uint, c_uint), None
    return parallel


def _run_in_pool(job: RowJob, owners: object, parts: int) -> None:
    """Runs the job in our thread pool; numba's parallel loops abort the process if two threads use them at once."""

    def part(_owners: object = owners) -> None:
        take_part.call(addressof(job))

    futures = []
    with suppress(RuntimeError):  # the interpreter is shutting down and starts no threads
        futures += [_executor().submit(part) for _ in range(parts - 1)]
    try:
        part()
    finally:
        wait(futures)


@cache
def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(os.cpu_count() or 1, torch.get_num_threads()), "armlet")


def _reset_after_fork() -> None:
    """Resets the state after a fork, because the child has none of the parent's threads."""
    global _forked
    _forked = True
    _executor.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
