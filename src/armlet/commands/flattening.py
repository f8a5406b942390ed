"""Commands for typer: groups of options become options."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import Any


def flattened(function: Callable[..., None]) -> Callable[..., None]:
    """Replaces each parameter that is a group of options by the group's fields, as keyword arguments."""
    groups: dict[str, Any] = {}
    parameters: list[Parameter] = []
    for parameter in signature(function).parameters.values():
        if is_dataclass(parameter.annotation):
            groups[parameter.name] = parameter.annotation
            group_fields = signature(groups[parameter.name]).parameters.values()
            parameters += [field.replace(kind=Parameter.KEYWORD_ONLY) for field in group_fields]
        else:
            parameters.append(parameter)

    @wraps(function)
    def call(*args: object, **values: object) -> None:
        filled = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group) if field.name in values})
            for name, group in groups.items()
        }
        function(*args, **values, **filled)

    call.__signature__ = signature(function).replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__annotations__["return"] = signature(function).return_annotation
    return call
