"""Ctrl-C ends the running loop; the command shows the results so far and exits with 130."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from armlet.presentation.terminal import notes

INTERRUPTED = 130  # exit code


class Interruption:
    """Whether Ctrl-C ended a block of `until_interrupted`."""

    happened = False


@contextmanager
def until_interrupted() -> Iterator[Interruption]:
    """Runs a block until its end or Ctrl-C, which is not an error: the caller keeps the results so far."""
    interruption = Interruption()
    try:
        yield interruption
    except KeyboardInterrupt:
        interruption.happened = True


def report_interruption(interrupted: bool, finished: object) -> None:
    """After Ctrl-C, prints whether the result is incomplete or empty; exits if nothing was finished."""
    if interrupted:
        notes.print("interrupted: this is what there is" if finished else "interrupted: nothing was finished")
        if not finished:
            sys.exit(INTERRUPTED)
