"""The progress of long work on stderr: a bar on a terminal or in a notebook, and lines in a log file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from time import monotonic
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from armlet.presentation import terminal

LINE_SECONDS = 60  # between two lines in a log
REDRAW_SECONDS = 0.5  # between two drawings in a notebook, whose server slows down if it receives more


class Tick(Protocol):
    """Counts finished steps."""

    def __call__(self, steps: int = 1, /) -> None:
        """Counts `steps` more."""


@contextmanager
def progress(what: str, total: int, *, done: int = 0) -> Iterator[Tick]:
    """Shows how many of `total` steps are finished, and the remaining time, while the block runs.

    Yields `tick(steps=1)`, which counts finished steps. The estimate of the remaining time ignores the `done` steps of
    an earlier run.
    """
    if terminal.notes.is_terminal and not terminal.notes.is_jupyter:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=terminal.notes, transient=True) as bars:
            task = bars.add_task(what, total=total, completed=done)
            yield lambda steps=1, /: bars.advance(task, steps)
        return
    counter = _Counter(what, total, done)
    if terminal.notes.is_jupyter:
        with _notebook_bar() as show:
            show(counter.html())
            yield counter.redrawing(show)
    else:
        with terminal.log_lines(counter.line, LINE_SECONDS):
            yield counter.tick


class _Counter:
    """Counts steps, and describes how far the work is."""

    def __init__(self, what: str, total: int, done: int) -> None:
        self.what, self.total, self.done = what, total, done
        self._ticks: tuple[tuple[float, int], ...] = ()  # time and number of steps at the first tick and at the last

    def tick(self, steps: int = 1, /) -> None:
        """Counts `steps` more."""
        self.done += steps
        self._ticks = (*self._ticks[:1], (monotonic(), self.done))  # at once: another thread reads both

    def redrawing(self, show: Callable[[str], None]) -> Tick:
        """A tick that also shows the bar, at most every REDRAW_SECONDS."""
        due = monotonic() + REDRAW_SECONDS

        def tick(steps: int = 1, /) -> None:
            nonlocal due
            self.tick(steps)
            if monotonic() >= due:
                due = monotonic() + REDRAW_SECONDS
                show(self.html())

        return tick

    def line(self) -> str:
        """What is done, and how long the rest will take, without regard to the first step, which may compile."""
        ticks = self._ticks or ((0.0, self.done),)
        (start, first), (end, last) = ticks[0], ticks[-1]
        text, steps = f"{self.what}: {last:,} of {self.total:,}", last - first
        return f"{text}, {duration((end - start) / steps * (self.total - last))} left" if steps else text

    def html(self) -> str:
        """The same as a bar."""
        return f"<progress value={self.done} max={self.total}></progress> {escape(self.line())}"


def duration(seconds: float) -> str:
    """A time in words, such as "40 s", "about 3 min" or "about 2.5 h"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


@contextmanager
def _notebook_bar() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows HTML in place of what it showed before; nothing stays after the block."""
    from IPython.display import HTML, DisplayHandle  # pyright: ignore[reportMissingImports] - a notebook has it

    handle = DisplayHandle()
    handle.display(HTML(""))
    try:
        yield lambda html: handle.update(HTML(html))
    finally:
        handle.update(HTML(""))
