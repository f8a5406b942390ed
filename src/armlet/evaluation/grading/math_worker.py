"""Runs `formulas.py` in a separate process, which answers lines of JSON with lines of JSON.

sympy and math-verify cannot limit its time outside the main thread, and only killing a process stops `10**10**10`.
"""

import atexit
import json
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

REPLY_SECONDS = 60.0  # for a stalled machine, and for Windows, where processor time cannot be limited
SCRIPT = Path(__file__).with_name("formulas.py")


class MathWorker:
    """The process. The first request starts it, and a request after its end restarts it. Threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: Popen[str] | None = None

    def ask(self, answer: str, gold: str) -> bool | None:
        """Whether an answer and a gold in plain notation are equal formulas; None if there is no reply in time."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self.close()  # closes the pipes of a process that ended
                # -P: the script's folder is not searched for modules. A new session: Ctrl-C is for this process.
                command = [sys.executable, "-P", str(SCRIPT)]
                self._process = Popen(
                    command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, encoding="utf-8", start_new_session=True
                )
            timer = threading.Timer(REPLY_SECONDS, self._process.kill)
            try:
                timer.start()
                print(json.dumps((answer, gold)), file=self._process.stdin, flush=True)
                assert self._process.stdout is not None
                return json.loads(self._process.stdout.readline())
            except BaseException as error:  # after Ctrl-C, a late reply must not be mistaken for the next one
                self.close()
                if isinstance(error, OSError | ValueError):  # it ended before or during its reply
                    return None
                raise
            finally:
                timer.cancel()

    def close(self) -> None:
        """Kills the process."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(OSError), process:  # closes the pipes and waits; unwritten data is lost
                process.kill()

    def forget(self) -> None:
        """Drops the process in the child after a fork, because it belongs to the parent."""
        if self._process is not None:
            self._process.returncode = 0  # prevents a warning that it is still running
        self.__init__()


WORKER = MathWorker()
atexit.register(WORKER.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WORKER.forget)
