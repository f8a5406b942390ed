"""Notes on stderr, so that stdout contains only the result."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from rich.console import Console
from rich.text import Text

BAD_INPUT = 2  # exit code
FIRST_LINE_SECONDS = 5  # work that takes longer is mentioned in a log

notes = Console(stderr=True)


def note(text: str, *, style: str | None = None) -> None:
    """Prints a line on stderr, without markup or line breaks of its own."""
    notes.print(text, style=style, markup=False, highlight=False, soft_wrap=not notes.is_jupyter)


@contextmanager
def log_lines(text: Callable[[], str], seconds: float | None = None) -> Iterator[None]:
    """Prints `text()` after FIRST_LINE_SECONDS, and then every `seconds` if given, until the block ends."""
    ended = Event()

    def write() -> None:
        wait: float | None = FIRST_LINE_SECONDS
        while not ended.wait(wait):
            note(text())
            wait = seconds

    thread = Thread(target=write, daemon=True)
    try:
        thread.start()
        yield
    finally:
        ended.set()
        thread.join()  # a line that is being printed is printed before what follows the block


@contextmanager
def working(what: str) -> Iterator[None]:
    """Says what the block does: a spinner while it runs on a terminal; elsewhere one line, if it takes long."""
    if notes.is_terminal and not notes.is_jupyter:
        with notes.status(Text(f"{what} ...")):
            yield
        return
    with log_lines(lambda: f"{what} ..."):
        yield
