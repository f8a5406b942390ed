"""Shares the rows of a job over as many threads as torch uses; a little work is done by the calling thread.

The threads are torch's own where possible. A second team would compete for cores with the first, whose threads spin
for some milliseconds after each of torch's operations: as long as our rows take.
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
"""As many values as make waking a thread worth its time."""

CHUNK = 1 << 14
"""As many values as a thread takes at a time: few, so that the wait for the last thread is short."""

_of_thread = threading.local()
_forked = False


def run_job(job: RowJob) -> None:
    """Works through all rows of a job."""
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
        _run_in_pool(job, (buffer, job.kept), parts)
    else:
        # As many as torch takes: a team of another size would end threads of its own, and torch start them anew.
        team(take_part.address, addressof(job), threads, 0)


def scratch(size: int) -> int:
    """The address of `size` bytes of this thread, at a multiple of `ALIGNED`; the next call uses the same."""
    kept: tuple[Tensor, int] | None = getattr(_of_thread, "scratch", None)
    if kept is None or len(kept[0]) < size + ALIGNED:
        kept = _of_thread.scratch = memory(size)
    return kept[1]


def memory(size: int) -> tuple[Tensor, int]:
    """`size` bytes, and their address at a multiple of `ALIGNED`."""
    buffer = torch.empty(size + ALIGNED, dtype=torch.uint8, device="cpu")
    return buffer, (buffer.data_ptr() + ALIGNED - 1) // ALIGNED * ALIGNED


@cache
def _team() -> Any:
    """`GOMP_parallel(function, data, threads, flags)` of the OpenMP runtime that torch uses, or None.

    Looked up as torch's own library finds it: another runtime would have threads of its own. LLVM's and Intel's have
    it, too. Source: libgomp's manual, 'Implementing PARALLEL construct'.
    """
    try:
        parallel = CDLL("libtorch_cpu.so", mode=os.RTLD_NOLOAD | os.RTLD_NOW).GOMP_parallel
    except (OSError, AttributeError):  # macOS, Windows; a torch without OpenMP
        return None
    parallel.argtypes, parallel.restype = (c_void_p, c_void_p, c_uint, c_uint), None
    return parallel


def _run_in_pool(job: RowJob, kept: object, parts: int) -> None:
    """Runs the job on our own pool: numba's parallel loops abort the process where two threads use them at once."""

    def part(_kept: object = kept) -> None:
        take_part.call(addressof(job))

    rest = []
    with suppress(RuntimeError):  # the interpreter is about to end, and starts no thread
        rest += [_executor().submit(part) for _ in range(parts - 1)]
    try:
        part()
    finally:
        wait(rest)


@cache
def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(os.cpu_count() or 1, torch.get_num_threads()), "armlet")


def _forget() -> None:
    """After a fork: the child has none of the parent's threads."""
    global _forked
    _forked = True
    _executor.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
