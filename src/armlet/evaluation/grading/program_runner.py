"""The first code inside the sandbox: limits this process, runs the program, and then writes the token.

An interpreter receives this file with `-c`. Standard input is a line of JSON with the token and the limits, and then
the program. The token is written to file descriptor 3 after the program's last line. Before that, it exists only in
the memory of the interpreter.
"""

import contextlib
import json
import os
import resource
import sys
import types

STARTED = b"+"
OUT_OF_MEMORY = b"memory"
VERDICT = 3  # the file descriptor


def run_limited() -> None:
    """Runs the program as `__main__` and exits; standard input and output become /dev/null."""
    config = json.loads(sys.stdin.buffer.readline())
    token, source = config["token"].encode(), sys.stdin.buffer.read()
    os.dup2(1, VERDICT, inheritable=False)
    null_device = os.open(os.devnull, os.O_RDWR)
    os.dup2(null_device, 0)
    os.dup2(null_device, 1)
    os.closerange(VERDICT + 1, 1 << 16)
    os.environ.clear()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy's linear algebra: more threads need more memory than the limit
    sys.path.append(config["packages"])
    for name, limit in config["limits"].items():
        hard = resource.getrlimit(getattr(resource, name))[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(getattr(resource, name), (limit, limit))
    write, exit_now, memory_error = os.write, os._exit, MemoryError
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    write(VERDICT, STARTED)
    try:
        exec(compile(source, "program.py", "exec", dont_inherit=True), main.__dict__)
    except memory_error:
        write(VERDICT, OUT_OF_MEMORY)
        raise
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed by the program, or replaced
            stream.flush()
    write(VERDICT, token)
    exit_now(0)


if __name__ == "__main__":
    run_limited()
