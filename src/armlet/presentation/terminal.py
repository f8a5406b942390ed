"""Progress and notes on stderr, so that stdout contains only the result; and tables."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

BAD_INPUT = 2  # exit code
LINE_SECONDS = 60  # seconds between two lines of progress if no bar can be drawn

notes = Console(stderr=True)


@contextmanager
def progress(what: str, total: int, *, done: int = 0) -> Iterator[Callable[..., None]]:
    """Shows a progress bar on stderr with the remaining time, or a line each minute if stderr is not a terminal.

    Yields `tick(steps=1)`, which counts finished steps. The estimate of the remaining time ignores the `done` steps of
    an earlier run.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as bars:
        task = bars.add_task(what, total=total, completed=done)
        last_line = monotonic()

        def advance(steps: int = 1, /) -> None:
            nonlocal last_line
            bars.advance(task, steps)
            if not notes.is_terminal and monotonic() - last_line >= LINE_SECONDS:
                last_line = monotonic()
                notes.print(f"{what}: {bars.tasks[0].completed:.0f} of {total}", markup=False)

        yield advance


def titled_table(title: str, headings: Iterable[str], caption: str = "") -> Table:
    """An empty table without a frame: names on the left, right-aligned numbers; text is never parsed as markup."""
    look = {"box": SIMPLE_HEAD, "show_edge": False, "padding": 0, "pad_edge": False}
    table = Table(title=Text(title), title_justify="left", caption=Text(caption), caption_justify="left", **look)
    for index, heading in enumerate(headings):
        table.add_column(Text(heading), justify="right" if index else "left", no_wrap=True)
    return table
