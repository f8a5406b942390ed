"""The device of the tests that also run on a GPU: there `make gpu` sets `ARMLET_TEST_DEVICE=cuda`; else it is the CPU.

On a GPU Triton compiles in this process; on the CPU its interpreter needs one of its own. `ARMLET_TEST_EXAMPLES`
limits how many cases a property is tried with.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import numpy as np
import torch

DEVICE = torch.device(os.environ.get("ARMLET_TEST_DEVICE", "cpu"))
ON_GPU = DEVICE.type == "cuda"


def examples(count):
    """The number of hypothesis' examples, at most `count`."""
    return min(count, int(os.environ.get("ARMLET_TEST_EXAMPLES") or count))


def prepare():
    """In the interpreter's process. NumPy, which does the arithmetic, need not warn of NaN that nobody looks at."""
    os.environ |= {"TRITON_INTERPRET": "1", "ARMLET_BACKEND": "torch"}
    np.seterr(all="ignore")
    torch.set_num_threads(1)


@contextmanager
def triton_process():
    """Yields `run(function, *args, **kwargs)`, which calls the function where Triton runs on `DEVICE`."""
    if ON_GPU:
        yield lambda function, *args, **kwargs: function(*args, **kwargs)
        return
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=prepare) as pool:
        yield lambda function, *args, **kwargs: pool.submit(function, *args, **kwargs).result()
