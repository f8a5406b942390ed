"""Which backends there are and which one takes a call: the one place that knows."""

import os
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.kernels import plain
from armlet.redistribution.rows import Policy

NEEDS = {"torch": "torch", "cpu": "numba", "triton": "triton"}
"""Each backend by its name in `ARMLET_BACKEND`, and the package without which it is not there."""

ADVICE = {"cpu": "pip install 'armlet[fast]'", "triton": "pip install triton"}


def backend(a: Tensor, policy: Policy) -> ModuleType:
    """The module whose `move_rows` takes `a`, `[scopes, tokens, width]`: the same bits from each, at different speeds.

    `ARMLET_BACKEND` names the only one that is asked besides plain PyTorch, which takes everything; by default it is
    triton for CUDA tensors and numba for those of the CPU, where they are installed.

    Raises:
        ArgumentError: `ARMLET_BACKEND` names none, or one that is not installed.
    """
    module = _module(backend_name(a.device))
    return module if module is plain or module.supports(a, policy) else plain


def backend_name(device: torch.device) -> str:
    """The backend that is asked first for tensors of a device, as `ARMLET_BACKEND` would name it.

    Raises:
        ArgumentError: `ARMLET_BACKEND` names none, or one that is not installed.
    """
    wanted = os.environ.get("ARMLET_BACKEND")
    return _checked(wanted) if wanted else _fastest(device.type)


def gated_rows(gate_up: Tensor, policy: Policy) -> Callable[..., tuple[Tensor, Tensor, Tensor]] | None:
    """Activation, ARM and the product with up in one program, of the backend that has that for `[tokens, 2·width]`."""
    if backend_name(gate_up.device) != "triton":
        return None
    module = _module("triton")
    rows = gate_up[:, None, : gate_up.shape[1] // 2]
    return module.gated_rows if module.supports(rows, policy) else None


def row_mover(
    policy: Policy, width: int, dtype: torch.dtype, keys: Tensor, stream: int
) -> Callable[..., Tensor] | None:
    """The `RowMover` of the backend for the CPU; None where it has none for such rows."""
    module = _module(backend_name(torch.device("cpu")))
    if module is plain or not module.takes_row(dtype, width, policy):
        return None
    return module.RowMover(policy, width, dtype, keys, stream)


@cache
def installed(name: str) -> bool:
    """Whether the package of a backend is there."""
    return find_spec(NEEDS[name]) is not None


@cache
def _fastest(device: str) -> str:
    name = {"cpu": "cpu", "cuda": "triton"}.get(device, "torch")
    return name if installed(name) else "torch"


@cache
def _checked(name: str) -> str:
    if name not in NEEDS:
        raise ArgumentError(f"ARMLET_BACKEND: expected one of {', '.join(NEEDS)}, found {name!r}")
    if not installed(name):
        raise ArgumentError(f"ARMLET_BACKEND={name} needs {NEEDS[name]}, which is not installed: {ADVICE[name]}")
    return name


@cache
def _module(name: str) -> ModuleType:
    """Imported when it is first wanted: numba and triton take their time."""
    if name == "cpu":
        try:
            from armlet.redistribution.kernels import cpu
        except ImportError as error:  # a numba that does not fit the NumPy that is there, for one
            if os.environ.get("ARMLET_BACKEND"):
                raise ArgumentError(f"ARMLET_BACKEND=cpu: numba cannot be imported ({error})") from error
            warnings.warn(f"armlet: numba cannot be imported ({error}); plain PyTorch takes its place", stacklevel=2)
            return plain
        return cpu
    if name == "triton":
        from armlet.redistribution.kernels import cuda

        return cuda
    return plain
