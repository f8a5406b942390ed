"""The tests that run on a GPU as on the CPU: bits of the Triton programs, of plain PyTorch, and of models in graphs.

Most of their time is that of compiling, so several processes share them.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmarks.gpu.form import Form
from benchmarks.gpu.section import Section
from benchmarks.gpu.shards import REPORT, SHARD

ROOT = Path(__file__).parents[2]
FILES = (
    "tests/redistribution/backends/test_triton.py",
    "tests/redistribution/backends/test_devices.py",
    "tests/attachment/test_recorded.py",
)
# vLLM is not there; the others compile for GPUs that are not there, or look at imports.
SELECTION = "not vllm and not ahead_of_time and not can_fail and not importing"
SMALL_SELECTION = f"{SELECTION} and not 18944 and not widest and not 3276 and not 8960 and not float16 and not float64"
MOST_PROCESSES = 6


def run(section: Section, form: Form) -> None:
    """Runs the tests in several processes, until the section's time is used up."""
    count = 1 if form.is_small else max(1, min(MOST_PROCESSES, (os.cpu_count() or 1) // 2))
    reports = [section.folder / f"tests-{index}.jsonl" for index in range(count)]
    processes = [_start(form, f"{index}/{count}", report) for index, report in enumerate(reports)]
    while section.left > 0 and any(process.poll() is None for process in processes):
        time.sleep(0.2)
    for index, process in enumerate(processes):
        if process.poll() is None:
            process.kill()
            section.fail(f"process {index} of {count}", "its tests were not finished when the time was used up")
        elif process.returncode not in (0, 1):  # 1: some tests failed, and each of them is recorded
            section.fail(f"process {index} of {count}", f"pytest ended with {process.returncode}; see its output")
    _record(section, [line for report in reports for line in _lines(report)])


def _start(form: Form, shard: str, report: Path) -> subprocess.Popen[bytes]:
    report.unlink(missing_ok=True)
    folders = (ROOT / "src", ROOT / "tests", ROOT)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        SHARD: shard,
        REPORT: str(report),
        "ARMLET_TEST_DEVICE": form.device,
        "ARMLET_TEST_EXAMPLES": str(form.examples),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("TRITON_INTERPRET", None)  # which the tests set where they need it
    options = ["-q", "-p", "no:cacheprovider", "-p", "benchmarks.gpu.shards", "--import-mode=importlib"]
    options += ["-o", "filterwarnings=default", "-k", SMALL_SELECTION if form.is_small else SELECTION]
    command = [sys.executable, "-m", "pytest", *options, *FILES]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sys.stderr)


def _lines(report: Path) -> Iterable[dict[str, str]]:
    return map(json.loads, report.read_text(encoding="utf-8").splitlines()) if report.exists() else ()


def _record(section: Section, lines: list[dict[str, str]]) -> None:
    """Counts the tests; each that failed is an error of the section."""
    section.results["tests"] = dict(Counter(line["outcome"] for line in lines))
    skipped = Counter(line["message"] for line in lines if line["outcome"] == "skipped")
    section.results["skipped tests, by reason"] = dict(skipped)
    for line in lines:
        if line["outcome"] == "failed":
            section.fail(line["test"], line["message"])
    if not section.results["tests"].get("passed"):
        section.fail("all", "no test passed")
