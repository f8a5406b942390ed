"""The figures of an evaluation: a forest plot of differences, and the sensitivity map or the curve of a search."""

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator

from armlet.evaluation.report.findings import PairedComparison, TaskFindings
from armlet.evaluation.report.tables import grouped
from armlet.evaluation.search.results import SearchMap, TrialResult
from armlet.presentation.numbers import difference_text, interval_text, percent, points, with_count
from armlet.presentation.style import COLOURS, GREY, OTHER_COLOUR, NotebookFigure, style
from armlet.redistribution.errors import ArgumentError

Point = tuple[float, float]
"""Two coordinates, sizes or bounds."""

DARK = "#222222"
UNDETECTABLE = "#ececec"
NAME_POINTS = 8.5  # the font size of names, which is 11 px if the figure is 700 px wide

FOREST_INCHES, LINE_INCHES, PANEL_INCHES, FRAME_INCHES = 7.2, 0.17, 0.72, 0.62
"""The figure's width, and the heights of a line of a name, of a panel's heading and axis, and of title and legend."""

NAME_CHARACTERS, NAME_LINES = 36, 3
"""The most characters per line, and the most lines, of a condition's name."""

MIN_CELL_INCHES, MAX_CELL_INCHES, CELL_HEIGHT_INCHES = 0.98, 1.6, 0.5
MAP_INCHES, MAP_SIDE_INCHES, MAP_FRAME_INCHES = 5.4, 0.95, 1.18
"""The map's smallest width, and the space next to the cells, and above and below them."""


def draw_forest(tasks: Sequence[TaskFindings], *, title: str) -> Figure:
    """Draws the difference and interval of each comparison with the baseline, in a panel for each task.

    Judged comparisons are first and bold, and controls are below them in grey. The figure does not use pyplot, and its
    height depends on the number of rows.

    Raises ArgumentError if there are no comparisons.
    """
    panels = [
        (task, [pair for group, pairs in grouped(task).items() if group != "matched" for pair in pairs])
        for task in tasks
        if any(pair.group != "matched" for pair in task.comparisons)
    ]
    if not panels:
        raise ArgumentError("figure: nothing was compared")
    heights = [sum(map(_row_lines, pairs)) * LINE_INCHES for _, pairs in panels]
    with style():
        size = (FOREST_INCHES, sum(heights) + len(panels) * PANEL_INCHES + FRAME_INCHES)
        legend = "lines: 95 % intervals; grey bands: true differences too small to be detected at 80 % power"
        figure = _framed(size, _shorten(title, 84), legend)
        axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
        for panel, (task, pairs) in zip(axes, panels, strict=True):
            heading = f"{task.name}: {with_count(task.items, 'item')}, baseline {percent(task.baseline.accuracy)}"
            _draw_panel(panel, _shorten(heading, 92), pairs)
        return figure


def _draw_panel(axes: Axes, heading: str, pairs: Sequence[PairedComparison]) -> None:
    """Draws the rows from top to bottom, in units of lines of text, so that a row with a long name is higher."""
    y, limits = sum(map(_row_lines, pairs)), _limits(pairs)
    axes.set(xlim=limits, ylim=(0, y), yticks=[])
    axes.set_title(" ", fontsize=NAME_POINTS)  # an empty title makes room above the panel for the heading
    edge = (0.08 / FOREST_INCHES, 1)
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
    text = _shorten(str(pair.treated), NAME_CHARACTERS * NAME_LINES)
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


def draw_map(searched: SearchMap) -> Figure:
    """Draws the difference over two settings: a cell for each trial, outlined if its interval excludes 0.

    The figure does not use pyplot, and its size depends on the number of cells.

    Raises ArgumentError if there are no trials, or two in one cell.
    """
    columns, lines = (sorted({row.values[name] for row in searched.rows}) for name in (searched.x, searched.y))
    cells = {(columns.index(row.values[searched.x]), lines.index(row.values[searched.y])): row for row in searched.rows}
    if not cells or len(cells) < len(searched.rows):
        pairs = f"{len(cells)} pairs of {searched.x} and {searched.y}"
        raise ArgumentError(f"draw_map: expected one row for each pair, found {len(searched.rows)} rows for {pairs}")
    width = min(max(MIN_CELL_INCHES, (FOREST_INCHES - MAP_SIDE_INCHES) / len(columns)), MAX_CELL_INCHES)
    size = max(MAP_INCHES, MAP_SIDE_INCHES + width * len(columns)), MAP_FRAME_INCHES + CELL_HEIGHT_INCHES * len(lines)
    with style():
        figure = _framed(size, _shorten(searched.title, int(12 * size[0])), _caption(searched.rows))
        axes = figure.subplots()
        _draw_map_cells(axes, cells)
        axes.set(xlim=(0, len(columns)), ylim=(0, len(lines)))
        for axis, name, values in ((axes.xaxis, searched.x, columns), (axes.yaxis, searched.y, lines)):
            axis.set_ticks([index + 0.5 for index in range(len(values))], [f"{value:g}" for value in values])
            axis.set_label_text(name, fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return figure


def _draw_map_cells(axes: Axes, cells: dict[tuple[int, int], TrialResult]) -> None:
    largest = max(abs(row.difference) for row in cells.values()) or 1.0
    colours = ScalarMappable(Normalize(-largest, largest), "RdBu")
    items_differ = len({row.items for row in cells.values()}) > 1
    for (column, line), row in cells.items():
        colour = to_rgb(colours.to_rgba(row.difference))  # type: ignore[arg-type]
        axes.add_patch(Rectangle((column, line), 1, 1, facecolor=colour, edgecolor="white", lw=1))
        if row.excludes_zero:
            frame = Rectangle((column + 0.03, line + 0.05), 0.94, 0.9, fill=False, edgecolor=DARK, lw=1.8, zorder=3)
            axes.add_patch(frame)
        red, green, blue = colour
        ink = DARK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
        below = interval_text(row.low, row.high) + (f"\n{row.items:,} items" if items_differ else "")
        centre = {"x": column + 0.5, "ha": "center", "color": ink, "linespacing": 1.0, "zorder": 4}
        axes.text(y=line + 0.52, s=points(row.difference), va="bottom", fontsize=8, weight="bold", **centre)
        axes.text(y=line + 0.46, s=below, va="top", fontsize=6.5, **centre)


def draw_curve(trials: Sequence[TrialResult], name: str, *, title: str) -> Figure:
    """Draws the difference and interval of each trial over the value of the only setting that was searched."""
    with style():
        figure = _framed((MAP_INCHES, MAP_INCHES / 2), _shorten(title, 60), "lines: 95 % intervals, where finite")
        axes = figure.subplots()
        axes.axhline(0, color=GREY, lw=0.6)
        for trial in trials:
            value, difference = trial.values[name], 100 * trial.difference
            low, high = (difference if bound is None else 100 * bound for bound in (trial.low, trial.high))
            axes.errorbar(
                value, difference, [[difference - low], [high - difference]], fmt="o", ms=3, lw=0.8, color=DARK
            )
        axes.set_xlabel(name)
        axes.set_ylabel("difference from the baseline, points")
        return figure


def _caption(rows: Sequence[TrialResult]) -> str:
    smallest, largest = min(row.items for row in rows), max(row.items for row in rows)
    items = f"{smallest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"
    return f"{items} items each; points, 95 % intervals; blue: above the baseline; red: below; outline: excludes 0"


def _framed(size: Point, title: str, legend: str) -> Figure:
    """An empty figure of this size in inches, with a title above and a legend below, both at the left edge."""
    figure = NotebookFigure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    figure.suptitle(title, x=0.08 / size[0], ha="left", fontsize=10, weight="bold", color=DARK, parse_math=False)
    figure.supxlabel(legend, x=0.08 / size[0], ha="left", fontsize=7, color=GREY)
    return figure


def _shorten(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
