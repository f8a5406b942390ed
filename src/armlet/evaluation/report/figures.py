"""The figure of an evaluation: a forest plot of differences."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator

from armlet.evaluation.conditions.placebos import COMPARED_PLACEBOS
from armlet.evaluation.report.findings import PairedComparison, TaskFindings
from armlet.evaluation.report.tables import grouped, identical
from armlet.evaluation.search.figures import (
    DARK,
    FIGURE_INCHES,
    NARROW_CHARACTERS,
    NARROW_INCHES,
    Point,
    shorten,
    titled_figure,
)
from armlet.presentation.numbers import difference_text, percent, with_count
from armlet.presentation.style import COLOURS, GREY, OTHER_COLOUR, style
from armlet.redistribution.errors import ArgumentError

UNDETECTABLE = "#ececec"
NAME_POINTS = 8.5  # the font size of names, which is 11 px if the figure is 700 px wide

LINE_INCHES, PANEL_INCHES, FRAME_INCHES = 0.17, 0.72, 0.62
"""The heights of a line of a name, of a panel's heading and axis, and of title and legend."""

SMALL_LINE = 0.72  # a line of the text above an interval, in such lines

NAME_LINES = 3
"""The most lines of a condition's name."""

LEGEND = "lines: 95 % intervals; grey bands: true differences too small to be detected at 80 % power"


@dataclass(frozen=True)
class Layout:
    """Where the names and numbers of a forest plot are, and how long its texts may be, in characters."""

    inches: float  # the width of the figure
    beside: bool  # names to the left of the intervals and numbers to the right; otherwise both above them
    name: int  # of a line of a name
    title: int
    heading: int
    legend: int  # of a line of the legend

    def name_of(self, pair: PairedComparison) -> str:
        """The name of a row, on several lines if it is long."""
        text = shorten(str(pair.treated), self.name * NAME_LINES)
        return "\n".join(textwrap.wrap(text, self.name)[:NAME_LINES])

    def lines(self, pair: PairedComparison) -> float:
        """The height of a row, in lines of text."""
        return self.name_of(pair).count("\n") + 1.5 if self.beside else self._text_lines(pair) + 2.2

    def _text_lines(self, pair: PairedComparison) -> float:
        """The height of name and numbers above an interval."""
        return SMALL_LINE * (self.name_of(pair).count("\n") + 2)

    def middle(self, pair: PairedComparison, top: float) -> float:
        """Where the interval of a row is that begins at `top`."""
        return top - (self.lines(pair) / 2 if self.beside else self._text_lines(pair) + 0.75)


WIDE = Layout(FIGURE_INCHES, beside=True, name=36, title=84, heading=92, legend=140)
NARROW = Layout(NARROW_INCHES, beside=False, name=40, title=40, heading=42, legend=NARROW_CHARACTERS)
"""The layouts of a forest plot, for a page and for a telephone."""


def draw_forest(tasks: Sequence[TaskFindings], *, title: str, layout: Layout = WIDE) -> Figure:
    """Draws the difference and interval of each comparison with the baseline, in a panel for each task.

    Judged comparisons are first and bold, and controls are below them in grey. The figure does not use pyplot, and its
    height depends on the number of rows.

    Raises ArgumentError if there are no comparisons.
    """
    panels = [
        (task, [pair for group, pairs in grouped(task).items() if group not in COMPARED_PLACEBOS for pair in pairs])
        for task in tasks
        if any(pair.group not in COMPARED_PLACEBOS for pair in task.comparisons)
    ]
    if not panels:
        raise ArgumentError("figure: nothing was compared")
    heights = [sum(map(layout.lines, pairs)) * LINE_INCHES for _, pairs in panels]
    legend = textwrap.fill(LEGEND, layout.legend)
    with style():
        frame = FRAME_INCHES + 0.11 * legend.count("\n")
        size = (layout.inches, sum(heights) + len(panels) * PANEL_INCHES + frame)
        figure = titled_figure(size, shorten(title, layout.title), legend)
        axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
        for panel, (task, pairs) in zip(axes, panels, strict=True):
            _draw_panel(panel, task, pairs, layout)
        return figure


def _draw_panel(axes: Axes, task: TaskFindings, pairs: Sequence[PairedComparison], layout: Layout) -> None:
    """Draws the rows from top to bottom, in units of lines of text, so that a row with a long name is higher."""
    compared = [pair for pair in pairs if not identical(task, pair)]
    y, limits = sum(map(layout.lines, pairs)), _limits(compared)
    axes.set(xlim=limits, ylim=(0, y), yticks=[])
    axes.set_title(" ", fontsize=NAME_POINTS)  # an empty title makes room above the panel for the heading
    heading = f"{task.name}: {with_count(task.items, 'item')}, baseline {percent(task.baseline.accuracy)}"
    edge, units = (0.08 / layout.inches, 1), ("figure fraction", "axes fraction")
    label = _annotate(axes, shorten(heading, layout.heading), edge, (0, 5), units, weight="bold", color=DARK)
    label.set_in_layout(False)
    axes.set_xlabel("difference from the baseline in percentage points", fontsize=7.5)
    axes.spines["left"].set_visible(False)
    axes.tick_params(labelsize=7.5)
    axes.xaxis.set_major_locator(MaxNLocator(7 if layout.beside else 5))
    axes.axvline(0, color=DARK, lw=0.8, zorder=2)
    for pair in pairs:
        middle, same = layout.middle(pair, y), identical(task, pair)
        if not same:
            _draw_row(axes, pair, middle, limits, 0.42 * layout.lines(pair) if layout.beside else 0.42)
        numbers = same or difference_text(pair.comparison.difference, *pair.interval)
        _label_row(axes, pair, numbers, middle if layout.beside else y, layout)
        y -= layout.lines(pair)


def _draw_row(axes: Axes, pair: PairedComparison, middle: float, limits: Point, half: float) -> None:
    """Draws the interval at `middle`, on the band of undetectable differences, which is `half` its height."""
    smallest = pair.comparison.smallest_detectable
    start, end = limits if smallest is None else (-100 * smallest, 100 * smallest)
    axes.add_patch(Rectangle((start, middle - half), end - start, 2 * half, color=UNDETECTABLE, lw=0, zorder=0))
    colour = _row_colour(pair)
    low, high = (edge if bound is None else 100 * bound for bound, edge in zip(pair.interval, limits, strict=True))
    width = 1.8 if pair.judged else 1.1
    axes.plot([low, high], [middle, middle], color=colour, lw=width, zorder=3, solid_capstyle="butt")
    for bound, edge, marker in zip(pair.interval, limits, "<>", strict=True):
        if bound is None:
            axes.plot(edge, middle, marker=marker, color=colour, ms=6, mew=0, clip_on=False, zorder=3)
    marker, size, face = ("s", 5.5, colour) if pair.judged else ("o", 4.5, "white")
    axes.plot(100 * pair.comparison.difference, middle, color=colour, marker=marker, ms=size, mfc=face, zorder=4)


def _label_row(axes: Axes, pair: PairedComparison, numbers: str, y: float, layout: Layout) -> None:
    """Writes name and numbers beside the panel, for which the layout makes room, or above the interval."""
    font = {"color": DARK, "weight": "bold"} if pair.judged else {"color": GREY, "weight": "normal"}
    font |= {"linespacing": 1.1}
    transform, name = axes.get_yaxis_transform(), layout.name_of(pair)
    if layout.beside:
        _annotate(axes, name, (0, y), (-8, 0), transform, ha="right", va="center", **font)
        _annotate(axes, numbers, (1, y), (8, 0), transform, ha="left", va="center", fontsize=8, **font)
    else:
        _annotate(axes, f"{name}\n{numbers}", (0, y), (0, -3), transform, ha="left", va="top", fontsize=8, **font)


def _annotate(axes: Axes, text: str, position: Point, shift: Point, unit: Any, **font: Any) -> Annotation:
    """Writes a text outside the panel; a dollar sign in it does not start a formula."""
    font = {"fontsize": NAME_POINTS, "parse_math": False, "annotation_clip": False, **font}
    return axes.annotate(text, position, xytext=shift, xycoords=unit, textcoords="offset points", **font)


def _limits(pairs: Sequence[PairedComparison]) -> Point:
    """The limits of the axis, which include zero and all finite values."""
    values = [x for pair in pairs for x in (*pair.interval, pair.comparison.difference) if x is not None]
    smallest = max((pair.comparison.smallest_detectable or 0.0 for pair in pairs), default=0.0)
    low, high = 100 * min(0.0, *values, -smallest), 100 * max(0.0, *values, smallest)
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def _row_colour(pair: PairedComparison) -> str:
    """The colour of a row's policy, which is the first word of the condition's name."""
    if not pair.judged:
        return GREY
    first = pair.treated.condition.split(maxsplit=1)[0].rstrip(",").capitalize()
    return OTHER_COLOUR if first == "Filler" else COLOURS.get(first, DARK)
