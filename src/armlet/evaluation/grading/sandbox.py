"""Runs programs that a model wrote in a sandbox, by bubblewrap, and says whether they reached their end. Linux."""

import errno
import functools
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import IO

from armlet.evaluation.grading.program_runner import OUT_OF_MEMORY, STARTED
from armlet.redistribution.errors import ArgumentError, ArmletError

STDERR_CHARACTERS = 2000  # kept of what the program wrote to stderr
START_SECONDS = 60.0  # for bubblewrap and the interpreter, which take a twentieth of a second
FOLDER, FOLDER_BYTES = "/folder", 16 << 20  # where the program runs, and how much it may write there
SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
RUNNER = Path(__file__).with_name("program_runner.py")

# Of the program's process. Root's processes are exempt from RLIMIT_NPROC.
LIMITS = {"RLIMIT_FSIZE": FOLDER_BYTES, "RLIMIT_NOFILE": 64, "RLIMIT_NPROC": 1, "RLIMIT_CORE": 0, "RLIMIT_AS": 1 << 30}

REFUSED_CALLS = (
    *("clone", "clone3", "fork", "vfork", "unshare"),  # processes, threads and namespaces of its own
    "socket",  # some kinds (vsock) belong to no network namespace
    *("memfd_create", "shmget", "msgget", "semget", "mq_open"),  # memory that RLIMIT_AS does not count
    *("add_key", "request_key", "keyctl"),  # the user's keys
    *("bpf", "io_uring_setup", "perf_event_open", "ptrace", "userfaultfd"),  # rarely used, often attacked
)
"""System calls that fail with EPERM: what namespaces leave open. libseccomp knows their numbers."""

INSTALL = "apt install bubblewrap libseccomp2 (Debian, Ubuntu) or dnf install bubblewrap libseccomp (Fedora)"


@dataclass(frozen=True)
class ProgramOutcome:
    """How a program ended."""

    passed: bool  # it reached its end
    reason: str  # passed, failed, ended early (it left with success before its end), timed out, out of memory
    detail: str  # the end of what it wrote to stderr, at most `STDERR_CHARACTERS`


def run_program(source: str, *, seconds: float = 10.0) -> ProgramOutcome:
    """Run a Python program in an interpreter of its own, in a sandbox with the standard library and nothing else.

    It sees an empty folder of 16 MB that is gone afterwards, no file of the user, no network, no environment and an
    empty standard input. It has a gigabyte of memory, and `seconds` of wall-clock time from when the interpreter is
    ready. It can start no process or thread, and it sees no other process. It passes if its last line was run:
    `sys.exit(0)` or `os._exit(0)` before that is no pass. A program that searches its own interpreter's memory or
    frames for the token that its end shows can still forge a pass, and one that makes its answers equal to everything
    always could. The kernel itself remains open to attack.

    Raises:
        ArmletError: bubblewrap is missing or cannot isolate here, or the program could not be started.
        ArgumentError: no time.
    """
    if not seconds > 0:
        raise ArgumentError(f"seconds {seconds} must be above 0")
    _require_bubblewrap()
    token = secrets.token_hex(16)
    late, status, verdict, detail = _run_isolated(source, token, seconds)
    if late:
        reason = "timed out"
    elif verdict == OUT_OF_MEMORY:
        reason = "out of memory"
    elif status:
        reason = "failed"
    else:
        reason = "passed" if verdict == token.encode() else "ended early"
    return ProgramOutcome(reason == "passed", reason, detail)


@functools.cache
def require_sandbox() -> None:
    """Checks, once, that programs can be isolated; an ArmletError says what is missing and how to get it."""
    run_program("", seconds=START_SECONDS)


def _require_bubblewrap() -> None:
    if sys.platform != "linux":
        raise ArmletError(
            "model-written code is isolated by bubblewrap, which exists for Linux alone (macOS and Windows have no "
            "equivalent): run this in a Linux container or virtual machine"
        )
    if shutil.which("bwrap") is None:
        raise ArmletError(f"model-written code is isolated by bubblewrap, which is not installed: {INSTALL}")


def _run_isolated(source: str, token: str, seconds: float) -> tuple[bool, int, bytes, str]:
    """Whether a program was too late, its exit status, its verdict and the end of its stderr."""
    config = json.dumps({"token": token, "limits": LIMITS})
    with tempfile.TemporaryFile() as program, tempfile.TemporaryFile() as call_filter:
        program.write(f"{config}\n".encode() + source.encode("utf-8", "replace"))
        program.seek(0)
        _write_call_filter(call_filter)
        with _launched(program, call_filter) as (process, first):
            assert process.stdout is not None
            assert process.stderr is not None
            with _killed_after(START_SECONDS, first):
                started = process.stdout.read(len(STARTED)) == STARTED
            with _killed_after(seconds, first) as late:
                detail = _tail(process.stderr)
            status, verdict = process.wait(), os.read(process.stdout.fileno(), 100)
    if not started:
        raise ArmletError(
            "bubblewrap cannot isolate model-written code here (no program could be started: "
            f"{' '.join(detail.split()) or 'no reason was given'}): it needs version 0.7 or newer and user namespaces, "
            "which some containers and AppArmor forbid"
        )
    return late.is_set(), status, verdict, detail


@contextmanager
def _launched(program: IO[bytes], call_filter: IO[bytes]) -> Iterator[tuple[Popen[bytes], int]]:
    """The running sandbox, and a pidfd of its first process, whose end is the end of all processes in it.

    bubblewrap itself ends only after that process, so that nothing is left once bubblewrap has been waited for.
    """
    info, info_write = os.pipe()
    with open(info, "rb") as information:
        fds = (call_filter.fileno(), info_write)
        command = _command(*fds)
        process = Popen(  # in a session of its own: Ctrl-C is for this process
            command, stdin=program, stdout=PIPE, stderr=PIPE, bufsize=0, env={}, pass_fds=fds, start_new_session=True
        )
        os.close(info_write)
        with process:
            try:
                report = information.read()  # empty where bubblewrap failed
                first = os.pidfd_open(json.loads(report)["child-pid"] if report else process.pid)
                with open(first, "rb", buffering=0):  # closes it
                    yield process, first
            finally:
                process.kill()  # and with it, by --die-with-parent, what is in the sandbox


def _command(call_filter: int, info: int) -> list[str]:
    """bubblewrap with a sandbox that shows nothing but what the interpreter reads, and the interpreter in it."""
    # Not a virtual environment's interpreter, which would need the environment's files.
    python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    prefixes = [f"{sys.base_prefix}/{name}" for name in ("lib", "lib64")]
    visible = [python, *prefixes, str(Path(os.__file__).parent), *SYSTEM_LIBRARIES]
    return [
        shutil.which("bwrap") or "bwrap",
        *["--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL", "--clearenv"],
        *["--die-with-parent", "--new-session", "--as-pid-1"],
        *(word for path in visible for word in ("--ro-bind-try", path, path)),
        *(word for path in DEVICES for word in ("--dev-bind", path, path)),
        *("--perms", "0700", "--size", str(FOLDER_BYTES), "--tmpfs", FOLDER, "--chdir", FOLDER, "--remount-ro", "/"),
        *("--seccomp", str(call_filter), "--info-fd", str(info), "--"),
        *(python, "-I", "-S", "-B", "-X", "utf8", "-c", RUNNER.read_text(encoding="utf-8")),
    ]


def _write_call_filter(file: IO[bytes]) -> None:
    """The seccomp filter for `REFUSED_CALLS`; a program that calls by another machine's numbers is killed."""
    try:
        import pyseccomp
    except RuntimeError as error:  # the package is there, the library is not
        raise ArmletError(f"{error}: {INSTALL}") from error
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in REFUSED_CALLS:
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    rules.export_bpf(file)
    file.seek(0)


@contextmanager
def _killed_after(seconds: float, pidfd: int) -> Iterator[threading.Event]:
    """Kill the process if the block takes longer; the event says whether that happened."""
    late = threading.Event()

    def kill() -> None:
        with suppress(ProcessLookupError):  # it has just ended
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            late.set()

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        timer.join()


def _tail(stream: IO[bytes]) -> str:
    """The end of a stream that may be endless."""
    kept = b""
    while chunk := stream.read(1 << 16):
        kept = (kept + chunk)[-4 * STDERR_CHARACTERS :]
    return kept.decode("utf-8", "replace")[-STDERR_CHARACTERS:]
