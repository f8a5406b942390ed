"""What a command says while it works: on stderr, so that stdout holds the result alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

BAD_INPUT, INTERRUPTED = 2, 130
"""Exit codes."""

notes = Console(stderr=True)


LINE_SECONDS = 60
"""Between lines of progress where no bar can be drawn."""


@contextmanager
def progress(what: str, total: int, *, done: int = 0) -> Iterator[Callable[..., None]]:
    """A bar on stderr with the time left, or a line each minute where that is no terminal.

    A call moves it on by one or the number given.

    Args:
        what: is done.
        total: of the steps.
        done: those that an earlier run did; they tell nothing of this one's speed.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as bars:
        task = bars.add_task(what, total=total, completed=done)
        said = monotonic()

        def advance(steps: int = 1) -> None:
            nonlocal said
            bars.advance(task, steps)
            if not notes.is_terminal and monotonic() - said >= LINE_SECONDS:
                said = monotonic()
                notes.print(f"{what}: {bars.tasks[0].completed:.0f} of {total}", markup=False)

        yield advance


def say_interrupted(found: object) -> None:
    """One line for a run that Ctrl-C cut short: whether its result is incomplete or there is none."""
    notes.print("interrupted: this is what there is" if found else "interrupted: nothing was finished")
