"""Which backends exist and which one takes a call: the one place that knows."""

import os
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from armlet.redistribution.backends import plain
from armlet.redistribution.backends.interception import MISSING
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.rows import Policy

NEEDS = {"torch": ("torch", "plain"), "cpu": ("numba", "cpu.moves"), "triton": ("triton", "triton.moves")}
"""Each backend by its name in `ARMLET_BACKEND`: the package that it needs, and its module here."""


def backend(a: Tensor, policy: Policy) -> ModuleType:
    """The module whose `move_rows` takes `a`, `[scopes, tokens, width]`: all give the same bits, at different speeds.

    `ARMLET_BACKEND` names the only one that is asked besides plain PyTorch, which takes everything; by default it is
    triton for CUDA tensors and numba for those of the CPU; where that cannot be imported, a warning says so once.

    Raises:
        ArgumentError: `ARMLET_BACKEND` names none, or one that cannot be imported.
    """
    module = _module(backend_name(a.device))
    return module if isinstance(module, ModuleType) and module is not plain and module.supports(a, policy) else plain


def backend_name(device: torch.device) -> str:
    """The backend that is asked first for tensors of a device, as `ARMLET_BACKEND` would name it.

    Raises:
        ArgumentError: `ARMLET_BACKEND` names none, or one that cannot be imported.
    """
    wanted = os.environ.get("ARMLET_BACKEND")
    return _checked(wanted) if wanted else _fastest(device.type)


def gated_rows_for(gate_up: Tensor, policy: Policy) -> Callable[..., tuple[Tensor, Tensor, Tensor]] | None:
    """`gated_rows` of the backend for `[tokens, 2·width]`; None where it has no such program."""
    if backend_name(gate_up.device) != "triton":
        return None
    from armlet.redistribution.backends.triton import moves as triton

    return triton.gated_rows if triton.supports(gate_up[:, None, : gate_up.shape[1] // 2], policy) else None


def row_mover_for(
    policy: Policy, width: int, dtype: torch.dtype, keys: Tensor, stream: int
) -> Callable[..., Tensor] | None:
    """`row_mover` of the backend for the CPU; None where it does not take such rows."""
    if backend_name(torch.device("cpu")) != "cpu":
        return None
    from armlet.redistribution.backends.cpu import moves as cpu

    return cpu.row_mover(policy, width, dtype, keys, stream) if cpu.takes_row(dtype, width, policy) else None


@cache
def _fastest(device: str) -> str:
    name = {"cpu": "cpu", "cuda": "triton"}.get(device, "torch")
    module = _module(name)
    if isinstance(module, ModuleType):
        return name
    slow = "plain PyTorch takes its place: the same bits, many times slower (ARMLET_BACKEND=torch says no more of it)"
    warnings.warn(f"armlet: {_why_not(name, module)}; {slow}", stacklevel=2)
    return "torch"


@cache
def _checked(name: str) -> str:
    if name not in NEEDS:
        raise ArgumentError(f"ARMLET_BACKEND: expected one of {', '.join(NEEDS)}, found {name!r}")
    module = _module(name)
    if not isinstance(module, ModuleType):
        raise ArgumentError(f"ARMLET_BACKEND={name}: {_why_not(name, module)}") from module
    return name


def _why_not(name: str, error: Exception) -> str:
    if MISSING:
        return f"{name}: {error}"
    package, _ = NEEDS[name]
    return f"{package} cannot be imported ({error}): pip install {package}"


@cache
def _module(name: str) -> ModuleType | Exception:
    """Imported when it is first needed, since numba and triton are slow to import; or why it cannot be.

    A package that does not fit the installed NumPy or the system raises errors of its own.
    """
    package, module = NEEDS[name]
    if MISSING and name != "torch":
        return ImportError(
            f"PyTorch {torch.__version__} has no {', '.join(MISSING)}, which tell when no kernel may run"
        )
    try:
        import_module(package)
        return import_module(f"armlet.redistribution.backends.{module}")
    except Exception as error:
        return error
