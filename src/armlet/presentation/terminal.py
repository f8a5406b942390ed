"""Notes on stderr, so that stdout contains only the result."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

from rich.console import Console
from rich.text import Text

BAD_INPUT = 2  # exit code
FIRST_LINE_SECONDS = 5  # work that takes longer is mentioned in a log

notes = Console(stderr=True)


def note(text: str, *, style: str | None = None) -> None:
    """Prints a line on stderr, without markup or line breaks of its own."""
    notes.print(text, style=style, markup=False, highlight=False, soft_wrap=not notes.is_jupyter)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Says what the block does: a spinner while it runs on a terminal; elsewhere one line, if it takes long."""
    if notes.is_terminal and not notes.is_jupyter:
        with notes.status(Text(f"{what} ...")):
            yield
        return
    line = Timer(FIRST_LINE_SECONDS, note, [f"{what} ..."])
    line.daemon = True
    line.start()
    try:
        yield
    finally:
        line.cancel()
