"""The figure of an evaluation: a forest plot of differences."""

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator

from armlet.evaluation.conditions.placebos import COMPARED_PLACEBOS
from armlet.evaluation.report.findings import PairedComparison, TaskFindings
from armlet.evaluation.report.tables import grouped
from armlet.evaluation.search.figures import DARK, FIGURE_INCHES, Point, shorten, titled_figure
from armlet.presentation.numbers import difference_text, percent, with_count
from armlet.presentation.style import COLOURS, GREY, OTHER_COLOUR, style
from armlet.redistribution.errors import ArgumentError

UNDETECTABLE = "#ececec"
NAME_POINTS = 8.5  # the font size of names, which is 11 px if the figure is 700 px wide

LINE_INCHES, PANEL_INCHES, FRAME_INCHES = 0.17, 0.72, 0.62
"""The heights of a line of a name, of a panel's heading and axis, and of title and legend."""

NAME_CHARACTERS, NAME_LINES = 36, 3
"""The most characters per line, and the most lines, of a condition's name."""


def draw_forest(tasks: Sequence[TaskFindings], *, title: str) -> Figure:
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
    heights = [sum(map(_row_lines, pairs)) * LINE_INCHES for _, pairs in panels]
    with style():
        size = (FIGURE_INCHES, sum(heights) + len(panels) * PANEL_INCHES + FRAME_INCHES)
        legend = "lines: 95 % intervals; grey bands: true differences too small to be detected at 80 % power"
        figure = titled_figure(size, shorten(title, 84), legend)
        axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
        for panel, (task, pairs) in zip(axes, panels, strict=True):
            heading = f"{task.name}: {with_count(task.items, 'item')}, baseline {percent(task.baseline.accuracy)}"
            _draw_panel(panel, shorten(heading, 92), pairs)
        return figure


def _draw_panel(axes: Axes, heading: str, pairs: Sequence[PairedComparison]) -> None:
    """Draws the rows from top to bottom, in units of lines of text, so that a row with a long name is higher."""
    y, limits = sum(map(_row_lines, pairs)), _limits(pairs)
    axes.set(xlim=limits, ylim=(0, y), yticks=[])
    axes.set_title(" ", fontsize=NAME_POINTS)  # an empty title makes room above the panel for the heading
    edge = (0.08 / FIGURE_INCHES, 1)
    label = _annotate(axes, heading, edge, (0, 5), ("figure fraction", "axes fraction"), weight="bold", color=DARK)
    label.set_in_layout(False)
    axes.set_xlabel("difference from the baseline in percentage points", fontsize=7.5)
    below_names = {"y": 0, "rotation": 0, "ha": "right", "va": "top", "labelpad": 8}
    axes.set_ylabel("condition", fontsize=7.5, color=GREY, **below_names)
    axes.spines["left"].set_visible(False)
    axes.tick_params(labelsize=7.5)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.axvline(0, color=DARK, lw=0.8, zorder=2)
    for pair in pairs:
        middle = y - _row_lines(pair) / 2
        _draw_row(axes, pair, middle, limits)
        _label_row(axes, pair, middle)
        y -= _row_lines(pair)


def _draw_row(axes: Axes, pair: PairedComparison, middle: float, limits: Point) -> None:
    smallest, half = pair.comparison.smallest_detectable, 0.42 * _row_lines(pair)
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


def _label_row(axes: Axes, pair: PairedComparison, middle: float) -> None:
    """Writes the name to the left of the panel and the numbers to the right; the layout makes room for both."""
    numbers = difference_text(pair.comparison.difference, *pair.interval)
    font = {"color": DARK, "weight": "bold"} if pair.judged else {"color": GREY, "weight": "normal"}
    font |= {"va": "center", "linespacing": 1.1}
    transform = axes.get_yaxis_transform()
    _annotate(axes, _row_name(pair), (0, middle), (-8, 0), transform, ha="right", **font)
    _annotate(axes, numbers, (1, middle), (8, 0), transform, ha="left", fontsize=8, **font)


def _annotate(axes: Axes, text: str, position: Point, shift: Point, unit: Any, **font: Any) -> Annotation:
    """Writes a text outside the panel; a dollar sign in it does not start a formula."""
    font = {"fontsize": NAME_POINTS, "parse_math": False, "annotation_clip": False, **font}
    return axes.annotate(text, position, xytext=shift, xycoords=unit, textcoords="offset points", **font)


def _row_name(pair: PairedComparison) -> str:
    text = shorten(str(pair.treated), NAME_CHARACTERS * NAME_LINES)
    return "\n".join(textwrap.wrap(text, NAME_CHARACTERS)[:NAME_LINES])


def _row_lines(pair: PairedComparison) -> float:
    return _row_name(pair).count("\n") + 1.5


def _limits(pairs: Sequence[PairedComparison]) -> Point:
    """The limits of the axis, which include zero and all finite values."""
    values = [x for pair in pairs for x in (*pair.interval, pair.comparison.difference) if x is not None]
    smallest = [pair.comparison.smallest_detectable or 0.0 for pair in pairs]
    low, high = 100 * min(0.0, *values, -max(smallest)), 100 * max(0.0, *values, *smallest)
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def _row_colour(pair: PairedComparison) -> str:
    """The colour of a row's policy, which is the first word of the condition's name."""
    if not pair.judged:
        return GREY
    first = pair.treated.condition.split(maxsplit=1)[0].rstrip(",").capitalize()
    return OTHER_COLOUR if first == "Filler" else COLOURS.get(first, DARK)
