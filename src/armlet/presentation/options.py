"""Groups of options that a function and its command share: dataclasses whose fields have typer's help and range."""

from dataclasses import fields
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from typer import Option

from armlet.presentation.arguments import LARGEST_SEED, number_in, plain_value, whole_number
from armlet.redistribution.errors import ArgumentError

SeedOption = Annotated[int, Option(min=0, max=LARGEST_SEED, help="Seed of keyed noise, random items and sampling.")]


class OptionGroup:
    """The base of a group; raises ArgumentError for a value outside its field's range or choices."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            if get_origin(hint) is Annotated:
                value = _checked_value(name, getattr(self, name), *get_args(hint))
                object.__setattr__(self, name, value)  # a number as Python's, for JSON

    def refuse_changed(self, because: str, *names: str) -> None:
        """Refuses fields, by default all, that would have no effect and are not at their defaults."""
        for field in fields(self):  # type: ignore[arg-type] - subclasses are dataclasses
            if field.name in (names or (field.name,)) and getattr(self, field.name) != field.default:
                raise ArgumentError(f"{field.name}: {because}; leave it out")


def _checked_value(name: str, value: object, kind: Any, option: Any) -> object:
    kinds = (kind, *get_args(kind))  # of `int | None`: the union, int and NoneType
    if value is None and NoneType in kinds:
        return None
    choices = next((get_args(part) for part in kinds if get_origin(part) is Literal), ())
    if choices and value not in choices:
        raise ArgumentError(f"{name}: expected one of {', '.join(choices)}, found {value!r}")
    if int in kinds:
        return whole_number(name, value, option.min, option.max)
    if float in kinds:
        return number_in(name, value, option.min, *(() if option.max is None else (option.max,)))
    plain = next((part for part in kinds if part in (str, bool)), None)
    return plain_value(name, value, plain) if plain else value
