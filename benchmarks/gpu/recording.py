"""Work recorded in a CUDA graph; without a GPU a replay runs it again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

WARM_UPS = 3


@dataclass
class Recording:
    """Recorded work: `replay()` runs it again on the same memory, and `result` is what it returned."""

    replay: Callable[[], object]
    result: Any


def recorded(work: Callable[[], Any]) -> Recording:
    """Runs `work` a few times, so that kernels are compiled and caches filled, then records it.

    Its inputs must be tensors that stay where they are, and it may not wait for the GPU. What it changes, such as a
    cache of keys and values, changes in each of the `WARM_UPS` runs, but not while it is recorded.
    """
    if not torch.cuda.is_available():
        return _repeated(work)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what is recorded runs on another stream than the default one
        for _ in range(WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return Recording(graph.replay, result)


def _repeated(work: Callable[[], Any]) -> Recording:
    work()
    recording = Recording(lambda: setattr(recording, "result", work()), None)
    return recording
