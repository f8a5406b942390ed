"""The errors that armlet raises on purpose. Each message is one line; the command line exits with 2."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

LONGEST_VALUE = 200  # characters that a message shows


class ArmletError(Exception):
    """Base of every error that armlet raises on purpose."""


class ArgumentError(ArmletError, ValueError):
    """An argument has a value, a type or a shape that the operation does not support.

    The message begins with the argument's name, and says what is expected and what was found: pass that.
    """


def description(value: object) -> str:
    """A value for an error message, in one short line: a tensor's dtype and shape, or the type of a long value."""
    dtype, shape = (getattr(value, name, None) for name in ("dtype", "shape"))
    if dtype is not None and shape is not None:
        return f"{type(value).__name__} {dtype} {list(shape)}"
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE and "\n" not in text else f"a value of type {type(value).__name__}"


def did_you_mean(names: Iterable[str], known: Sequence[str]) -> str:
    """The end of a message on unknown names, with the known ones that are spelled alike; "" if none is."""
    matches = [match for name in names for match in get_close_matches(name.lower(), known, n=1)]
    return f"; did you mean {', '.join(dict.fromkeys(matches))}?" if matches else ""
