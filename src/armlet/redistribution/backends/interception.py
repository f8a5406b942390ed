"""Whether a compiler, a tracer, a mode or a function transform handles torch's operations: kernels only read memory.

torch has no public function that tells of modes and transforms; where an internal one is missing, no kernel is used.
"""

from collections.abc import Callable
from operator import attrgetter

import torch
from torch import Tensor
from torch.autograd import forward_ad

MISSING: list[str] = []
"""Internal names of torch that this version lacks."""


def torch_internal(owner: object, name: str, absent: Callable[[], object] = lambda: None) -> Callable[[], object]:
    """An attribute of torch that is not public; without it `absent`, and its name is added to `MISSING`."""
    try:
        return attrgetter(name)(owner)
    except AttributeError:
        MISSING.append(name)
        return absent


# Looked up once: a model that decodes asks for each row, when these names have left every cache.
_dispatch_modes = torch_internal(torch._C, "_len_torch_dispatch_stack", lambda: 0)
_tracing_state = torch_internal(torch._C, "_get_tracing_state")
_transforms = torch_internal(torch._C, "_functorch.peek_interpreter_stack")
torch_internal(forward_ad, "_current_level")


def intercepted() -> bool:
    """Whether a compiler, an exporter, a tracer or a dispatch mode follows each operation."""
    return torch.compiler.is_compiling() or traced()


def traced() -> bool:
    """`intercepted` where no compiler is at work."""
    return _dispatch_modes() != 0 or _tracing_state() is not None


def more_than_numbers(a: Tensor) -> bool:
    """Whether a tensor has more than its memory: a subclass, a pending sign, a transform, a forward derivative."""
    if MISSING or type(a) is not Tensor or a.is_neg():
        return True
    return _transforms() is not None or forward_ad._current_level >= 0
