"""Detects compilers, tracers, modes and function transforms that handle torch's operations; kernels bypass them.

torch has no public function to detect modes and transforms. If an internal one is missing, no kernel is used.
"""

from collections.abc import Callable
from operator import attrgetter

import torch
from torch import Tensor
from torch.autograd import forward_ad

MISSING: list[str] = []
"""Internal names of torch that are missing in the installed version."""


def torch_internal(owner: object, name: str, absent: Callable[[], object] = lambda: None) -> Callable[[], object]:
    """Returns a private attribute of torch; if it is missing, adds its name to `MISSING` and returns `absent`."""
    try:
        return attrgetter(name)(owner)
    except AttributeError:
        MISSING.append(name)
        return absent


# Looked up once, because decoding calls these for each row, and lookups by name would miss the CPU's caches.
_dispatch_modes = torch_internal(torch._C, "_len_torch_dispatch_stack", lambda: 0)
_tracing_state = torch_internal(torch._C, "_get_tracing_state")
_transforms = torch_internal(torch._C, "_functorch.peek_interpreter_stack")
torch_internal(forward_ad, "_current_level")


def intercepted() -> bool:
    """Whether a compiler, an exporter, a tracer or a dispatch mode handles each operation."""
    return torch.compiler.is_compiling() or traced()


def traced() -> bool:
    """Whether a tracer or a dispatch mode handles each operation; `intercepted` without the check for compilers."""
    return _dispatch_modes() != 0 or _tracing_state() is not None


def captured(a: Tensor) -> bool:
    """Whether a CUDA graph captures what runs on `a`: its operations run later, and nothing may wait for them."""
    return a.is_cuda and torch.cuda.is_current_stream_capturing()


def needs_torch_operations(a: Tensor) -> bool:
    """Whether a tensor is more than its memory: a subclass, lazily negated, transformed, or forward-differentiated."""
    if MISSING or type(a) is not Tensor or a.is_neg():
        return True
    return _transforms() is not None or forward_ad._current_level >= 0
