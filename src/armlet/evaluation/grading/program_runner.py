"""The first code inside the sandbox: limits this process, runs the program, and then shows the token.

Its text is given to an interpreter by `-c`; standard input is a line of JSON, with the token and the limits, and then
the program. The token goes to handle 3, after the program's last line; the program finds no other trace of it than in
the memory of its interpreter.
"""

import contextlib
import json
import os
import resource
import sys
import types

STARTED = b"+"
OUT_OF_MEMORY = b"memory"
VERDICT = 3  # the handle


def run_limited() -> None:
    """Run the program as `__main__` and leave; standard output and input become /dev/null."""
    config = json.loads(sys.stdin.buffer.readline())
    token, source = config["token"].encode(), sys.stdin.buffer.read()
    os.dup2(1, VERDICT, inheritable=False)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.closerange(VERDICT + 1, 1 << 16)
    os.environ.clear()
    for name, most in config["limits"].items():
        hard = resource.getrlimit(getattr(resource, name))[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(getattr(resource, name), (most, most))
    write, leave, memory_error = os.write, os._exit, MemoryError
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
    leave(0)


if __name__ == "__main__":
    run_limited()
