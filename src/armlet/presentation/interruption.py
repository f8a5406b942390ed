"""What happens at Ctrl-C: it ends the loop that it hits, what is finished is shown, and the command exits with 130."""

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
    """Runs a block to its end or to Ctrl-C, which is no error here: the caller keeps what the block has finished."""
    interruption = Interruption()
    try:
        yield interruption
    except KeyboardInterrupt:
        interruption.happened = True


def report_interruption(interrupted: bool, finished: object) -> None:
    """After Ctrl-C, says whether the result is incomplete or empty; exits where nothing was finished."""
    if interrupted:
        notes.print("interrupted: this is what there is" if finished else "interrupted: nothing was finished")
        if not finished:
            sys.exit(INTERRUPTED)
