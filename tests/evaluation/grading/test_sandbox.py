"""A program is isolated: what it tries to reach, write, start, stop or forge stays out of its reach.

Where this system cannot isolate, `run_program` must refuse, and these tests are skipped with its reason.
"""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from armlet.evaluation.grading import sandbox
from armlet.evaluation.grading.sandbox import STDERR_CHARACTERS, run_program
from armlet.redistribution.errors import ArgumentError, ArmletError
from sandboxed import run

TRY = """
import os
def refused(action, *values, **named):
    try:
        action(*values, **named)
    except (OSError, RuntimeError):
        return True
"""


def attack(source, **how):
    """Run a program that passes where all its attacks fail."""
    return run(TRY + source, **how)


@pytest.fixture
def secret():
    """A file that any user may read and write, in a folder in which any user may write, and the same at home."""
    files = []
    for parent in (tempfile.gettempdir(), Path.home()):
        folder = Path(tempfile.mkdtemp(dir=parent, prefix="secret-"))
        folder.chmod(0o777)
        (folder / "file").write_text("secret")
        (folder / "file").chmod(0o666)
        files.append(folder / "file")
    yield files
    for file in files:
        file.unlink(missing_ok=True)
        file.parent.rmdir()


def named(name):
    """The processes of this machine with that name."""
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "comm").read_text().strip() == name:
                processes.append(int(folder.name))
        except OSError:
            continue
    return processes


def call_itself(name):
    return f"import ctypes; ctypes.CDLL(None).prctl(15, {name!r}.encode(), 0, 0, 0)\n"


# What a pass is


@pytest.mark.parametrize("source", ["", "print(1)", "assert __name__ == '__main__'", "import json, decimal, asyncio"])
def test_a_program_that_reaches_its_end_passes(source):
    outcome = run(source)
    assert (outcome.passed, outcome.reason) == (True, "passed")


@pytest.mark.parametrize("source", ["1/0", "assert False", "def", "import sys; sys.exit(3)", "import os; os.abort()"])
def test_a_program_that_fails_does_not(source):
    outcome = run(source)
    assert (outcome.passed, outcome.reason) == (False, "failed")


def test_its_last_words_are_kept():
    assert run("raise ValueError('what was wrong')").detail.endswith("ValueError: what was wrong\n")


@pytest.mark.parametrize(
    "source",
    [
        "import sys; sys.exit(0)",
        "raise SystemExit",
        "import os; os._exit(0)",
        "import os, sys; os.execv(sys.executable, [sys.executable, '-I', '-S', '-c', 'pass'])",
        "import os; os.write(3, b'passed'); os._exit(0)",
        "import os; os.write(3, b'0' * 32); os._exit(0)",
        "import os, sys; os.write(3, sys.stdin.buffer.read()); os._exit(0)",
        "import os; os.close(3); os._exit(0)",
    ],
)
def test_leaving_early_with_success_is_no_pass(source):
    outcome = run(source + "\nassert False")
    assert (outcome.passed, outcome.reason) == (False, "ended early")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["while True: pass", "import time\nwhile True: time.sleep(0.1)"])
def test_an_endless_program_is_ended(source):
    outcome = run(source, seconds=0.5)
    assert (outcome.passed, outcome.reason) == (False, "timed out")


@pytest.mark.slow
def test_a_program_that_ignores_signals_is_ended():
    source = (
        "import signal\nfor n in range(1, 32):\n    try: signal.signal(n, signal.SIG_IGN)\n    except OSError: pass\n"
    )
    assert run(source + "while True: pass", seconds=0.5).reason == "timed out"


@pytest.mark.slow
@pytest.mark.parametrize("source", ["bytearray(10 << 30)", "[0] * (10 << 27)", "a = []\nwhile True: a += [0] * 10**6"])
def test_ten_gigabytes_are_refused(source):
    outcome = run(source, seconds=60)  # filling the first gigabyte may take a busy machine more than the usual ten
    assert (outcome.passed, outcome.reason) == (False, "out of memory")


@pytest.mark.parametrize(
    "call", ["os.memfd_create('x')", "ctypes.CDLL(None, use_errno=True).shmget(0, 1 << 20, 0o1600)"]
)
def test_memory_outside_the_limit_is_refused(call):
    source = f"import ctypes, os\ntry:\n    assert {call} == -1\nexcept OSError:\n    pass"
    assert run(source).passed


def test_endless_output_is_cut_to_its_end():
    source = "import sys\nfor _ in range(300): sys.stdout.write('o' * 10**6); sys.stderr.write('é' * 10**5)\n"
    outcome = run(source + "sys.stderr.write('the end')")
    assert outcome.passed
    assert len(outcome.detail) == STDERR_CHARACTERS
    assert outcome.detail.endswith("éthe end")


@pytest.mark.parametrize("seconds", [0, float("nan")])
def test_no_time_is_refused(seconds):
    with pytest.raises(ArgumentError, match="more than 0"):
        run_program("", seconds=seconds)


# What it cannot reach


def test_files_of_the_user_cannot_be_read(secret):
    files = [str(file) for file in secret] + ["/etc/shadow", "/etc/passwd", __file__]
    outcome = attack(f"""
for name in {files}:
    assert refused(open, name), name
    assert refused(os.listdir, os.path.dirname(name)) or os.path.basename(name) not in os.listdir(os.path.dirname(name))
    os.path.lexists('link') and os.remove('link')
    refused(os.link, name, 'hard')
    assert refused(open, 'hard')
    refused(os.symlink, name, 'link')
    assert refused(open, 'link')
assert refused(os.listdir, '/') or not set(os.listdir('/')) & {{'home', 'work', 'var', 'proc', 'sys'}}
""")
    assert outcome.passed, outcome.detail


def test_nothing_can_be_written_outside_its_folder(secret):
    folders = [str(file.parent) for file in secret] + ["/", "/usr/lib", str(Path(os.__file__).parent), "/dev/shm", ".."]
    outcome = attack(f"""
for folder in {folders}:
    assert refused(open, folder + '/armlet-leak', 'w'), folder
    assert refused(os.mkdir, folder + '/armlet-leak'), folder
    assert refused(os.symlink, '/', folder + '/armlet-leak'), folder
refused(os.symlink, {folders[0]!r}, 'out')
assert refused(open, 'out/armlet-leak', 'w')
""")
    assert outcome.passed, outcome.detail
    assert [folder for folder in folders[:-1] if Path(folder, "armlet-leak").is_symlink()] == []
    assert [folder for folder in folders[:-1] if Path(folder, "armlet-leak").exists()] == []


def test_nothing_of_the_user_can_be_deleted_or_changed(secret):
    before = [file.stat() for file in secret]
    outcome = attack(f"""
import shutil, sys
for name in {[str(file) for file in secret]} + [sys.executable, os.__file__]:
    for action in (os.remove, lambda n: os.rmdir(os.path.dirname(n)), lambda n: os.truncate(n, 0),
                   lambda n: os.rename(n, 'mine'), lambda n: os.chmod(n, 0), lambda n: os.utime(n, (0, 0)),
                   lambda n: os.chown(n, 1, 1), lambda n: open(n, 'r+')):
        assert refused(action, name), name
    shutil.rmtree(os.path.dirname(name), ignore_errors=True)
""")
    assert outcome.passed, outcome.detail
    assert [file.read_text() for file in secret] == ["secret", "secret"]
    for old, new in zip(before, (file.stat() for file in secret), strict=True):
        assert (old.st_mode, old.st_mtime_ns, old.st_uid) == (new.st_mode, new.st_mtime_ns, new.st_uid)
        assert stat.S_IMODE(new.st_mode) == 0o666


def test_the_environment_is_not_handed_over(monkeypatch):
    monkeypatch.setenv("ARMLET_SECRET", "environment-secret")
    outcome = attack("""
import sys
assert set(os.environ) <= {'LC_CTYPE', 'OPENBLAS_NUM_THREADS'}, os.environ
for number in os.listdir('/proc') if os.path.isdir('/proc') and not refused(os.listdir, '/proc') else []:
    assert refused(open, f'/proc/{number}/environ')
assert sys.stdin.read() == ''
assert not [name for name in sys.path if 'site-packages' in name]
""")
    assert outcome.passed, outcome.detail


def test_no_handle_is_inherited_but_four():
    outcome = attack("assert [n for n in range(64) if not refused(os.fstat, n)] == [0, 1, 2, 3]")
    assert outcome.passed, outcome.detail


def test_no_connection_arrives():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("127.0.0.1", 0))
        port, other = server.getsockname()[1], datagrams.getsockname()[1]
        outcome = attack(f"""
import socket
assert refused(socket.create_connection, ('127.0.0.1', {port}), 1)
assert refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {other})))
assert refused(socket.create_connection, ('8.8.8.8', 53), 1)
""")
        assert outcome.passed, outcome.detail
        for listener, take in ((server, server.accept), (datagrams, lambda: datagrams.recv(1))):
            listener.settimeout(0.05)
            with pytest.raises(TimeoutError):
                take()
        with socket.create_connection(("127.0.0.1", port)):  # one that may arrive does
            server.accept()[0].close()


def test_no_signal_reaches_this_process():
    received = []
    before = signal.signal(signal.SIGUSR1, lambda *_: received.append(1))
    try:
        outcome = attack(f"""
for number in ({os.getpid()}, {os.getppid()}, os.getppid(), -1, 0):
    refused(os.kill, number, 10) if number != 0 or os.getpid() != 1 else None
""")
        assert outcome.reason in ("passed", "failed"), outcome.detail
        time.sleep(0.05)
        assert received == []
        os.kill(os.getpid(), signal.SIGUSR1)
        assert received == [1]
    finally:
        signal.signal(signal.SIGUSR1, before)


# What it cannot start

STARTS = {
    "fork": "os.fork() == 0 and (os.write(2, b'+'), os._exit(0))",
    "daemon": "os.fork() == 0 and (os.setsid(), os.fork(), os.write(2, b'+'), time.sleep(60))",
    "posix_spawn": "os.posix_spawn(sys.executable, [sys.executable, '-I', '-S', '-c', \"print(end='+')\"], {})",
    "Popen": "subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import os; os.write(2, b\"+\")'])",
}


@pytest.mark.parametrize("start", STARTS.values(), ids=list(STARTS))
def test_a_program_that_keeps_starting_processes_starts_none(start):
    name = f"a{os.getpid()}{time.monotonic_ns() % 10**6}"
    outcome = attack(f"""
import subprocess, sys, time
{call_itself(name)}
for _ in range(2000):
    try:
        {start}
    except (OSError, RuntimeError):
        pass
os.write(2, b'done')
""")
    assert outcome.detail == "done"
    assert outcome.passed
    assert named(name) == []


def test_threads_run_and_end_with_the_program():
    start = time.monotonic()
    outcome = run("""
import threading, time
joined = []
threads = [threading.Thread(target=joined.append, args=(index,)) for index in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert sorted(joined) == [*range(8)]
threading.Thread(target=time.sleep, args=(60,)).start()
""")
    assert outcome.passed, outcome.detail
    assert time.monotonic() - start < 30


def test_a_thread_that_ends_the_process_does_not_pass():
    ends = "import os, threading, time\nthreading.Thread(target=os._exit, args=(0,)).start()\ntime.sleep(9)\n"
    assert run(ends).reason == "ended early"


def test_numpy_can_be_imported_and_not_changed():
    outcome = run("""
import numpy, pathlib
assert numpy.linalg.solve(numpy.eye(2), numpy.ones(2)).tolist() == [1, 1]
for path in (pathlib.Path(numpy.__file__), pathlib.Path(numpy.__file__).parent / "new.py"):
    try:
        path.write_text("")
    except OSError:
        continue
    raise AssertionError(path)
""")
    assert outcome.passed, outcome.detail


@pytest.mark.slow
def test_without_an_end_it_starts_none_either():
    outcome = run(
        "import os\nwhile True:\n    try: os.fork() or os.write(2, b'+')\n    except OSError: pass", seconds=0.5
    )
    assert (outcome.reason, outcome.detail) == ("timed out", "")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["", "while True: pass"], ids=["ends", "is ended"])
def test_of_processes_that_were_started_none_survives(monkeypatch, end):
    """Where a program may start processes after all, they end with it."""
    monkeypatch.setattr(sandbox, "REFUSED_CALLS", ())
    monkeypatch.delitem(sandbox.LIMITS, "RLIMIT_NPROC")
    name = f"b{os.getpid()}{time.monotonic_ns() % 10**6}"
    source = f"""
import os, sys, time
{call_itself(name)}
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(2, b'+')
            os.close(2)
            time.sleep(60)
        os._exit(0)
time.sleep(0.3)
{end}
"""
    seen, ended = [], threading.Event()

    def watch():
        while not ended.wait(0.01):
            seen.extend(named(name))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        outcome = run(source, seconds=1.5)
        assert named(name) == []
    finally:
        ended.set()
        watching.join()
    assert seen  # they were there to be seen
    assert outcome.detail == "+" * 20


def test_its_folder_is_empty_and_gone_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = "import os\nassert os.listdir('.') == []\nfor n in range(50): open(str(n), 'w').write('x' * 1000)"
    assert run(source).passed
    assert list(tmp_path.iterdir()) == []


def test_its_files_are_bounded():
    outcome = run("with open('large', 'wb') as file:\n    for _ in range(100): file.write(bytes(1 << 20))")
    assert outcome.reason == "failed"
    assert "OSError" in outcome.detail


@pytest.mark.slow
def test_ctrl_c_ends_the_program_too():
    name = f"c{os.getpid()}{time.monotonic_ns() % 10**6}"
    run("")
    seen = []

    def interrupt():
        wait_until(lambda: named(name))
        seen.extend(named(name))
        os.kill(os.getpid(), signal.SIGINT)

    watch = threading.Thread(target=interrupt)
    watch.start()
    with pytest.raises(KeyboardInterrupt):
        run(call_itself(name) + "while True: pass", seconds=20)
    watch.join()
    assert seen
    assert wait_until(lambda: not named(name))


@pytest.mark.slow
def test_a_program_ends_with_the_process_that_runs_it():
    name = f"d{os.getpid()}{time.monotonic_ns() % 10**6}"
    run("")
    source = call_itself(name) + "while True: pass"
    code = f"from armlet.evaluation.grading.sandbox import run_program; run_program({source!r}, seconds=60)"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        assert wait_until(lambda: named(name))
    finally:
        process.kill()
        process.wait()
    assert wait_until(lambda: not named(name))


def wait_until(condition, seconds=20.0):
    """Whether the condition comes to hold in that time."""
    end = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return bool(holds)


# What it may not ask of the kernel


CALLS = {"add_key": (248, 217), "keyctl": (250, 219), "unshare": (272, 97), "ptrace": (101, 117), "bpf": (321, 280)}


@pytest.mark.parametrize("numbers", CALLS.values(), ids=list(CALLS))
def test_calls_that_reach_keys_processes_or_namespaces_are_refused(numbers):
    outcome = attack(f"""
import ctypes
number = {numbers}[os.uname().machine == 'aarch64']
libc = ctypes.CDLL(None, use_errno=True)
assert libc.syscall(number, 0, 0, 0, 0, 0) == -1
assert ctypes.get_errno() == 1, ctypes.get_errno()
""")
    assert outcome.passed, outcome.detail


def test_no_socket_of_any_kind_is_given():
    kinds = "('AF_INET', 'AF_INET6', 'AF_UNIX', 'AF_VSOCK', 'AF_NETLINK', 'AF_ALG')"
    outcome = attack(f"import socket\nfor kind in {kinds}: assert refused(socket.socket, getattr(socket, kind)), kind")
    assert outcome.passed, outcome.detail


def test_it_is_nobody_and_has_no_capability():
    outcome = attack("""
import ctypes
assert (os.getuid(), os.getgid()) == (65534, 65534)
assert refused(os.setuid, 0) and refused(os.chroot, '.')
capabilities, header = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 2)(0x20080522, 0)
assert ctypes.CDLL(None).capget(header, capabilities) == 0
assert list(capabilities) == [0] * 6
""")
    assert outcome.passed, outcome.detail


# Where the system refuses


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap exists only for Linux")
def test_where_bubblewrap_is_missing_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ArmletError, match=r"apt install bubblewrap.*dnf install bubblewrap") as caught:
        run_program("")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_on_other_systems_one_line_says_that_they_have_none(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(ArmletError, match="only for Linux") as caught:
        run_program("")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap exists only for Linux")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'bwrap: No permissions to create new namespace' >&2; exit 1", "No permissions to create new namespace"),
        ("exit 0", "no reason reported"),
    ],
    ids=["no user namespaces", "silence"],
)
def test_where_bubblewrap_cannot_isolate_nothing_is_run_and_its_reason_is_given(monkeypatch, tmp_path, script, reason):
    (tmp_path / "bwrap").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(
        ArmletError, match=f"could not start the isolated program .*{reason}.*user namespaces"
    ) as caught:
        run_program("raise ValueError")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_program_that_ended_before_it_could_be_watched_has_its_verdict(monkeypatch):
    opened = os.pidfd_open

    def late(pid, *flags):
        time.sleep(0.5)
        return opened(pid, *flags)

    monkeypatch.setattr(os, "pidfd_open", late)
    assert run_program("").passed
    assert not run_program("raise ValueError").passed


def test_a_program_that_could_not_be_started_has_no_verdict(monkeypatch):
    run("")
    monkeypatch.setitem(sandbox.LIMITS, "RLIMIT_UNKNOWN", 1)
    with pytest.raises(ArmletError, match=r"could not start the isolated program \(.*RLIMIT_UNKNOWN"):
        run_program("")
