"""Checks of the functions' arguments: whole numbers, numbers, texts and paths, and arguments without effect."""

import os
from collections.abc import Iterable, Mapping
from math import inf
from numbers import Real
from operator import index
from pathlib import Path
from typing import SupportsIndex, TypeVar, cast

from armlet.redistribution.errors import ArgumentError, description

LARGEST_SEED = 2**63 - 1  # of torch's generators

Plain = TypeVar("Plain", bound=str | bool)


def whole_number(name: str, value: object, low: int, high: int | None = None) -> int:
    """The value as an int; numpy's integers are integers, True and 2.0 are not.

    Raises ArgumentError unless it is an integer from `low` to `high`, which is included.
    """
    try:
        number = None if isinstance(value, bool) else index(cast("SupportsIndex", value))
    except TypeError:
        number = None
    if number is None or number < low or (high is not None and number > high):
        limits = f"of at least {low}" if high is None else f"from {low} to {_power(high)}"
        raise ArgumentError(f"{name}: expected an integer {limits}, found {value!r}")
    return number


def whole_number_or_none(name: str, value: object, low: int, high: int | None = None) -> int | None:
    """As `whole_number`, but None stays None."""
    return None if value is None else whole_number(name, value, low, high)


def several(value: object) -> list[object]:
    """One or several values as a list; text, a mapping, and an array or tensor without dimensions are one value."""
    single = isinstance(value, str | Mapping) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0
    return [value] if single else [*value]  # type: ignore[misc]


def whole_numbers(name: str, value: object, low: int, high: int, example: str) -> list[int]:
    """Whole numbers from one, several, or text such as the example; raises ArgumentError if one is out of range."""
    parts = value.split(",") if isinstance(value, str) else several(value)
    try:
        numbers = [whole_number(name, _read_digits(part, high), low, high) for part in parts]
    except ArgumentError:
        numbers = []
    if not numbers:
        expected = f"expected whole numbers from {low} to {high} such as {example}"
        raise ArgumentError(f"{name}: {expected}, found {description(value)}")
    return numbers


def _read_digits(part: object, high: int) -> object:
    """The number that a text states in digits from 0 to 9, if it is no longer than the highest; else the value."""
    text = part.strip() if isinstance(part, str) else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(high)) else part


def number_in(name: str, value: object, low: float, high: float = inf) -> float:
    """The value as a float; raises ArgumentError unless it is finite and from `low` to `high`, which is included."""
    if not isinstance(value, Real) or isinstance(value, bool) or not low <= value <= high or value == inf:  # type: ignore[operator]
        limits = f"of at least {low:g}" if high == inf else f"from {low:g} to {high:g}"
        raise ArgumentError(f"{name}: expected a number {limits}, found {value!r}")
    return float(value)


def plain_value(name: str, value: object, kind: type[Plain]) -> Plain:
    """The value; raises ArgumentError unless it is a text, or True or False, as `kind` says."""
    if not isinstance(value, kind):
        raise ArgumentError(f"{name}: expected {'text' if kind is str else 'True or False'}, found {value!r}")
    return value


def text_list(name: str, value: object) -> list[str]:
    """One or several texts as a list, empty for None; raises ArgumentError if one is no text."""
    several = [value] if isinstance(value, str) or not isinstance(value, Iterable) else [*value]
    return [] if value is None else [plain_value(name, text, str) for text in several]


def given_path(name: str, value: object) -> Path | None:
    """A path given as text or as a path, or None; raises ArgumentError if it is neither, or is empty."""
    return None if value is None else required_path(name, value)


def output_folder(name: str, value: object) -> Path:
    """A folder for results, which need not exist; raises ArgumentError if it cannot be created or written to."""
    folder = required_path(name, value)
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        reason = "is not writable" if nearest.is_dir() else "is a file"
        raise ArgumentError(f"{name}: {folder} cannot be written: {nearest} {reason}")
    return folder


def required_path(name: str, value: object) -> Path:
    """A path given as text or as a path; raises ArgumentError if it is neither, or is empty."""
    if not isinstance(value, str | Path) or value == "":
        raise ArgumentError(f"{name}: expected a path, found {description(value)}")
    return Path(value)


def refuse_changed(because: str, **values: tuple[object, object]) -> None:
    """Raises ArgumentError for the first of the arguments, each with its default, that is not at its default."""
    for name, (value, default) in values.items():
        if value is not default and value != default:
            raise ArgumentError(f"{name}: {because}; leave it out")


def _power(limit: int) -> str:
    return "2**63 - 1" if limit == LARGEST_SEED else str(limit)
