"""The launcher: shuts the program in, waits for it, ends all of it, and says what came of it.

Every guard is tried and noted, since distributions and containers refuse different ones. Where neither files nor
network can be shut off, nothing is run.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import time
from typing import Any, NoReturn

from . import kernel
from .namespaces import (
    DEVICES,
    FOLDER,
    FOLDER_BYTES,
    LIBRARIES,
    Guards,
    become,
    change_root,
    enter,
    reachable,
    spare_user,
)

Config = dict[str, Any]  # python, visible, folder, source, token, seconds, memory_bytes, unconfined, without

VERDICT = 3  # where the program's end shows the token
# Reads the program, forgets where it came from, runs it as `__main__`, and shows the token once its end is reached.
RUNNER = """
def run():
    import os, sys, types
    token, _, source = sys.stdin.buffer.read().partition(b"\\n")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    write, leave, memory = os.write, os._exit, MemoryError
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        exec(compile(source, "program.py", "exec", dont_inherit=True), module.__dict__)
    except memory:
        write(3, b"memory")
        raise
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    write(3, token)
    leave(0)
run()
"""


def confine(guards: Guards, config: Config, user: int) -> None:
    """Give up every privilege, then all that the namespaces leave."""
    if os.getuid() == 0:
        kernel.drop_capabilities()
        if guards.wanted("own user") and (guards.has("own root") or reachable(config["python"])):
            with guards.attempt("own user"):
                become(user)
    kernel.prctl(kernel.SET_PDEATHSIG, signal.SIGKILL)
    with guards.attempt("no new privileges"):
        kernel.prctl(kernel.SET_NO_NEW_PRIVS, 1)
    if guards.wanted("Landlock"):
        with guards.attempt("Landlock"):
            kernel.restrict_files((*config["visible"], *LIBRARIES), DEVICES, config["folder"])
    set_limits(guards, config)
    if guards.wanted("seccomp"):
        with guards.attempt("seccomp"):
            kernel.refuse_calls()


def set_limits(guards: Guards, config: Config) -> None:
    """The limits of one process, and that there be no second one."""
    limits = {
        "CPU time": (resource.RLIMIT_CPU, int(config["seconds"]) + 2),
        "memory": (resource.RLIMIT_AS, config["memory_bytes"]),
        "file size": (resource.RLIMIT_FSIZE, FOLDER_BYTES),
        "open files": (resource.RLIMIT_NOFILE, 64),
        "core": (resource.RLIMIT_CORE, 0),
    }
    if os.getuid() != 0:  # root is exempt
        limits["process"] = (resource.RLIMIT_NPROC, 1)
    for name, (which, most) in limits.items():
        if guards.wanted(f"{name} limit"):
            with guards.attempt(f"{name} limit"):
                kernel.limit(which, most)


def open_to_it(guards: Guards) -> str | None:
    """What could not be shut off, None where the program may run."""
    missing = []
    if not guards.has("own root", "Landlock"):
        missing.append("the user's files (no mount namespace, no Landlock)")
    if not guards.has("network namespace", "seccomp"):
        missing.append("the network (no network namespace, no seccomp)")
    if not guards.has("pid namespace", "own user", "seccomp"):
        missing.append("the user's processes (no pid namespace, no user of its own, no seccomp)")
    if not guards.has("process limit", "seccomp"):
        missing.append("starting processes without end (root, no seccomp)")
    return " and ".join(missing) or None


def become_program(guards: Guards, config: Config, user: int, report: int, verdict: int) -> NoReturn:
    """Confine this process, tell the launcher what came of it, and turn into the program."""
    try:
        source = os.memfd_create("program")
        with os.fdopen(os.dup(source), "wb") as file:
            file.write(f"{config['token']}\n".encode() + config["source"].encode("utf-8", "replace"))
        os.lseek(source, 0, os.SEEK_SET)
        confine(guards, config, user)
        missing = open_to_it(guards)
        os.write(report, json.dumps({"guards": guards.active, "missing": missing}).encode())
        if missing is None or config["unconfined"]:
            start(config["python"], source, verdict)
    except BaseException as error:  # nothing may return into what the launcher does next
        os.write(2, f"the program could not be started: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(1)


def start(python: str, source: int, verdict: int) -> None:
    """Turn into a fresh interpreter with the program as input; all other handles close by themselves."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for handle, number in ((source, 0), (nowhere, 1), (verdict, VERDICT)):
        os.dup2(handle, number)
    os.execve(python, [python, "-I", "-S", "-B", "-X", "utf8", "-c", RUNNER], {})


def wait(child: int, seconds: float) -> tuple[int, bool]:
    """Wait for the program, and end it when its time is up: its status, whether it was ended for that."""
    deadline, late = time.monotonic() + seconds, False
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status, late
        if not late and time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)  # the first process of a pid namespace takes all others with it
            late = True
        time.sleep(0.002)


def end_orphans(children: int) -> None:
    """End what the program left behind where there is no pid namespace: it has become the launcher's.

    Args:
        children: the kernel's list of the launcher's children, opened before /proc was out of sight.
    """
    with contextlib.suppress(ChildProcessError):
        while True:
            for child in os.pread(children, 1 << 16, 0).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.002)


def prepare(guards: Guards, config: Config) -> int:
    """Namespaces, root and folder, as far as they are to be had: the user that the program is to be."""
    user = spare_user()
    if os.getuid() == 0 and reachable(config["python"]):  # else the program stays root unless it gets its own root
        os.chown(config["folder"], user, user)
    os.chdir(config["folder"])
    user = enter(guards, user)
    if guards.has("mount namespace") and guards.wanted("own root"):
        with guards.attempt("own root"):
            change_root(config["folder"], config["visible"], user)
            config["folder"] = FOLDER
    return user


def run(guards: Guards, config: Config, user: int, children: int) -> dict[str, Any]:
    """Run the program to its end or to the end of its time: what came of it."""
    (report, told), (verdict, shown) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        become_program(guards, config, user, told, shown)
    os.close(told)
    os.close(shown)
    with os.fdopen(report, "rb") as file:  # until the program starts, or does not
        outcome = json.loads(file.read() or b"{}")
    status, late = wait(child, config["seconds"])
    end_orphans(children)
    with os.fdopen(verdict, "rb") as file:
        said = file.read(100).decode("ascii", "replace")
    return outcome | {"status": os.waitstatus_to_exitcode(status), "late": late, "said": said}


def main() -> None:
    """Read the configuration from standard input, and write what came of the program to standard output."""
    config = json.load(sys.stdin)
    guards = Guards(config["without"])
    kernel.prctl(kernel.SET_PDEATHSIG, signal.SIGKILL)
    kernel.prctl(kernel.SET_SUBREAPER, 1)
    children = os.open("/proc/thread-self/children", os.O_RDONLY)
    user = prepare(guards, config)
    kernel.prctl(kernel.SET_DUMPABLE, 0)  # its memory and handles, with the token, are no one else's
    json.dump(run(guards, config, user, children), sys.stdout)
    sys.stdout.flush()
    os._exit(0)
