"""A program in the sandbox, or a skip where this system cannot isolate it."""

import pytest

from armlet.evaluation.grading.sandbox import require_sandbox, run_program
from armlet.redistribution.errors import ArmletError


def run(source, *, seconds=5.0):
    """The outcome of a program."""
    try:
        require_sandbox()
    except ArmletError as error:
        pytest.skip(f"refused: {error}")
    return run_program(source, seconds=seconds)
