"""Guards, namespaces, and a root of its own."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import kernel
from .kernel import BIND, NODEV, NOSUID, PRIVATE, RDONLY, REC, REMOUNT, call, mount

NEW_USER = 0x10000000
NAMESPACES = {"mount": 0x20000, "network": 0x40000000, "pid": 0x20000000, "ipc": 0x8000000, "uts": 0x4000000}
NOBODY = 65534
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
FOLDER = "/folder"
FOLDER_BYTES = 16 << 20
DETACH = 2


class Guards:
    """Which guards came to be active, and which must not be tried (for tests of the others)."""

    def __init__(self, without: Sequence[str]):
        self.active: list[str] = []
        self._without = without

    @contextlib.contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Note the guard unless the system refuses it. The caller asks `wanted` first."""
        with contextlib.suppress(OSError, AttributeError, ValueError):  # refused, or unknown to this C library
            yield
            self.active.append(name)

    def wanted(self, name: str) -> bool:
        """Whether to try it."""
        return name not in self._without

    def has(self, *names: str) -> bool:
        """Whether one of these is active."""
        return any(name in self.active for name in names)


def spare_user() -> int:
    """A user whom no file and no other process belongs to; nobody where this system has no such number."""
    user = (1 << 30) + secrets.randbelow(1 << 29)
    ranges = [[int(number) for number in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return user if any(first <= user < first + count for first, _, count in ranges) else NOBODY


def become(user: int) -> None:
    """Another user, for good."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    kernel.prctl(kernel.SET_DUMPABLE, 1)  # or /proc/self still belongs to root


def enter(guards: Guards, user: int) -> int:
    """Namespaces of its own; who may not ask for them needs a user namespace first.

    Returns:
        The user that the program is to be: `user`, or who stands for it in the user namespace.
    """
    if not may_ask():
        if os.getuid() == 0:
            with guards.attempt("own user"):
                become(user)
        if guards.wanted("user namespace"):
            with guards.attempt("user namespace"):
                enter_user()
                user = NOBODY
    for name, flag in NAMESPACES.items():
        if guards.wanted(f"{name} namespace"):
            with guards.attempt(f"{name} namespace"):
                call("unshare", flag)
    return user


def may_ask() -> bool:
    """Whether the system gives namespaces without a user namespace: to root, outside of most containers."""
    with contextlib.suppress(OSError):
        call("unshare", NAMESPACES["uts"])
        return True
    return False


def enter_user() -> None:
    """A user namespace, in which this user stands as nobody and may ask for the other namespaces."""
    user, group = os.getuid(), os.getgid()
    call("unshare", NEW_USER)
    for name, text in {"setgroups": "deny", "uid_map": f"{NOBODY} {user} 1", "gid_map": f"{NOBODY} {group} 1"}.items():
        Path("/proc/self", name).write_text(text)


def change_root(folder: str, visible: Sequence[str], user: int) -> None:
    """A root that holds the interpreter, the system's libraries, three devices, and an empty folder to work in."""
    mount("none", "/", flags=REC | PRIVATE)
    mount("tmpfs", folder, "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    for path in (*visible, *LIBRARIES, *DEVICES):
        show(path, folder)
    os.mkdir(folder + FOLDER)
    mount("tmpfs", folder + FOLDER, "tmpfs", NOSUID | NODEV, f"size={FOLDER_BYTES},nr_inodes=1000,mode=700")
    os.chown(folder + FOLDER, user, user)
    with contextlib.suppress(FileExistsError):  # the interpreter lies there
        os.symlink(FOLDER, f"{folder}/tmp")
    mount("none", folder, flags=REMOUNT | BIND | RDONLY | NOSUID | NODEV)
    os.chdir(folder)
    call("pivot_root", b".", b".")
    call("umount2", b".", DETACH)
    os.chdir(FOLDER)


def show(path: str, root: str) -> None:
    """Show a path of the system in the new root, at the same place, to read."""
    if not os.path.exists(path) or os.path.exists(target := root + path):
        return
    os.makedirs(target if os.path.isdir(path) else os.path.dirname(target), exist_ok=True)
    if not os.path.isdir(path):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    mount(os.path.realpath(path), target, flags=BIND | REC)
    if path not in DEVICES:
        kept = os.statvfs(target).f_flag & (RDONLY | NOSUID | NODEV | 8)  # a user namespace may not lift what holds
        mount("none", target, flags=BIND | REMOUNT | RDONLY | NOSUID | NODEV | kept)


def reachable(path: str) -> bool:
    """Whether any user may go to where the path leads; an interpreter in root's home is for root alone."""
    try:
        return all(os.stat(folder).st_mode & 1 for folder in (path, *map(str, Path(path).parents)))
    except OSError as error:
        if error.errno == errno.EACCES:
            return False
        raise
