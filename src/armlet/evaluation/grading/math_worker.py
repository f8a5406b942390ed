"""Runs math-verify in a separate process, which answers lines of JSON with lines of JSON and runs this file.

math-verify cannot limit its time outside the main thread, and only killing a process stops `10**10**10`.
"""

import atexit
import json
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from functools import lru_cache
from subprocess import DEVNULL, PIPE, Popen
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sympy import Basic
    from sympy.matrices import MatrixBase

REPLY_SECONDS = 60.0  # for a stalled machine, and for Windows, where processor time cannot be limited
REQUEST_CPU_SECONDS = 4  # none of 64,262 comparisons of gold answers took 2
MEMORY_BYTES = 4 << 30


class MathWorker:
    """The process. The first request starts it, and a request after its end restarts it. Threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: Popen[str] | None = None

    def ask(self, *request: str) -> str | bool | None:
        """The reply to ("read", text) or ("same", answer, gold); None if there is no reply in time."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                # -P: the script's folder is not searched for modules. A new session: Ctrl-C is for this process.
                command = [sys.executable, "-P", __file__]
                self._process = Popen(
                    command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, encoding="utf-8", start_new_session=True
                )
            timer = threading.Timer(REPLY_SECONDS, self._process.kill)
            try:
                timer.start()
                print(json.dumps(request), file=self._process.stdin, flush=True)
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
            with suppress(OSError), process:  # closes the pipes and waits; what is still to be written has no reader
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


# The rest runs in the process. It imports nothing from armlet, so that it starts within a second.


def serve() -> None:
    """Answers requests until the pipe closes; the reply is None if math-verify fails."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that no output of a library is taken for a reply
    logging.disable(logging.CRITICAL)
    with suppress(ImportError, OSError, ValueError):  # some systems refuse, and Windows has no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for line in sys.stdin:
        if hasattr(signal, "setitimer"):  # not on Windows. Processor time does not depend on how busy the machine is
            signal.setitimer(signal.ITIMER_PROF, REQUEST_CPU_SECONDS)  # then SIGPROF ends this process
        operation, *texts = json.loads(line)
        try:
            reply = read_expression(*texts) if operation == "read" else is_same(*texts)
        except Exception:  # a parser may raise anything on arbitrary text
            reply = None
        print(json.dumps(reply), file=replies, flush=True)


def read_expression(text: str) -> str | None:
    """The last expression that math-verify finds in running text; None if there is none."""
    from math_verify import parse

    parsed = parse(text, parsing_timeout=None)  # type: ignore[arg-type]
    if len(parsed) < 2 or not isinstance(parsed[-1], str):
        return None
    return parsed[-1].strip() or None


def is_same(answer: str, gold: str) -> bool:
    """Whether math-verify accepts the answer for the gold.

    math-verify accepts `-2,1` as the interval `(-2,1)`, and a set as a point; here the brackets must match.
    """
    from math_verify import verify
    from sympy import FiniteSet, Interval, Tuple

    parsed_answer, parsed_gold = parse_formula(answer), parse_formula(gold)
    values = [parsed[0] for parsed in (parsed_answer, parsed_gold) if parsed]
    unordered = any(isinstance(value, FiniteSet) for value in values)
    if unordered and any(isinstance(value, Interval | Tuple) for value in values):
        return False
    return verify(parsed_gold, parsed_answer, allow_set_relation_comp=True, timeout_seconds=None)


@lru_cache(maxsize=4096)
def parse_formula(latex: str) -> "list[Basic | MatrixBase | str]":
    """Parses one formula with math-verify: an expression, if it could be parsed, and its text."""
    from math_verify import LatexExtractionConfig, parse

    return parse(f"${latex}$", extraction_config=[LatexExtractionConfig()], parsing_timeout=None)  # type: ignore[arg-type]


if __name__ == "__main__":
    serve()
