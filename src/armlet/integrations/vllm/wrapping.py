"""Wraps functions of vLLM, once per process, if all that their wrappers need of this vLLM is there."""

# pyright: reportMissingImports=false

from collections.abc import Callable, Iterable
from functools import cache, partial, wraps
from pkgutil import resolve_name
from types import ModuleType
from typing import Any, NamedTuple

from armlet.integrations.vllm.source import installed_source, missing_places

WRAPPED = "_armlet_wrapped"

Call = Callable[[], Any]
"""Calls the wrapped function with the arguments of this call."""


class Seam(NamedTuple):
    """A function of vLLM with what armlet puts around it, and what that reads of vLLM; places are as in `source`."""

    place: str
    around: Callable[..., object] | None  # None: nothing is wrapped, only read
    reads: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """All places."""
        return self.place, *self.reads

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.place.partition(":")[2].partition("(")[0].rpartition(".")[2]

    def owner(self) -> Any:
        """Imports the function's class or module."""
        module, _, path = self.place.partition("(")[0].partition(":")
        outer = path.rpartition(".")[0]
        return resolve_name(f"{module}:{outer}" if outer else module)


@cache
def missing_in_vllm(seams: tuple[Seam, ...]) -> list[str]:
    """Returns the places that the installed vLLM does not have."""
    return missing_places((place for seam in seams for place in seam.needs), installed_source())


def wrap_seams(seams: tuple[Seam, ...]) -> list[str]:
    """Wraps the functions whose seams lack nothing; returns what this vLLM lacks or cannot import."""
    missing = missing_in_vllm(seams)
    return missing + [problem for seam in seams if not set(seam.needs) & set(missing) for problem in _wrap_seam(seam)]


def _wrap_seam(seam: Seam) -> Iterable[str]:
    if seam.around is None:
        return []
    try:
        owner = seam.owner()
    except ImportError as error:
        return [f"{seam.place} ({error})"]
    wrap_function(owner, seam.name, seam.around)
    return []


def wrap_function(owner: type | ModuleType, name: str, around: Callable[..., object]) -> None:
    """Replaces a method, class method, property or function by `around(call, *arguments)`, unless it has been."""
    attribute = vars(owner)[name]
    kind = type(attribute) if isinstance(attribute, property | classmethod) else None
    original: Any = getattr(attribute, "fget", None) or getattr(attribute, "__func__", attribute)
    if hasattr(original, WRAPPED):
        return

    @wraps(original)
    def wrapper(*args: object, **kwargs: object) -> object:
        return around(partial(original, *args, **kwargs), *args, **kwargs)

    setattr(wrapper, WRAPPED, True)
    setattr(owner, name, kind(wrapper) if kind else wrapper)


def plugin_logger() -> Any:
    """Returns vLLM's logger for this plugin."""
    from vllm.logger import init_logger

    return init_logger("vllm.plugins.armlet")
