"""Ctrl-C ends the running loop; the results so far are kept and shown, and a command exits with 130."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from armlet.presentation.terminal import note

INTERRUPTED = 130  # exit code

Part = TypeVar("Part")


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


@contextmanager
def interruption_says(message: str) -> Iterator[None]:
    """Gives a Ctrl-C in the block this message."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt(message) from interruption


def keep_partial(interruption: Interruption, finished: object, folder: Path | None = None) -> bool:
    """After Ctrl-C, notes that the result is incomplete, or raises KeyboardInterrupt if nothing was finished.

    folder: the run folder in which the same call or command resumes; None if there is none.

    Returns whether Ctrl-C interrupted the work.
    """
    if interruption.happened:
        if folder:
            note(f"interrupted: the same command or call resumes the run in {folder}")
        elif finished:
            note("interrupted: this is what there is")
        if not finished:
            raise KeyboardInterrupt
    return interruption.happened


def collect_until_interrupted(items: Iterable[Part]) -> tuple[list[Part], bool]:
    """Returns the items and whether Ctrl-C ended them early; raises KeyboardInterrupt if it came before the first."""
    collected: list[Part] = []
    with until_interrupted() as interruption:
        collected.extend(items)  # items before Ctrl-C are kept
    return collected, keep_partial(interruption, collected)
