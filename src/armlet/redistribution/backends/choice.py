"""Which backends exist and which one takes a call: the one place that knows."""

import os
import warnings
from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from armlet.redistribution.backends.interception import MISSING
from armlet.redistribution.backends.plain import PLAIN
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.operands import Backend
from armlet.redistribution.rows import Policy

BACKENDS = {
    "torch": ("torch", "plain", "PLAIN"),
    "cpu": ("numba", "cpu.moves", "CPU"),
    "triton": ("triton", "triton.moves", "TRITON"),
}
"""Each backend by its name in `ARMLET_BACKEND`: the package that it needs, and the module here that has its record."""


def backend_for(a: Tensor, policy: Policy) -> Backend:
    """The backend that moves `a`, `[scopes, tokens, width]`.

    `ARMLET_BACKEND` names the only one that is asked besides plain PyTorch, which takes everything; by default it is
    triton for CUDA tensors and numba for those of the CPU; where that cannot be imported, a warning says so once.
    An `ARMLET_BACKEND` that does not exist or cannot be imported is an `ArgumentError`.
    """
    backend = _load(backend_name(a.device))
    return backend if isinstance(backend, Backend) and backend.supports(a, policy) else PLAIN


def backend_name(device: torch.device) -> str:
    """The backend that is asked first for tensors of a device, as `ARMLET_BACKEND` would name it; errors as there."""
    wanted = os.environ.get("ARMLET_BACKEND")
    return _checked(wanted) if wanted else _fastest(device.type)


@cache
def _fastest(device: str) -> str:
    name = {"cpu": "cpu", "cuda": "triton"}.get(device, "torch")
    backend = _load(name)
    if isinstance(backend, Backend):
        return name
    slow = "plain PyTorch takes its place: the same bits, many times slower (ARMLET_BACKEND=torch says no more of it)"
    warnings.warn(f"armlet: {backend}; {slow}", stacklevel=2)
    return "torch"


@cache
def _checked(name: str) -> str:
    if name not in BACKENDS:
        raise ArgumentError(f"ARMLET_BACKEND: expected one of {', '.join(BACKENDS)}, found {name!r}")
    backend = _load(name)
    if not isinstance(backend, Backend):
        raise ArgumentError(f"ARMLET_BACKEND={name}: {backend}")
    return name


@cache
def _load(name: str) -> Backend | str:
    """Imported when it is first needed, since numba and triton are slow to import; or why it cannot be."""
    package, module, record = BACKENDS[name]
    if MISSING and name != "torch":
        lacking = f"PyTorch {torch.__version__} has no {', '.join(MISSING)}"
        return f"{name}: {lacking}, which tell when no kernel may run"
    try:
        import_module(package)
        return getattr(import_module(f"armlet.redistribution.backends.{module}"), record)
    except Exception as error:  # a package that does not fit the installed NumPy or the system raises errors of its own
        return f"{package} cannot be imported ({error}): pip install {package}"
