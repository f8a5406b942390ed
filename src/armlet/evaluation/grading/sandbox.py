"""Runs model-written programs in a bubblewrap sandbox on Linux, and checks whether they reached their end."""

import errno
import functools
import importlib.util
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

STDERR_CHARACTERS = 2000  # at most this much of the end of stderr is stored
START_SECONDS = 60.0  # for bubblewrap and the interpreter, which usually take 0.05 s
FOLDER, FOLDER_BYTES = "/folder", 16 << 20  # where the program runs, and how many bytes it may write there
PACKAGES = "/packages"  # where the program finds `numpy`, which many solutions use
SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
RUNNER = Path(__file__).with_name("program_runner.py")

# Limits of the program's process. RLIMIT_NPROC counts threads; processes of root are exempt from it.
LIMITS = {"RLIMIT_FSIZE": FOLDER_BYTES, "RLIMIT_NOFILE": 64, "RLIMIT_NPROC": 64, "RLIMIT_CORE": 0, "RLIMIT_AS": 1 << 30}

REFUSED_CALLS = (
    *("clone", "clone3", "fork", "vfork", "unshare"),  # new processes and namespaces
    "socket",  # some kinds (vsock) do not belong to any network namespace
    *("memfd_create", "shmget", "msgget", "semget", "mq_open"),  # memory not counted by RLIMIT_AS
    *("add_key", "request_key", "keyctl"),  # the user's keys
    *("bpf", "io_uring_setup", "perf_event_open", "ptrace", "userfaultfd"),  # rarely used, often attacked
)
"""System calls that namespaces leave open, and that fail with EPERM. libseccomp translates the names to numbers.

`clone` fails unless it starts a thread of the same process. `clone3`, whose flags a filter cannot read, fails as if the
kernel did not have it, so that the C library uses `clone`.
"""

CLONE_THREAD = 0x10000  # from linux/sched.h; the kernel refuses it together with new namespaces of users or processes

INSTALL = "apt install bubblewrap libseccomp2 (Debian, Ubuntu) or dnf install bubblewrap libseccomp (Fedora)"


@dataclass(frozen=True)
class ProgramOutcome:
    """How a program ended."""

    passed: bool  # the program reached its end
    reason: str  # passed, failed, ended early (exited with success before its end), timed out, out of memory
    detail: str  # the end of its stderr, at most `STDERR_CHARACTERS`


def run_program(source: str, *, seconds: float = 10.0) -> ProgramOutcome:
    """Runs a Python program in an interpreter of its own, in a sandbox that contains only this and its libraries.

    The program sees an empty temporary folder of 16 MB, but no files of the user, no network, no environment, no other
    processes, and an empty standard input. It may import numpy and start threads, but no process. It has a gigabyte of
    memory, and `seconds` of wall-clock time after the interpreter is ready. It passes if its last line was run;
    `sys.exit(0)` or `os._exit(0)` before that does not pass. A program can still forge a pass: by searching its
    interpreter's memory or frames for the token that is written at the end, or with answers that are equal to
    everything. The kernel itself remains open to attack.

    Raises:
        ArmletError: bubblewrap is missing or cannot isolate programs, or the program could not be started.
        ArgumentError: `seconds` is not above 0.
    """
    if not seconds > 0:
        raise ArgumentError(f"seconds: expected more than 0, found {seconds}")
    _require_bubblewrap()
    token = secrets.token_hex(16)
    timed_out, status, verdict, detail = _run_isolated(source, token, seconds)
    if timed_out:
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
    """Checks once that programs can be isolated; if not, raises an ArmletError with advice on installation."""
    run_program("", seconds=START_SECONDS)


def _require_bubblewrap() -> None:
    if sys.platform != "linux":
        raise ArmletError(
            "model-written code is isolated by bubblewrap, which exists only for Linux (macOS and Windows have no "
            "equivalent): run this in a Linux container or virtual machine"
        )
    if shutil.which("bwrap") is None:
        raise ArmletError(f"model-written code is isolated by bubblewrap, which is not installed: {INSTALL}")


def _run_isolated(source: str, token: str, seconds: float) -> tuple[bool, int, bytes, str]:
    """Returns whether a program timed out, its exit status, its verdict and the end of its stderr."""
    config = json.dumps({"token": token, "limits": LIMITS, "packages": PACKAGES})
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
            "bubblewrap could not start the isolated program ("
            f"{' '.join(detail.split()) or 'no reason reported'}); if no program starts, it needs version 0.7 or "
            "newer and user namespaces, which some containers and AppArmor forbid"
        )
    return late.is_set(), status, verdict, detail


@contextmanager
def _launched(program: IO[bytes], call_filter: IO[bytes]) -> Iterator[tuple[Popen[bytes], int]]:
    """The running sandbox, and a pidfd of its first process, with which all processes in the sandbox end.

    bubblewrap itself ends only after that process, so that no process is left after bubblewrap has ended.
    """
    info, info_write = os.pipe()
    with open(info, "rb") as information:
        fds = (call_filter.fileno(), info_write)
        command = _command(*fds)
        process = Popen(  # in a new session: Ctrl-C is for this process
            command, stdin=program, stdout=PIPE, stderr=PIPE, bufsize=0, env={}, pass_fds=fds, start_new_session=True
        )
        os.close(info_write)
        with process:
            try:
                report = information.read()  # empty if bubblewrap failed
                first = _pidfd(json.loads(report)["child-pid"] if report else process.pid, process)
                with open(first, "rb", buffering=0):  # closes it
                    yield process, first
            finally:
                process.kill()  # because of --die-with-parent, all processes in the sandbox end too


def _pidfd(pid: int, bubblewrap: "Popen[bytes]") -> int:
    """A pidfd of the sandbox's first process, or of bubblewrap if that process has ended already."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:  # on a busy machine, a short program ends before this process runs again
        return os.pidfd_open(bubblewrap.pid)


def _command(call_filter: int, info: int) -> list[str]:
    """The command that starts bubblewrap, and in it an interpreter that sees only the files that it needs."""
    # Not a virtual environment's interpreter, which would need the environment's files.
    python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    prefixes = [f"{sys.base_prefix}/{name}" for name in ("lib", "lib64")]
    visible = [python, *prefixes, str(Path(os.__file__).parent), *SYSTEM_LIBRARIES]
    return [
        shutil.which("bwrap") or "bwrap",
        *["--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL", "--clearenv"],
        *["--die-with-parent", "--new-session", "--as-pid-1"],
        *(word for path in visible for word in ("--ro-bind-try", path, path)),
        *(word for path in _numpy_folders() for word in ("--ro-bind", str(path), f"{PACKAGES}/{path.name}")),
        *(word for path in DEVICES for word in ("--dev-bind", path, path)),
        *("--perms", "0700", "--size", str(FOLDER_BYTES), "--tmpfs", FOLDER, "--chdir", FOLDER, "--remount-ro", "/"),
        *("--seccomp", str(call_filter), "--info-fd", str(info), "--"),
        *(python, "-I", "-S", "-B", "-X", "utf8", "-c", RUNNER.read_text(encoding="utf-8")),
    ]


@functools.cache
def _numpy_folders() -> list[Path]:
    """The folders of numpy and of the libraries in its wheel."""
    spec = importlib.util.find_spec("numpy")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    return [path for path in (folder, folder.with_name("numpy.libs")) if path.is_dir()]


def _write_call_filter(file: IO[bytes]) -> None:
    """Writes the seccomp filter for `REFUSED_CALLS`; a program that uses another architecture's numbers is killed."""
    try:
        import pyseccomp
    except RuntimeError as error:  # the package is installed, but the library is not
        raise ArmletError(f"{error}: {INSTALL}") from error
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in REFUSED_CALLS:
        only_processes = [pyseccomp.Arg(0, pyseccomp.MASKED_EQ, CLONE_THREAD, 0)] if name == "clone" else []
        rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS if name == "clone3" else errno.EPERM), name, *only_processes)
    rules.export_bpf(file)
    file.seek(0)


@contextmanager
def _killed_after(seconds: float, pidfd: int) -> Iterator[threading.Event]:
    """Kills the process if the block takes longer; the event is set if that happened."""
    late = threading.Event()

    def kill() -> None:
        with suppress(ProcessLookupError):  # the process has just ended
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            late.set()

    timer = threading.Timer(seconds, kill)
    try:
        timer.start()  # inside try: after Ctrl-C here, a timer left running would use a closed pidfd
        yield late
    finally:
        timer.cancel()
        if timer.is_alive():
            timer.join()


def _tail(stream: IO[bytes]) -> str:
    """The end of a stream that may be endless."""
    tail = b""
    while chunk := stream.read(1 << 16):
        tail = (tail + chunk)[-4 * STDERR_CHARACTERS :]
    return tail.decode("utf-8", "replace")[-STDERR_CHARACTERS:]
