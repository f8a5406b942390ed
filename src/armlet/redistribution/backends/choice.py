"""Lists the backends, and chooses one for each call."""

import os
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from armlet.redistribution.backends.interception import MISSING
from armlet.redistribution.backends.plain import PLAIN
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.operands import Backend
from armlet.redistribution.rows import Policy
from armlet.redistribution.uninterrupted import ctrl_c_deferred

BACKENDS = {
    "torch": ("torch", "plain", "PLAIN"),
    "cpu": ("numba", "cpu.moves", "CPU"),
    "triton": ("triton", "triton.moves", "TRITON"),
}
"""Each backend's name in `ARMLET_BACKEND` → its required package, its module, and the name of its `Backend`."""


def backend_for(a: Tensor, policy: Policy) -> Backend:
    """Returns the backend for `a`, `[scopes, tokens, width]`: the preferred one, or plain PyTorch if it has no support.

    `ARMLET_BACKEND` sets the preferred backend, by default triton for CUDA tensors and numba for CPU tensors. If the
    default cannot be imported, there is one warning. Raises ArgumentError if `ARMLET_BACKEND` is unknown or cannot be
    imported.
    """
    backend = _load(backend_name(a.device))
    return backend if isinstance(backend, Backend) and backend.supports(a, policy) else PLAIN


def tally_for(device: torch.device) -> Callable[..., bool] | None:
    """Returns `Backend.tally` of a device's preferred backend, if it has one; raises the errors of `backend_for`."""
    backend = _load(backend_name(device))
    return backend.tally if isinstance(backend, Backend) else None


def backend_name(device: torch.device) -> str:
    """Returns the name of the preferred backend of a device; raises the errors of `backend_for`."""
    name = os.environ.get("ARMLET_BACKEND")
    return _checked(name) if name else _fastest(device.type)


@cache
def _fastest(device: str) -> str:
    name = {"cpu": "cpu", "cuda": "triton"}.get(device, "torch")
    backend = _load(name)
    if isinstance(backend, Backend):
        return name
    slow = "plain PyTorch is used instead: the same bits, many times slower (ARMLET_BACKEND=torch hides this warning)"
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
    """Imports a backend at its first use, because numba and triton import slowly; returns the reason if it fails."""
    package, module, record = BACKENDS[name]
    if MISSING and name != "torch":
        return f"{name}: PyTorch {torch.__version__} has no {', '.join(MISSING)}, needed to detect when kernels may run"
    try:
        with ctrl_c_deferred():
            import_module(package)
    except Exception as error:  # a package built for another NumPy or system raises errors of any type
        return f"{package} cannot be imported ({error}): pip install {package}"
    try:
        with ctrl_c_deferred():
            return getattr(import_module(f"armlet.redistribution.backends.{module}"), record)
    except Exception as error:
        return f"armlet's kernels do not work with this {package} ({type(error).__name__}: {error})"
