"""What a command says while it works: on stderr, so that stdout holds the result alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

BAD_INPUT, INTERRUPTED = 2, 130
"""Exit codes."""

notes = Console(stderr=True)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar on stderr, where that is a terminal, with the time left; a call moves it on by one or the number given."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as bars:
        task = bars.add_task(what, total=total)
        yield lambda steps=1: bars.advance(task, steps)


def say_interrupted(found: object) -> None:
    """One line for a run that Ctrl-C cut short: whether its result is incomplete or there is none."""
    notes.print("interrupted: this is what there is" if found else "interrupted: nothing was finished")
