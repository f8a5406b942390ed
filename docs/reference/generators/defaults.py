"""Shows the defaults of functions as values: `token` for `DEFAULT_SCOPE`, which says nothing to a reader.

An extension of Griffe, which reads docstrings for mkdocstrings.
"""

import ast
import inspect
import pydoc
from typing import Any

import griffe

SEPARATE = ("armlet.integrations", "armlet.redistribution.backends")
"""Modules that import what an environment may lack."""


class ShownDefaults(griffe.Extension):
    """Replaces defaults that are names by their values."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Looks a function's defaults up where one of them is no literal."""
        named = [parameter for parameter in func.parameters if is_name(parameter.default)]
        if not named or func.name.startswith("_") or func.path.startswith(SEPARATE):
            return
        parameters = inspect.signature(pydoc.locate(func.path)).parameters  # type: ignore[arg-type] - a function
        for parameter in named:
            parameter.default = repr(parameters[parameter.name].default)


def is_name(default: object) -> bool:
    """Whether a default is written as a name, such as `GATE` or `Options.samples`."""
    try:
        return default is not None and isinstance(ast.parse(str(default), mode="eval").body, ast.Name | ast.Attribute)
    except SyntaxError:
        return False
