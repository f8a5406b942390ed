"""A program in the sandbox, or a skip where this system isolates nothing."""

import re

import pytest

from armlet.evaluation.grading.sandbox import _run
from armlet.redistribution.errors import ArmletError


def run(source, *, without=(), seconds=5.0, unconfined=False):
    """What came of it; where the system shuts nothing off, the refusal is what is to be shown."""
    try:
        return _run(source, seconds=seconds, memory_bytes=1 << 30, unconfined=unconfined, without=without)
    except ArmletError as error:
        if unconfined or not re.search("cannot shut model-written code off|on Linux alone", str(error)):
            raise
        pytest.skip(f"refused: {error}")
