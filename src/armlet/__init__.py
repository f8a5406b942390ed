"""armlet: the Activation Redistribution Module inside open-weight models, exact and measured.

Each question has a room, which is imported when it is first used: `armlet.inspection`, `mechanism`, `answers`,
`evaluation`, `precision`, `bounds` and `cost`. `armlet.errors` has the errors.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from armlet.attachment.attach import attach
from armlet.attachment.attached import attached, detach
from armlet.attachment.config import load_config
from armlet.attachment.handle import Attachment
from armlet.attachment.module import ARM
from armlet.layer.decoder import Layer1
from armlet.redistribution import Cut, Inward, Noise, Outward, Transport, presets, redistribute

if TYPE_CHECKING:
    from armlet import answers as answers
    from armlet import bounds as bounds
    from armlet import cost as cost
    from armlet import errors as errors
    from armlet import evaluation as evaluation
    from armlet import inspection as inspection
    from armlet import mechanism as mechanism
    from armlet import precision as precision

    __version__: str

__all__ = [
    "redistribute",
    "Outward",
    "Inward",
    "Transport",
    "Cut",
    "Noise",
    "ARM",
    "attach",
    "attached",
    "detach",
    "Attachment",
    "load_config",
    "Layer1",
    "presets",
]

_ROOMS = ("inspection", "mechanism", "answers", "evaluation", "precision", "bounds", "cost", "errors")
_FUNCTIONS = {
    "inspect": "inspection",
    "explain": "mechanism",
    "generate": "answers",
    "evaluate": "evaluation",
    "tune": "evaluation",
    "confirm": "evaluation",
    "quantize": "precision",
    "limits": "bounds",
    "conform": "bounds",
    "bench": "cost",
}


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return import_module(f"armlet.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("armlet")
    place = f"; use armlet.{_FUNCTIONS[name]}.{name}" if name in _FUNCTIONS else ""
    raise AttributeError(f"module 'armlet' has no attribute {name!r}{place}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS, "__version__"})
