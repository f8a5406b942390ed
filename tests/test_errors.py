"""`armlet.errors` names every error that armlet raises on purpose."""

import ast
from pathlib import Path

import pytest

import armlet
from armlet import errors
from fresh_interpreter import loaded_beyond_torch

pytestmark = pytest.mark.slow


def error_classes(sources):
    """The names of `ArmletError` and of all classes that inherit from it, directly or not, in these sources."""
    bases = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
    }
    names = {"ArmletError"}
    while more := {name for name in bases.keys() - names if bases[name] & names}:
        names |= more
    return names


def test_every_error_of_the_package_can_be_caught_by_its_name():
    sources = [file.read_text() for file in Path(armlet.__file__).parent.rglob("*.py")]
    assert error_classes(sources) == set(errors.__all__)
    assert errors.__all__[0] == "ArmletError"
    assert len(errors.__all__) == len(set(errors.__all__))
    for name in errors.__all__:
        error = getattr(errors, name)
        assert error.__name__ == name
        assert issubclass(error, errors.ArmletError)
        assert error.__doc__


def test_an_error_is_recognised_by_its_bases_in_another_file():
    sources = ["class A(errors.ArmletError, OSError): ...", "class B(A): ...", "class C(OSError): ..."]
    assert error_classes(sources) == {"ArmletError", "A", "B"}


def test_the_errors_load_nothing_heavy():
    heavy = {
        "datasets",
        "gradio",
        "inspect_ai",
        "lm_eval",
        "matplotlib",
        "numba",
        "openai",
        "pandas",
        "scipy",
        "transformers",
        "vllm",
    }
    assert not heavy & set(loaded_beyond_torch("import armlet.errors"))
