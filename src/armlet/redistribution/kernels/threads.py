"""Rows shared out over as many threads as torch uses; a little work is done where it is asked for.

A pool of our own: numba's layers for parallel loops abort the process where two threads use them at once.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

WORTH_A_THREAD = 1 << 16
"""So many values take longer than waking a thread does."""

_lock = threading.Lock()
_own = threading.local()
_pool: ThreadPoolExecutor | None = None


def over(count: int, values: int, work: Callable[[int, int], Any]) -> list[Any]:
    """What `work(first, last)` returns for parts of `range(count)` that hold `values` values together."""
    parts = min(count, torch.get_num_threads(), values // WORTH_A_THREAD + 1)
    if parts == 1:
        return [work(0, count)]
    bounds = [count * part // parts for part in range(parts + 1)]
    try:
        rest = [_executor().submit(work, *pair) for pair in pairwise(bounds[1:])]
    except RuntimeError:  # the interpreter is about to end, and starts no thread
        return [work(0, count)]
    try:
        mine = work(bounds[0], bounds[1])
    finally:
        wait(rest)
    return [mine, *(part.result() for part in rest)]


def scratch(size: int) -> int:
    """The address of `size` bytes that belong to this thread, at a multiple of 64; they are kept for the next call."""
    kept: tuple[Tensor, int] | None = getattr(_own, "scratch", None)
    if kept is None or len(kept[0]) < size + 64:
        memory = torch.empty(size + 64, dtype=torch.uint8, device="cpu")
        kept = _own.scratch = memory, (memory.data_ptr() + 63) // 64 * 64
    return kept[1]


def _executor() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(os.cpu_count() or 1, torch.get_num_threads()), "armlet")
        return _pool


def _forget() -> None:
    """After a fork: the parent's threads are not there, and its lock may have been held."""
    global _lock, _pool
    _lock, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
