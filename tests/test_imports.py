"""Rooms of the house: who may import whom, and what `import armlet` costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import armlet

SOURCE = Path(armlet.__file__).parent
ALLOWED = {
    "redistribution": {"redistribution"},
    "layer": {"redistribution", "layer"},
    "prompting": {"redistribution", "layer", "prompting"},
    "drawing": {"drawing"},
    "analysis": {"redistribution", "layer", "prompting", "drawing", "analysis"},
    "evaluation": {"redistribution", "layer", "prompting", "drawing", "evaluation"},
    "integrations": {"redistribution", "layer", "prompting", "analysis", "evaluation", "integrations"},
}
ALLOWED["commands"] = {*ALLOWED, "commands"}


def imported(source):
    """The modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# What the fast paths are made of; armlet works without.
KERNELS = {"llvmlite", "numba", "numpy", "triton"}


def trespasses(room, source, *, kernel=False):
    """Imports of rooms that `room` may not look into, and in `redistribution` of anything but torch."""
    outside = {"armlet", "torch", *sys.stdlib_module_names, *(KERNELS if kernel else ())}
    for module in imported(source):
        top, _, rest = module.partition(".")
        if top == "armlet" and rest.partition(".")[0] not in ALLOWED[room]:
            yield module
        if room == "redistribution" and top not in outside:
            yield module


@pytest.mark.parametrize("room", [room for room in ALLOWED if (SOURCE / room).is_dir()])
def test_a_room_imports_what_stands_before_it_alone(room):
    files = sorted((SOURCE / room).rglob("*.py"))
    assert files
    trespassing = {
        str(file): list(trespasses(room, file.read_text(), kernel="kernels" in file.parts)) for file in files
    }
    assert {file: found for file, found in trespassing.items() if found} == {}


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("redistribution", "import numpy"),
        ("redistribution", "from armlet.layer.module import ARM"),
        ("redistribution", "def f():\n    import scipy.stats"),
        ("layer", "from armlet.analysis import shape"),
        ("analysis", "import armlet.evaluation.paired"),
        ("evaluation", "from armlet import cli"),
        ("analysis", "from armlet.commands.terminal import notes"),
        ("prompting", "from armlet.evaluation.problems import Problem"),
        ("drawing", "from armlet.redistribution import Outward"),
    ],
)
def test_that_test_can_fail(room, line):
    assert list(trespasses(room, line))


def loaded_beyond_torch(statement):
    """Top-level third-party modules that `statement` loads in a fresh interpreter and torch does not."""
    program = (
        "import sys, torch; before = set(sys.modules)\n"
        f"{statement}\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "known = {name.partition('.')[0] for name in before} | set(sys.stdlib_module_names)\n"
        "print(*sorted(new - known))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return run.stdout.split()


@pytest.mark.parametrize("module", ["armlet", "armlet.redistribution"])
def test_importing_loads_nothing_but_torch(module):
    assert loaded_beyond_torch(f"import {module}") == ["armlet"]


def test_that_test_can_fail_too():
    assert "safetensors" in loaded_beyond_torch("import armlet, safetensors")


def test_public_names_are_there_in_reading_order():
    assert armlet.__all__ == [
        "redistribute",
        "Outward",
        "Inward",
        "Transport",
        "Noise",
        "ARM",
        "attach",
        "load_config",
        "Layer1",
        "presets",
    ]
    assert all(getattr(armlet, name).__doc__ for name in armlet.__all__)
