"""The memory that torch frees, kept in the process while times are taken."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD (malloc.h, mallopt(3))."""

KEPT = 2**30
"""Bytes below which nothing is handed back to the system: above any tensor of a prefill."""


def keep_freed_memory() -> bool:
    """Tells glibc to reuse freed memory, for the rest of this process; False where there is no glibc.

    By default it hands large tensors' memory back and asks for it anew, and the system then clears each page again when
    it is first touched: between 0 and 190,000 page faults in one prefill of SmolLM2, by chance, with ARM and without.
    That swings a prefill's time by a tenth, twice what ARM costs.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    kept = [mallopt(threshold, KEPT) for threshold in (_TRIM_THRESHOLD, _MMAP_THRESHOLD)]
    return all(kept)
