"""The allowed imports between rooms, and the cost of `import armlet`."""

import ast
import importlib.metadata
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import armlet.evaluation
from fresh_interpreter import loaded_beyond_torch

SOURCE = Path(armlet.__file__).parent
QUESTIONS = ("inspection", "mechanism", "answers", "precision", "bounds", "cost", "evaluation")
FLOORS = (
    ("redistribution",),
    ("attachment", "checkpoints"),
    ("layer", "prompts"),
    QUESTIONS,
    ("playground",),
    ("commands", "integrations"),
    ("cli",),
)
"""A room imports from the floors below its own."""

PUBLIC = {name for name, value in vars(armlet.evaluation).items() if callable(value)}
"""The functions and classes of `evaluation` that any question may use."""

SERVICES = {"statistics", "runs", "presentation"}
"""They serve every floor except the lowest, and import only armlet's errors; `runs` also imports `presentation`."""

KERNELS = {"llvmlite", "numba", "numpy", "triton"}
"""Libraries of the fast paths; armlet works without them."""


def imported(source):
    """The modules and names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(room, module):
    """Whether a file of `room` may import `module`, a dotted name behind "armlet."."""
    other = module.partition(".")[0]
    if other == room or module.startswith("redistribution.errors."):
        return True
    if room in SERVICES:
        return room == "runs" and module.startswith(("presentation.files.", "presentation.terminal."))
    floor = {name: at for at, names in enumerate(FLOORS) for name in names}
    if other in SERVICES:
        return floor[room] > 0
    if room in QUESTIONS and other == "evaluation":
        return module.removeprefix("evaluation.") in PUBLIC
    return floor[other] < floor[room] or (room, other) == ("commands", "integrations")


def trespasses(room, source, *, kernel=False):
    """Imports of rooms that `room` may not look into, and in `redistribution` of anything but torch."""
    outside = {"armlet", "torch", *sys.stdlib_module_names, *(KERNELS if kernel else ())}
    for module in imported(source):
        top, _, rest = module.partition(".")
        if top == "armlet" and not allowed(room, rest):
            yield module
        if room == "redistribution" and top not in outside:
            yield module


@pytest.mark.parametrize("room", sorted({*SERVICES, *(room for floor in FLOORS[:-1] for room in floor)}))
def test_a_room_imports_from_the_floors_below_it_alone(room):
    files = sorted((SOURCE / room).rglob("*.py"))
    assert files
    found = {str(file): list(trespasses(room, file.read_text(), kernel="backends" in file.parts)) for file in files}
    assert {file: modules for file, modules in found.items() if modules} == {}


def test_every_folder_is_a_room():
    folders = {file.parent.name for file in SOURCE.glob("*/__init__.py")}
    assert folders == {*SERVICES, *(room for floor in FLOORS[:-1] for room in floor)}


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("redistribution", "import numpy"),
        ("redistribution", "from armlet.attachment.module import ARM"),
        ("redistribution", "def f():\n    import scipy.stats"),
        ("attachment", "from armlet.layer.options import Options"),
        ("layer", "from armlet.inspection import figures"),
        ("precision", "import armlet.evaluation.plan"),
        ("mechanism", "from armlet.inspection.measure import activated_gates"),
        ("evaluation", "from armlet import cli"),
        ("inspection", "from armlet.commands.reading import open_model"),
        ("prompts", "from armlet.evaluation.tasks.problems import Problem"),
        ("presentation", "from armlet.redistribution import Outward"),
        ("statistics", "from armlet.redistribution.order import mad"),
    ],
)
def test_that_test_can_fail(room, line):
    assert list(trespasses(room, line))


def module_name(file):
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.slow
def test_no_import_runs_in_a_circle():
    files = {module_name(file): file for file in SOURCE.rglob("*.py")}
    needs = {
        name: {
            module if module in files else module.rpartition(".")[0]
            for module in imported(file.read_text())
            if module in files or module.rpartition(".")[0] in files
        }
        for name, file in files.items()
    }
    list(TopologicalSorter(needs).static_order())  # CycleError names the circle


@pytest.mark.slow
@pytest.mark.parametrize("module", ["armlet", "armlet.redistribution"])
def test_importing_loads_nothing_but_torch(module):
    assert loaded_beyond_torch(f"import {module}") == ["armlet"]


@pytest.mark.slow
def test_the_command_line_starts_without_figures_and_pages():
    assert {"gradio", "matplotlib", "plotly"}.isdisjoint(loaded_beyond_torch("import armlet.cli"))


@pytest.mark.slow
def test_that_test_can_fail_too():
    assert "safetensors" in loaded_beyond_torch("import armlet, safetensors")


def test_public_names_are_there_in_reading_order():
    assert armlet.__all__ == [
        "redistribute",
        "Outward",
        "Inward",
        "Transport",
        "Cut",
        "Noise",
        "ARM",
        "attach",
        "attached",
        "detach",
        "Attachment",
        "load_config",
        "Layer1",
        "presets",
    ]
    assert all(getattr(armlet, name).__doc__ for name in armlet.__all__)


ROOMS = {*QUESTIONS, "errors"}


@pytest.mark.slow
@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_is_imported_when_it_is_first_used(room):
    program = (
        "import sys, armlet\n"
        "assert 'armlet.evaluation' not in sys.modules\n"
        f"assert armlet.{room}.__name__ == 'armlet.{room}'\n"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_rooms_and_the_version_are_attributes_of_the_package():
    assert {*armlet.__all__, *ROOMS, "__version__"} <= set(dir(armlet))
    assert armlet.__version__ == importlib.metadata.version("armlet")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = armlet.nothing


@pytest.mark.parametrize("place", ["inspection.inspect", "evaluation.tune", "cost.bench"])
def test_a_questions_function_is_asked_for_in_its_room(place):
    name = place.rpartition(".")[2]
    with pytest.raises(AttributeError, match=rf"no attribute '{name}'; use armlet\.{place}$"):
        getattr(armlet, name)


def test_every_function_is_where_the_package_says():
    assert all(callable(getattr(getattr(armlet, room), name)) for name, room in armlet._FUNCTIONS.items())
