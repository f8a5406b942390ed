"""Freed memory that is used again while times are taken."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import resource
import sys
import torch
from armlet.cost.timing import keep_freed_memory

if "keep" in sys.argv:
    assert keep_freed_memory()

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        a = torch.ones(9 * 2**20)  # 36 MiB: above what glibc keeps by itself
        b = a * 2 + a
        del a, b
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
faults(5)
print(faults(20))
"""


def faults(*arguments):
    run = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_freed_memory_is_used_again_without_new_pages():
    # By default each of the 60 tensors is mapped anew; what is kept may be in pieces that one of them does not fit.
    assert 4 * faults("keep") < faults()
