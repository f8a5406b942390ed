"""math-verify in a process of its own, which can be ended where an answer takes it too long; see `mathematics.py`."""

import atexit
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

# For a machine that stands still: the process itself limits its processor time to a few seconds a request.
REPLY_SECONDS = 60.0


class MathWorker:
    """The process: started by the first request, and again where a request ended it. Threads take turns."""

    def __init__(self):
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, *request: str) -> str | bool | None:
        """The reply to ("read", text) or ("same", answer, gold); None where it did not come in time."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = _start_process()
            timer = threading.Timer(REPLY_SECONDS, self._process.kill)
            timer.start()
            try:
                return _exchange(self._process, request)
            except BaseException as error:  # Ctrl-C: a late reply must not be taken for that to the next request
                self.close()
                if isinstance(error, OSError | ValueError):  # it ended before or during its reply
                    return None
                raise
            finally:
                timer.cancel()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            with process:  # closes the pipes and waits
                process.kill()

    def forget(self) -> None:
        """After a fork, in the child: the process belongs to the parent."""
        if self._process is not None:
            self._process.returncode = 0  # or a warning says that it was left running
        self.__init__()


def _exchange(process: "subprocess.Popen[str]", request: tuple[str, ...]) -> str | bool | None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def _start_process() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("mathematics.py"))],  # -P: its folder is not searched
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C is for this process
    )


WORKER = MathWorker()
atexit.register(WORKER.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WORKER.forget)
