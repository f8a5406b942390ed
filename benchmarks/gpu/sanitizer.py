"""compute-sanitizer on a small case: reads and writes outside of memory, and races in shared memory."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.gpu import sanitized
from benchmarks.gpu.form import Form
from benchmarks.gpu.section import Section

PROGRAM = "compute-sanitizer"
TOOLS = ("memcheck", "racecheck")
ERROR_CODE = 9
UNFINISHED = "not finished in the time that was left"


def find_program() -> str | None:
    """The program's path: on PATH, in a CUDA toolkit, or in NVIDIA's packages beside torch."""
    packages = Path(torch.__file__).parents[1]
    places = [path for pattern in ("cuda*/bin", "cuda*/compute-sanitizer") for path in Path("/usr/local").glob(pattern)]
    places += [path.parent for path in (packages / "nvidia").glob(f"**/{PROGRAM}")]
    places.append(packages / "triton" / "backends" / "nvidia" / "bin")
    return shutil.which(PROGRAM) or shutil.which(PROGRAM, path=os.pathsep.join(map(str, places)))


def run(section: Section, form: Form) -> None:
    """Runs the tools one after another, each in the time that is left."""
    if form.is_small:
        with section.case("the same calls, under Triton's interpreter"):
            sanitized.main("cpu")
        section.skip("not run: there is no GPU")
        return
    program = find_program()
    if program is None:
        section.skip(f"not run: {PROGRAM} is not installed")
        return
    for tool in TOOLS:
        if section.fits(tool, 5.0):
            with section.case(tool):
                _run_tool(section, program, tool)
    if all(section.results.get(tool, UNFINISHED) == UNFINISHED for tool in TOOLS):
        section.skip("no tool finished in the section's time")


def _run_tool(section: Section, program: str, tool: str) -> None:
    command = [program, "--tool", tool, "--error-exitcode", str(ERROR_CODE), sys.executable, "-m", sanitized.__name__]
    # Without torch's pool of memory, each tensor has bounds that the tool knows.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=section.left, check=False
        )
    except subprocess.TimeoutExpired:
        section.results[tool] = UNFINISHED
        return
    section.results[tool] = "no error" if done.returncode == 0 else "errors"
    if done.returncode:
        section.fail(tool, f"ended with {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
