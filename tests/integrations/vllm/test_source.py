"""Whether vLLM has what armlet needs is read in its source."""

from pathlib import Path

import pytest

from armlet.integrations.vllm.seams import SEAMS
from armlet.integrations.vllm.source import missing_places

PAGE = Path(__file__).parents[3] / "docs/reference/vllm_versions.md"

MODULE = """
import os

LIMIT: int = 3

def free(first, second=None): ...

class Runner:
    field: int
    LOW, HIGH = 1, 2

    def __init__(self, device):
        local = device
        self.plain = local
        self.typed: int = 1
        self.left, self.right = 1, 2

    @property
    def computed(self): ...

    async def step(self, ids, positions, *, more=1): ...

    @classmethod
    def built(cls, request): ...
"""
THERE = [
    "vllm.worker.runner:LIMIT",
    "vllm.worker.runner:free(first, second)",
    "vllm.worker.runner:free(first)",
    *(
        f"vllm.worker.runner:Runner.{name}"
        for name in ("field", "LOW", "HIGH", "plain", "typed", "left", "right", "computed", "step", "built(request)")
    ),
    "vllm.worker.runner:Runner.step(ids, positions)",
    "vllm.worker:Exported",
]
MISSING = [
    "vllm.gone:Runner",
    "vllm.worker.runner:Gone.field",
    "vllm.worker.runner:Runner.LIMIT",
    "vllm.worker.runner:Runner.gone",
    "vllm.worker.runner:Runner.local",
    "vllm.worker.runner:Runner.plain(request)",
    "vllm.worker.runner:Runner.step(ids, other)",
    "vllm.worker.runner:Runner.step(positions)",
    "vllm.worker.runner:free(first, second, third)",
    "vllm.worker.runner:plain",
]


@pytest.fixture
def source(tmp_path):
    (tmp_path / "vllm/worker").mkdir(parents=True)
    (tmp_path / "vllm/worker/runner.py").write_text(MODULE)
    (tmp_path / "vllm/worker/__init__.py").write_text("class Exported: ...\n")
    return tmp_path / "vllm"


def test_what_a_source_defines_assigns_or_takes_is_there(source):
    assert missing_places(THERE, source) == []


@pytest.mark.parametrize("place", MISSING)
def test_what_it_does_not_is_missing(source, place):
    assert missing_places([place, *THERE, place], source) == [place]


@pytest.mark.parametrize("seam", {seam.name: seam for seams in SEAMS.values() for seam in seams}.values())
def test_the_page_of_versions_names_each_seam(seam):
    assert any(seam.name in line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| "))
