"""Runs programs that a model wrote, shut in, and says whether they reached their end. Linux."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armlet.redistribution.errors import ArgumentError, ArmletError

DETAIL = 2000  # characters kept of what the program wrote to stderr
GRACE = 20.0  # seconds beyond the program's own in which the launcher must have answered
MEMORY_BYTES = 1 << 30
# The folder is appended: no file in it may stand in for one of the standard library.
LAUNCH = "import sys; sys.path.append(sys.argv[1]); from confinement.launcher import main; main()"


@dataclass(frozen=True)
class Outcome:
    """What came of a program.

    Attributes:
        passed: it reached its end.
        reason: "passed", "failed", "ended early" (it left with success before its end), "timed out", "out of memory".
        isolated: the user's files and processes and the network were shut off.
        guards: which guards were active, in the order in which they were put up.
        detail: the end of what it wrote to stderr, at most 2,000 characters.
    """

    passed: bool
    reason: str
    isolated: bool
    guards: tuple[str, ...]
    detail: str


def run_program(source: str, *, seconds: float = 10.0, memory_bytes: int = MEMORY_BYTES) -> Outcome:
    """Run a program in an interpreter of its own, with the standard library alone and nothing of this machine in reach.

    It sees an empty folder that is gone afterwards, no file of the user, no network, no environment, an empty standard
    input; it can start no process or thread and signal none. It passes if its last line was run: `sys.exit(0)` or
    `os._exit(0)` before that is no pass. A program that searches its own interpreter's memory or frames for the mark
    that its end leaves can still forge a pass, and one that makes its answers equal to everything always could.

    Guards are tried one by one, since systems refuse different ones; `Outcome.guards` says which were active. What
    stays open: the kernel itself, time and memory up to the limits, and what other users' programs may do by timing.

    Args:
        source: Python.
        seconds: of wall-clock time; processor time has a limit just above it.
        memory_bytes: of address space.

    Raises:
        ArmletError: the system can shut off the files or the network neither way, or gives no process.
        ArgumentError: no time or no memory.
    """
    if not (seconds > 0 and memory_bytes > 0):
        raise ArgumentError(f"seconds {seconds} and memory_bytes {memory_bytes} must be above 0")
    return _run(source, seconds=seconds, memory_bytes=memory_bytes, unconfined=False)


def _run(source: str, *, without: tuple[str, ...] = (), **settings: Any) -> Outcome:
    """`run_program`; for tests, `without` some guards, or `unconfined` where files or network stay open."""
    if sys.platform != "linux":
        raise ArmletError(
            f"model-written code can be shut in on Linux alone, this is {sys.platform}: run it in a container"
        )
    token = secrets.token_hex(16)
    folder = tempfile.mkdtemp(prefix="armlet-")
    python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    config = settings | {"source": source, "token": token, "folder": folder, "python": python}
    try:
        found, detail = _launch(python, config | {"visible": _visible(python), "without": without})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if "missing" not in found:
        raise ArmletError(f"no program could be started: {detail.strip() or 'the launcher gave no answer'}")
    if found["missing"] is not None and not settings["unconfined"]:
        raise ArmletError(
            f"this system cannot shut model-written code off from {found['missing']}: "
            "run it where user namespaces or Landlock are allowed"
        )
    reason = _reason(found, token)
    return Outcome(reason == "passed", reason, found["missing"] is None, tuple(found["guards"]), detail)


def _visible(python: str) -> list[str]:
    """What the interpreter needs to see: itself, its libraries, its standard library."""
    libraries = [f"{sys.base_prefix}/{name}" for name in ("lib", "lib64")]
    return [python, *libraries, str(Path(os.__file__).parent)]


def _launch(python: str, config: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The launcher's answer, empty where it gave none, and the end of the program's stderr."""
    process = subprocess.Popen(
        [python, "-I", "-S", "-B", "-c", LAUNCH, str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
        start_new_session=True,
    )
    backstop = threading.Timer(config["seconds"] + GRACE, process.kill)  # and with it, by the kernel, the program
    backstop.start()
    try:
        return _talk(process, json.dumps(config).encode())
    finally:
        backstop.cancel()
        process.kill()
        process.wait()


def _talk(process: "subprocess.Popen[bytes]", config: bytes) -> tuple[dict[str, Any], str]:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdin, process.stdout, process.stderr:
        try:
            process.stdin.write(config)
            process.stdin.close()
        except BrokenPipeError:
            pass  # why it ended stands in its stderr
        detail = _tail(process.stderr.fileno())
        return json.loads(process.stdout.read() or b"{}"), detail


def _tail(handle: int) -> str:
    """The end of a stream that may never stop."""
    kept = b""
    while chunk := os.read(handle, 1 << 16):
        kept = (kept + chunk)[-4 * DETAIL :]
    return kept.decode("utf-8", "replace")[-DETAIL:]


def _reason(found: dict[str, Any], token: str) -> str:
    """Why the program ended."""
    if found["late"] or found["status"] in (-24, 128 + 24):  # SIGXCPU
        return "timed out"
    if found["said"] == "memory":
        return "out of memory"
    if found["status"] == 0:
        return "passed" if found["said"] == token else "ended early"
    return "failed"
