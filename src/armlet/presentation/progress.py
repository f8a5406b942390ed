"""The progress of long work on stderr: a bar on a terminal or in a notebook, and lines in a log file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from time import monotonic
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from armlet.presentation import terminal

LINE_SECONDS = 60  # between two lines in a log
LONG_SECONDS = 60  # work that takes longer says so, once its first steps are done
REDRAW_SECONDS = 0.5  # between two drawings in a notebook, whose server slows down if it receives more


class Tick(Protocol):
    """Counts finished steps."""

    def __call__(self, steps: int = 1, /) -> None:
        """Counts `steps` more."""


@contextmanager
def progress(what: str, total: int, *, done: int = 0, typical: int = 1) -> Iterator[Tick]:
    """Shows how many of `total` steps are finished, and the remaining time, while the block runs.

    Yields `tick(steps=1)`, which counts finished steps. Estimates ignore the `done` steps of an earlier run. After the
    first `typical` steps, which are like the others, a note says how long the rest will take, if that is long.
    """
    counter = _Counter(what, total, done, typical)
    if terminal.notes.is_terminal and not terminal.notes.is_jupyter:
        names, left = TextColumn("{task.description}"), TextColumn("{task.fields[left]}")
        with Progress(names, BarColumn(), MofNCompleteColumn(), left, console=terminal.notes, transient=True) as bars:
            task = bars.add_task(what, total=total, completed=done, left="")

            def tick(steps: int = 1, /) -> None:
                counter.tick(steps)
                bars.update(task, completed=counter.done, left=counter.left())

            yield tick
        return
    if terminal.notes.is_jupyter:
        with _notebook_bar() as show:
            show(counter.html())
            yield counter.redrawing(show)
    else:
        with terminal.log_lines(counter.line, LINE_SECONDS):
            yield counter.tick


class _Counter:
    """Counts steps, and describes how far the work is."""

    def __init__(self, what: str, total: int, done: int, typical: int) -> None:
        self.what, self.total, self.done = what, total, done
        self._told_at = done + typical
        self._ticks = ((monotonic(), done),)  # time and number of steps at the start, the first tick and the last

    def tick(self, steps: int = 1, /) -> None:
        """Counts `steps` more."""
        before, self.done = self.done, self.done + steps
        self._ticks = (*self._ticks[:2], (monotonic(), self.done))  # at once: another thread reads them
        seconds = self.seconds_left()
        if before < self._told_at <= self.done and seconds and seconds > LONG_SECONDS:
            steps = self.done - self._ticks[0][1]
            terminal.note(f"{self.what}: {duration(seconds)} left, judging by the first {steps:,} of {self.total:,}")

    def seconds_left(self) -> float | None:
        """An estimate from all ticks but the first, which may compile, or from it alone; None before it."""
        (start, first), (end, last) = self._ticks[0 if len(self._ticks) < 3 else 1], self._ticks[-1]
        return (end - start) / (last - first) * (self.total - last) if last > first else None

    def left(self) -> str:
        """The remaining time in words; "" before the first tick."""
        seconds = self.seconds_left()
        return "" if seconds is None else f"{duration(seconds)} left"

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
        """What is done, and how long the rest will take."""
        text, left = f"{self.what}: {self._ticks[-1][1]:,} of {self.total:,}", self.left()
        return f"{text}, {left}" if left else text

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
