"""A function or a class of a user's Python file, named as "file.py:name" or "file.py:name:settings"."""

import hashlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from armlet.redistribution.errors import ArgumentError

NAMED_IN_FILE = re.compile(r"(?P<path>.*?\.py)(:(?P<name>[^:]*))?(:(?P<settings>.*))?", re.DOTALL)


class FileObject(NamedTuple):
    """A name in a Python file, whose content was read and not yet run."""

    option: str  # with which errors begin, such as "policy"
    kind: str  # what the name should be: "function" or "class"
    file: Path
    name: str
    settings: str  # the text after the name; empty if there is none
    source: bytes

    @property
    def sha256(self) -> str:
        """Of the file's content, in hexadecimal digits."""
        return hashlib.sha256(self.source).hexdigest()

    def refused(self, problem: str) -> ArgumentError:
        """An error about this file."""
        return ArgumentError(f"{self.option}: {self.file} {problem}")


def names_python_file(text: str) -> bool:
    """Whether a text is of the form "file.py:name:settings", of which name and settings may be absent."""
    return NAMED_IN_FILE.fullmatch(text) is not None


def settings_text(text: str) -> str:
    """The settings in the text of a policy, after its name or its "file.py:Class"; empty if there are none."""
    match = NAMED_IN_FILE.fullmatch(text)
    return text.partition(":")[2] if match is None else match["settings"] or ""


def read_file_object(text: str, *, option: str, kind: str) -> FileObject:
    """Reads the file that a text names; raises ArgumentError if there is no name, or the file cannot be read."""
    match = NAMED_IN_FILE.fullmatch(text)
    if match is None or not (match["name"] or "").isidentifier():
        raise ArgumentError(f"{option}: expected file.py:{kind}, found {text!r}")
    file = Path(match["path"])
    try:
        return FileObject(option, kind, file, match["name"], match["settings"] or "", file.read_bytes())
    except OSError as error:
        raise ArgumentError(f"{option}: {file} cannot be read ({error.strerror})") from error


def run_file_object(named: FileObject) -> object:
    """Runs the file, and returns what its name is.

    The file is read once, so that what runs is what the sha256 is of. Modules next to it cannot be imported, because
    the hash would not cover them.

    Raises ArgumentError if the file raises an error, or has no such function or class.
    """
    module = ModuleType(f"armlet_{named.option}_{named.sha256[:16]}")
    module.__file__ = str(named.file)
    sys.modules[module.__name__] = module  # dataclasses in it look their module up
    try:
        exec(compile(named.source, str(named.file), "exec"), vars(module))
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        raise named.refused(f"cannot be run ({first_line(error)})") from error
    value = getattr(module, named.name, None)
    if not (isinstance(value, type) if named.kind == "class" else callable(value)):
        defined = {key: value for key, value in vars(module).items() if _module_of(value) == module.__name__}
        names = [key for key, value in defined.items() if isinstance(value, type) or named.kind == "function"]
        plural = "classes" if named.kind == "class" else "functions"
        raise named.refused(f"has no {named.kind} {named.name!r}; its {plural}: {', '.join(names) or 'none'}")
    return value


def _module_of(value: object) -> object:
    return getattr(value, "__module__", "")


def first_line(error: BaseException) -> str:
    """The type of an error, and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
