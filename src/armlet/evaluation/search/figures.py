"""The figures of a search: the sensitivity map, or the curve over one setting."""

from collections.abc import Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from armlet.evaluation.search.trials import SearchMap, TrialResult
from armlet.presentation.numbers import interval_text, points
from armlet.presentation.style import GREY, NotebookFigure, style
from armlet.redistribution.errors import ArgumentError

Point = tuple[float, float]
"""Two coordinates, sizes or bounds."""

DARK = "#222222"
PALENESS = 4  # a cell whose interval includes 0 has at most a quarter of the deepest colour
CELL_INKS = ("#fefefe", "#212121")
"""The colours of text and outlines on dark cells and on light ones, which a page in dark mode leaves as they are."""

FIGURE_INCHES = 7.2  # the width of a report's figures

MIN_CELL_INCHES, MAX_CELL_INCHES, CELL_HEIGHT_INCHES = 0.98, 1.6, 0.5
MAP_INCHES, MAP_SIDE_INCHES, MAP_FRAME_INCHES = 5.4, 0.95, 1.18
"""The map's smallest width, and the space next to the cells, and above and below them."""

NARROW_INCHES, NARROW_CELL_HEIGHT_INCHES, NARROW_CHARACTERS = 3.6, 0.66, 58
"""The width of figures for a telephone, the height of a map's cells there, and the characters of a line of a legend."""


def draw_map(searched: SearchMap, *, narrow: bool = False) -> Figure:
    """Draws the difference over two settings: a cell for each trial, outlined if its interval excludes 0.

    The figure does not use pyplot, and its size depends on the number of cells, unless it is a narrow one.

    Raises ArgumentError if there are no trials, or two in one cell.
    """
    columns, lines = (sorted({row.values[name] for row in searched.rows}) for name in (searched.x, searched.y))
    cells = {(columns.index(row.values[searched.x]), lines.index(row.values[searched.y])): row for row in searched.rows}
    if not cells or len(cells) < len(searched.rows):
        pairs = f"{len(cells)} pairs of {searched.x} and {searched.y}"
        raise ArgumentError(f"draw_map: expected one row for each pair, found {len(searched.rows)} rows for {pairs}")
    size = _map_size(len(columns), len(lines), narrow=narrow)
    caption = _caption(searched.rows)
    legend = fill(caption, NARROW_CHARACTERS) if narrow else caption
    with style():
        figure = titled_figure(size, shorten(searched.title, int(12 * size[0])), legend)
        axes = figure.subplots()
        _draw_map_cells(axes, cells, narrow=narrow)
        axes.set(xlim=(0, len(columns)), ylim=(0, len(lines)))
        for axis, name, values in ((axes.xaxis, searched.x, columns), (axes.yaxis, searched.y, lines)):
            axis.set_ticks([index + 0.5 for index in range(len(values))], [f"{value:g}" for value in values])
            axis.set_label_text(name, fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return figure


def _map_size(columns: int, lines: int, *, narrow: bool) -> Point:
    """The size of a map in inches."""
    if narrow:
        return NARROW_INCHES, MAP_FRAME_INCHES + NARROW_CELL_HEIGHT_INCHES * lines
    width = min(max(MIN_CELL_INCHES, (FIGURE_INCHES - MAP_SIDE_INCHES) / columns), MAX_CELL_INCHES)
    return max(MAP_INCHES, MAP_SIDE_INCHES + width * columns), MAP_FRAME_INCHES + CELL_HEIGHT_INCHES * lines


def _draw_map_cells(axes: Axes, cells: dict[tuple[int, int], TrialResult], *, narrow: bool) -> None:
    largest = max(abs(row.difference) * (1 if row.excludes_zero else PALENESS) for row in cells.values()) or 1.0
    colours = ScalarMappable(Normalize(-largest, largest), "RdBu")
    items_differ = len({row.items for row in cells.values()}) > 1
    for (column, line), row in cells.items():
        colour = to_rgb(colours.to_rgba(row.difference))  # type: ignore[arg-type]
        axes.add_patch(Rectangle((column + 0.01, line + 0.02), 0.98, 0.96, facecolor=colour, lw=0))
        red, green, blue = colour
        ink = CELL_INKS[0.3 * red + 0.59 * green + 0.11 * blue > 0.5]
        if row.excludes_zero:
            frame = Rectangle((column + 0.04, line + 0.08), 0.92, 0.84, fill=False, edgecolor=ink, lw=1.8, zorder=3)
            axes.add_patch(frame)
        interval = interval_text(row.low, row.high)
        interval = interval.replace(", ", ",\n") if narrow else interval
        below = f"{interval}\n{row.items:,} items" if items_differ else interval
        centre = {"x": column + 0.5, "ha": "center", "color": ink, "linespacing": 1.0, "zorder": 4}
        axes.text(y=line + 0.52, s=points(row.difference), va="bottom", fontsize=8, weight="bold", **centre)
        axes.text(y=line + 0.46, s=below, va="top", fontsize=6 if narrow else 6.5, **centre)


def draw_curve(trials: Sequence[TrialResult], name: str, *, title: str) -> Figure:
    """Draws the difference and interval of each trial over the value of the only setting that was searched."""
    with style():
        figure = titled_figure((MAP_INCHES, MAP_INCHES / 2), shorten(title, 60), "lines: 95 % intervals, where finite")
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


def titled_figure(size: Point, title: str, legend: str) -> Figure:
    """An empty figure of this size in inches, with a title above and a legend below, both at the left edge."""
    figure = NotebookFigure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    figure.suptitle(title, x=0.08 / size[0], ha="left", fontsize=10, weight="bold", color=DARK, parse_math=False)
    figure.supxlabel(legend, x=0.08 / size[0], ha="left", fontsize=7, color=GREY)
    return figure


def shorten(text: str, length: int) -> str:
    """The text on one line, of at most this number of characters."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
