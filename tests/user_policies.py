"""Policies that a user writes: the example's file, other files, and packages that register one as an entry point."""

import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "soft_threshold.py"
SOFT = f"{EXAMPLE}:SoftThreshold"

HEAD = """
from dataclasses import dataclass
from typing import ClassVar
import torch
"""
CLASS = (
    HEAD
    + """
@dataclass(frozen=True)
class Mine:
    factor: float = 0.5
    strength: float = 1.0
    name: ClassVar[str] = "mine"

    def move(self, rows, draw):
        return rows.values * self.factor, rows.values != 0
"""
)
"""A policy that is as it should be, which tests change in one place."""


def write_policy(folder, source=CLASS, file="mine.py"):
    """Writes a file with a policy; the text that names its class."""
    (folder / file).write_text(source)
    return f"{folder / file}:Mine"


TARGET = "soft_threshold:SoftThreshold"


def install(folder, monkeypatch, name="soft_threshold", target=TARGET, package="soft-threshold"):
    """Makes a package importable that registers a policy, with the example's module, as pip would install it."""
    site, module = folder / package, EXAMPLE.name
    metadata = site / f"{package.replace('-', '_')}-0.1.dist-info"
    metadata.mkdir(parents=True)
    (site / module).write_bytes(EXAMPLE.read_bytes())
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
    (metadata / "entry_points.txt").write_text(f"[armlet.policies]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, EXAMPLE.stem, raising=False)
    return site
