"""Reads in vLLM's source, without importing it, whether what armlet relies on is there.

A place is `module:Class.name` or `module:name`, for a function `module:Class.name(a, b)`: these are its first
parameters after self or cls. An attribute of a class is there if its body or one of its methods assigns it.
"""

import ast
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from armlet.integrations.vllm.offline import EngineError

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def installed_source() -> Path:
    """The folder of the installed package `vllm`, which is not imported; raises EngineError if there is none."""
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        raise EngineError("vLLM is not installed in this environment: name the folder of its package")
    return Path(spec.origin).parent


def missing_places(places: Iterable[str], source: Path) -> list[str]:
    """Returns which of these places the package in the folder `source` does not have, each once."""
    by_module = groupby(sorted(set(places)), key=lambda place: place.partition(":")[0])
    return [place for module, group in by_module for place in _missing_in(source, module, group)]


def _missing_in(source: Path, module: str, places: Iterable[str]) -> Iterator[str]:
    base = source.joinpath(*module.split(".")[1:])
    file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else ast.parse("")
    return (place for place in places if not _is_there(tree, place.partition(":")[2]))


def _is_there(tree: ast.Module, path: str) -> bool:
    names, _, parameters = path.partition("(")
    node: ast.AST | None = tree
    for name in names.split("."):
        node = None if node is None else _member(node, name)
    if node is None or not parameters:
        return node is not None
    expected = parameters.rstrip(")").split(", ")
    return isinstance(node, FUNCTIONS) and _parameters(node)[: len(expected)] == expected


def _member(scope: ast.AST, name: str) -> ast.AST | None:
    """What defines a name in the body of a module or class, or assigns it to self in a method."""
    in_body = [node for node in getattr(scope, "body", ()) if name in _defined(node)]
    in_methods = (node for node in ast.walk(scope) if name in _assigned_to_self(node))
    return in_body[0] if in_body else next(in_methods, None) if isinstance(scope, ast.ClassDef) else None


def _defined(node: ast.AST) -> list[str]:
    named = getattr(node, "name", None)
    return [named] if named else [target.id for target in _targets(node) if isinstance(target, ast.Name)]


def _assigned_to_self(node: ast.AST) -> list[str]:
    attributes = [target for target in _targets(node) if isinstance(target, ast.Attribute)]
    return [target.attr for target in attributes if isinstance(target.value, ast.Name) and target.value.id == "self"]


def _targets(node: ast.AST) -> list[ast.AST]:
    """The targets of an assignment, those of a tuple one by one; none for other nodes."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [part for target in targets for part in getattr(target, "elts", [target])]


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names
