"""Tiny models of every family on disk, as for vLLM."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tests_vllm.conftest import tiny_model  # noqa: E402, F401 - a fixture; the path is set above
