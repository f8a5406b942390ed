"""A function or a class of a user's Python file, named as "file.py:name" or "file.py:name:settings"."""

import ast
import hashlib
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from traceback import walk_tb
from types import FrameType, ModuleType
from typing import NamedTuple

from armlet.redistribution.built_in import POLICIES, PUBLISHED
from armlet.redistribution.errors import ArgumentError

NAMED_IN_FILE = re.compile(r"(?P<path>.*?\.py)(:(?P<name>[^:]*))?(:(?P<settings>.*))?", re.DOTALL)

_modules: dict[tuple[Path, str], ModuleType] = {}  # the files that were run, by path and sha256


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

    @property
    def module_name(self) -> str:
        """Of the module as which the file is run, in which its classes and functions are defined."""
        return f"armlet_file_{hashlib.sha256(str(self.file.resolve()).encode() + self.source).hexdigest()[:16]}"

    def has_class(self, method: str) -> bool:
        """Whether the name is a class with a method, as far as the text of the file tells, which is not run."""
        with suppress(SyntaxError, ValueError):
            for node in ast.parse(self.source).body:
                if isinstance(node, ast.ClassDef) and node.name == self.name:
                    return any(isinstance(part, ast.FunctionDef) and part.name == method for part in node.body)
        return False

    def refused(self, problem: str) -> ArgumentError:
        """An error about this file."""
        return ArgumentError(f"{self.option}: {self.file} {problem}")


def names_python_file(text: str) -> bool:
    """Whether a text is of the form "file.py:name:settings", of which name and settings may be absent."""
    return NAMED_IN_FILE.fullmatch(text) is not None and text.partition(":")[0] not in (*POLICIES, PUBLISHED)


def settings_text(text: str) -> str:
    """The settings in the text of a policy, after its name or its "file.py:Class"; empty if there are none."""
    match = NAMED_IN_FILE.fullmatch(text) if names_python_file(text) else None
    return text.partition(":")[2] if match is None else match["settings"] or ""


def read_file_object(text: str, *, option: str, kind: str) -> FileObject:
    """Reads the file that a text names; raises ArgumentError if there is no name, or the file cannot be read."""
    match = NAMED_IN_FILE.fullmatch(text)
    if match is None or not (match["name"] or "").isidentifier() or match["settings"] == "":
        raise ArgumentError(f"{option}: expected file.py:{kind}, found {text!r}")
    file = Path(match["path"])
    try:
        return FileObject(option, kind, file, match["name"], match["settings"] or "", file.read_bytes())
    except OSError as error:
        raise ArgumentError(f"{option}: {file} cannot be read ({error.strerror})") from error
    except ValueError as error:  # a path with a null character
        raise ArgumentError(f"{option}: {text!r} cannot be read ({error})") from error


def run_file_object(named: FileObject) -> object:
    """Runs the file, unless the same one was run before, and returns what its name is.

    The file is read once, so that what runs is what the sha256 is of.

    Raises ArgumentError if the file raises an error, imports a module next to it, which the hash would not cover, or
    has no such function or class.
    """
    path = named.file.resolve(), named.sha256
    module = _modules[path] = _modules.get(path) or _run_module(named)
    value = getattr(module, named.name, None)
    if not (isinstance(value, type) if named.kind == "class" else callable(value)):
        defined = {key: value for key, value in vars(module).items() if _module_of(value) == module.__name__}
        names = [key for key, value in defined.items() if isinstance(value, type) or named.kind == "function"]
        plural = "classes" if named.kind == "class" else "functions"
        raise named.refused(f"has no {named.kind} {named.name!r}; its {plural}: {', '.join(names) or 'none'}")
    return value


def _run_module(named: FileObject) -> ModuleType:
    module, before = ModuleType(named.module_name), {*sys.modules}
    module.__file__ = str(named.file)
    sys.modules[module.__name__] = module  # dataclasses in it look their module up
    try:
        exec(compile(named.source, str(named.file), "exec"), vars(module))
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        raise named.refused(f"cannot be run ({first_line(error, module.__name__)})") from error
    new = sys.modules.keys() - before
    if neighbours := _neighbours(named, new):
        for name in new:  # so that it is new the next time as well
            if name.partition(".")[0] in neighbours:
                del sys.modules[name]
        reason = "its sha256 does not cover it; write all in one file, or make a package of both"
        raise named.refused(f"imports {neighbours[0]}, a module next to it: {reason}")
    return module


def _neighbours(named: FileObject, new: Iterable[str]) -> list[str]:
    """The modules in the file's own folder that it imports, at once or later in a function."""
    statements = [*ast.walk(ast.parse(named.source))]
    names = [alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in statements if isinstance(node, ast.ImportFrom) and node.module]
    roots = {name.partition(".")[0] for name in (*names, *new)} - {"armlet", named.module_name}
    folder = named.file.resolve().parent
    return sorted(root for root in roots if folder in _folders_of(root))


def _folders_of(module: str) -> list[Path]:
    """The folders from which a module is or would be imported; none for one that does not exist or has no file."""
    with suppress(Exception):  # a module that was imported may have anything in place of its specification
        loaded = sys.modules.get(module)
        spec = find_spec(module) if loaded is None else None
        packages = getattr(loaded, "__path__", None) or getattr(spec, "submodule_search_locations", None)
        file = getattr(loaded, "__file__", None) or getattr(spec, "origin", None)
        return [Path(place).resolve().parent for place in packages or ([file] if file else [])]
    return []


def _module_of(value: object) -> object:
    return getattr(value, "__module__", "")


def first_line(error: BaseException, module: str | None = None) -> str:
    """The type of an error, the first line of its message, and the last line that it passed in a module."""
    text = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__) if _runs(frame, module)]
    return f"{text}; {Path(frames[-1][0]).name}, line {frames[-1][1]}" if frames else text


def _runs(frame: FrameType, module: str | None) -> bool:
    return frame.f_globals.get("__name__") == module
