"""Keeps the memory that torch frees in the process while times are taken."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD (malloc.h, mallopt(3))."""

RETAINED_BYTES = 2**30
"""Smaller freed blocks are not returned to the system: larger than any tensor of a prefill."""


def keep_freed_memory() -> bool:
    """Tells glibc to reuse freed memory, for the rest of this process; False where there is no glibc.

    By default it returns the memory of large tensors and requests it again, and the system clears each page when it is
    first touched: between 0 and 190,000 page faults in one prefill of SmolLM2, at random, with ARM and without. That
    changes the time of a prefill by a tenth, twice what ARM costs.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    accepted = [mallopt(threshold, RETAINED_BYTES) for threshold in (_TRIM_THRESHOLD, _MMAP_THRESHOLD)]
    return all(accepted)
