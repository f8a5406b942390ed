"""System calls that Python has no function for, by ctypes: prctl, mount, Landlock, seccomp, limits. Linux."""

import contextlib
import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Iterable

RDONLY, NOSUID, NODEV, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
SET_PDEATHSIG, SET_DUMPABLE, SET_SECCOMP, CAPBSET_DROP, SET_SUBREAPER, SET_NO_NEW_PRIVS = 1, 4, 22, 24, 36, 38
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
# How many kinds of access to files each version of Landlock knows.
ACCESSES = {1: 13, 2: 14, 3: 15, 4: 15}
NEWEST_ACCESSES = 16

# Per machine: its number for seccomp, and that of prlimit64, which is allowed on oneself.
MACHINES = {"x86_64": (0xC000003E, 302), "aarch64": (0xC00000B7, 261)}
# System calls that are refused, with their numbers there. They make sockets, processes or threads; signal or look into
# other processes; change namespaces or mounts; change length, mode, owner, times or attributes of a file by its name,
# which Landlock lets pass; hold memory that no limit counts; or reach seldom used parts of the kernel.
REFUSED: dict[str, tuple[int, int | None]] = {
    "socket": (41, 198),
    "clone": (56, 220),
    "clone3": (435, 435),
    "fork": (57, None),
    "vfork": (58, None),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "truncate": (76, 45),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "open_by_handle_at": (304, 265),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
}

LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *values: object) -> None:
    """A function of the C library; OSError where it fails."""
    if getattr(LIBC, name)(*values) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def syscall(number: int, *values: object) -> int:
    """A system call that the C library has no function for; OSError where it fails."""
    result = LIBC.syscall(ctypes.c_long(number), *values)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"system call {number}: {os.strerror(code)}")
    return result


def prctl(option: int, *values: int) -> None:
    """A setting of this process; the kernel wants the unused values to be 0."""
    call("prctl", option, *(ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]))


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """Attach a file system or a folder; the arguments are those of the system call."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    call("mount", *texts[:3], ctypes.c_ulong(flags), texts[3])


def drop_capabilities() -> None:
    """Not even root can have one again after the next program starts."""
    for capability in range(64):
        with contextlib.suppress(OSError):  # the kernel has fewer
            prctl(CAPBSET_DROP, capability)


def limit(name: int, most: int) -> None:
    """Lower a limit, soft and hard, for good."""
    hard = resource.getrlimit(name)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(name, (most, most))


def restrict_files(visible: Iterable[str], devices: Iterable[str], folder: str) -> None:
    """Landlock: nothing can be opened but what is visible, to read, devices, and what lies in the folder."""
    every = (1 << ACCESSES.get(syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1), NEWEST_ACCESSES)) - 1
    ruleset = syscall(CREATE_RULESET, struct.pack("Q", every), ctypes.c_size_t(8), 0)
    for path in visible:
        _allow(ruleset, path, EXECUTE | READ_FILE | READ_DIR)
    for path in devices:
        _allow(ruleset, path, READ_FILE | WRITE_FILE)
    _allow(ruleset, folder, every)
    syscall(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    if not os.path.exists(path):
        return
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    access &= -1 if os.path.isdir(path) else ~READ_DIR  # which the kernel refuses for a file
    syscall(ADD_RULE, ruleset, 1, struct.pack("=Qi", access, handle), 0)
    os.close(handle)


def refuse_calls() -> None:
    """seccomp: a filter that answers the refused system calls with EPERM, and ends programs of another machine."""
    if platform.machine() not in MACHINES:
        raise OSError(errno.ENOSYS, f"no list of system calls for {platform.machine()}")
    machine, own_limits = MACHINES[platform.machine()]
    column = list(MACHINES).index(platform.machine())
    refused = [number for numbers in REFUSED.values() if (number := numbers[column]) is not None]
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    end, deny, allow = 0x80000000, 0x00050000 | errno.EPERM, 0x7FFF0000
    code = [(load, 0, 0, 4), (equal, 1, 0, machine), (answer, 0, 0, end), (load, 0, 0, 0)]
    code += [(equal, 0, 4, own_limits), (load, 0, 0, 16), (equal, 0, 1, 0), (answer, 0, 0, allow), (answer, 0, 0, deny)]
    code += [(at_least, len(refused) + 1, 0, 0x40000000)]  # the other numbering of x86_64
    code += [(equal, len(refused) - index, 0, number) for index, number in enumerate(refused)]
    code += [(answer, 0, 0, allow), (answer, 0, 0, deny)]
    lines = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(lines)))
    prctl(SET_SECCOMP, 2, ctypes.addressof(header))
