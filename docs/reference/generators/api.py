"""The pages of the API, one for each room; mkdocstrings fills them with the docstrings."""

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType

import armlet
from generators.markdown import summary, table

ROOMS: Mapping[str, tuple[str, ...] | None] = {
    "redistribution": None,
    "attachment": tuple(
        f"armlet.{name}" for name in ("attach", "Attachment", "attached", "detach", "load_config", "ARM")
    ),
    "layer": ("armlet.Layer1", "armlet.layer.KVCache"),
    "inspection": None,
    "mechanism": None,
    "answers": None,
    "evaluation": None,
    "precision": None,
    "bounds": None,
    "cost": None,
    "playground": None,
}
"""The public names of each room; None for those that its `__init__.py` exports."""

PRESETS = [
    line
    for name in ("published", "trained")
    for line in (f"::: armlet.redistribution.presets.{name}", "    options:", f"      heading: presets.{name}", "")
]
"""The functions of the module `presets`."""

INDEX = """# API

`import armlet` gives the names of the first table. Each question has a room, a module that is imported when it is first
used. Results of questions have `.table()`, `.figure()`, `.to_dict()` and `.save(directory)`. [Errors](../errors.md)
have a page of their own.
"""


def pages() -> dict[str, str]:
    """The index and the page of each room, by path."""
    return {"api/index.md": _index(), **{f"api/{room}.md": _room_page(room) for room in ROOMS}}


def public_names(room: str) -> tuple[str, ...]:
    """The paths of what a room offers."""
    listed = ROOMS[room]
    if listed is not None:
        return listed
    module = import_module(f"armlet.{room}")
    names = [name for name, value in vars(module).items() if _is_public(name, value)]
    return tuple(f"armlet.{room}.{name}" for name in sorted(names, key=_reading_order))


def _is_public(name: str, value: object) -> bool:
    module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
    return name[0] != "_" and module.startswith("armlet.") and (name == "presets" or not isinstance(value, ModuleType))


def _reading_order(name: str) -> tuple[bool, bool, str]:
    """Functions first, then classes; presets, a module, last."""
    return name == "presets", name[0].isupper(), name.lower()


def _room_page(room: str) -> str:
    module = import_module(f"armlet.{room}")
    lines = [f"# armlet.{room}", "", summary(module.__doc__), ""]
    for path in public_names(room):
        lines += PRESETS if path.endswith(".presets") else [f"::: {path}", ""]
    return "\n".join(lines)


def _index() -> str:
    rooms = {path.rpartition(".")[2]: room for room in ROOMS for path in public_names(room)}
    top = [(f"[`{name}`]({rooms[name]}.md)", _what(getattr(armlet, name))) for name in armlet.__all__]
    others = [(f"[`armlet.{room}`]({room}.md)", summary(import_module(f"armlet.{room}").__doc__)) for room in ROOMS]
    return "\n".join([INDEX, *table(("name", "what it is"), top), "", *table(("room", "what it is"), others), ""])


def _what(value: object) -> str:
    return summary(getattr(value, "__doc__", ""))
