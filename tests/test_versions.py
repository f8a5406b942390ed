"""What pyproject.toml promises of versions is what the checks install."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
RANGES = {
    re.split(r"[<>=]", entry)[0]: entry
    for entry in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
}


def pinned(file):
    lines = (ROOT / file).read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def numbers(version):
    """(2, 0) of 2, 2.0 and 2.0.0: zeros at the end say nothing."""
    parts = [int(part) for part in version.split(".")]
    return tuple(parts[: max(i + 1 for i, part in enumerate(parts) if part or not i)])


def test_the_oldest_versions_are_the_lower_bounds():
    bounds = {name: re.search(r">=([\d.]+)", entry)[1] for name, entry in RANGES.items()}
    oldest = pinned("constraints-oldest.txt")
    assert {name: numbers(version) for name, version in oldest.items()} == {
        name: numbers(version) for name, version in bounds.items()
    }


def test_the_range_of_transformers_ends_behind_the_version_that_the_suite_runs_with():
    end = re.search(r"<([\d.]+)$", RANGES["transformers"])[1]
    major, minor, _ = pinned("constraints.txt")["transformers"].split(".")
    assert end == f"{major}.{int(minor) + 1}"
