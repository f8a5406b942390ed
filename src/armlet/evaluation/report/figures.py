"""Two figures of an evaluation: differences from the baseline as a forest plot, and the map of a search."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator

from armlet.evaluation.report.tables import interval, points
from armlet.presentation.style import COLOURS, GREY, OTHER_COLOUR, style
from armlet.redistribution.errors import ArgumentError

Row = Mapping[str, Any]

INK = "#222222"
BAND = "#ececec"
FONT = 8.5
"""Points: 11 px in a page where the figure is 700 px wide."""

WIDTH, NAMES, NUMBERS = 7.2, 2.55, 1.55
LINE, HEADING, AXIS, TOP, BOTTOM = 0.17, 0.34, 0.42, 0.42, 0.34
"""Inches. A row is as many lines high as its name, and a half."""

LETTERS = 36
"""Of a name, on each of at most `LINES` lines."""
LINES = 3

CELL, CELL_HEIGHT, SIDE, MARGIN, HEAD, FOOT = 0.98, 0.5, 0.85, 0.1, 0.5, 0.68
"""Inches, of the map."""
NARROWEST = 5.4
"""Inches: the line below the map fits."""


def draw_forest(rows: Sequence[Row], *, title: str) -> Figure:
    """Each comparison's difference and interval, in a panel for each task, each with its own axis.

    Args:
        rows: comparisons of `results.findings`, at least one, with "task" as the panel's heading. Those that are judged
            come first and bold, the others grey below them.
        title: above all.

    Returns:
        A figure that belongs to no pyplot state, as high as its rows need.

    Raises:
        ArgumentError: no rows.
    """
    if not rows:
        raise ArgumentError("draw_forest: there is no comparison to draw")
    tasks = {task: sorted((r for r in rows if r["task"] == task), key=_rank) for task in _in_order(rows, "task")}
    heights = [sum(_height(row) for row in own) for own in tasks.values()]
    height = TOP + BOTTOM + sum(heights) + len(tasks) * (HEADING + AXIS)
    with style():
        figure = Figure(figsize=(WIDTH, height))
        _text(figure, 0.08, height - 0.24, _cut(title, 84), fontsize=10, weight="bold", color=INK)
        top = height - TOP
        for (task, own), tall in zip(tasks.items(), heights, strict=True):
            _text(figure, 0.08, top - 0.2, _cut(task, 92), fontsize=FONT, weight="bold", color=INK)
            _panel(_axes(figure, (NAMES, top - HEADING - tall, WIDTH - NAMES - NUMBERS, tall)), own)
            top -= HEADING + tall + AXIS
        explained = "lines: 95 % intervals; grey bands: a true difference of this size could have gone unseen"
        _text(figure, 0.08, 0.12, explained, fontsize=7, color=GREY)
        return figure


def draw_map(rows: Sequence[Row], x: str, y: str, *, title: str) -> Figure:
    """The difference over two settings: a cell for each pair that was run, outlined where its interval excludes 0.

    Args:
        rows: each with both settings, "difference", "low" and "high" as fractions (None: infinite) and "items".
        x: a setting's key, across. Numbers are put in order, other values stand behind them as they come.
        y: another's, upwards.
        title: above all.

    Returns:
        A figure that belongs to no pyplot state, as large as its cells need.

    Raises:
        ArgumentError: no rows, or two of one cell.
    """
    across, along = (_values(rows, key) for key in (x, y))
    cells = {(across.index(row[x]), along.index(row[y])): row for row in rows}
    if not rows or len(cells) < len(rows):
        raise ArgumentError(f"draw_map: {len(rows)} rows for {len(cells)} pairs of {x} and {y}; give one for each pair")
    cell = max(CELL, min(1.6, (WIDTH - SIDE - MARGIN) / len(across)))
    box = (SIDE, FOOT, cell * len(across), CELL_HEIGHT * len(along))
    with style():
        figure = Figure(figsize=(max(NARROWEST, SIDE + box[2] + MARGIN), FOOT + box[3] + HEAD))
        wide, tall = figure.get_size_inches()
        _text(figure, 0.08, tall - 0.26, _cut(title, int(13 * wide)), fontsize=9, weight="bold")
        _text(figure, 0.08, 0.1, _caption(rows), fontsize=7, color=GREY)
        axes = _axes(figure, box)
        _cells(axes, cells)
        _map_axes(axes, (x, across), (y, along))
        return figure


# Forest plot


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    """The rows from the top down, in units of inches, so that a row with a long name is higher."""
    total = sum(_height(row) for row in rows)
    low, high = _limits(rows)
    axes.set(xlim=(low, high), ylim=(0, total), yticks=[])
    axes.set_xlabel("difference from the baseline in percentage points", fontsize=7.5)
    axes.spines["left"].set_visible(False)
    axes.tick_params(labelsize=7.5)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.axvline(0, color=INK, lw=0.8, zorder=2)
    top = total
    for row in rows:
        _draw_row(axes, row, top, (low, high))
        top -= _height(row)


def _draw_row(axes: Axes, row: Row, top: float, edges: tuple[float, float]) -> None:
    middle, tall = top - _height(row) / 2, _height(row)
    unseen = row["smallest_detectable"]
    start, end = edges if unseen is None else (-100 * unseen, 100 * unseen)
    axes.add_patch(Rectangle((start, middle - 0.42 * tall), end - start, 0.84 * tall, color=BAND, lw=0, zorder=0))
    colour, strong = _colour(row), row["judged"]
    low, high = (edge if bound is None else 100 * bound for bound, edge in zip(row["interval"], edges, strict=True))
    axes.plot([low, high], [middle, middle], color=colour, lw=1.8 if strong else 1.1, zorder=3, solid_capstyle="butt")
    for bound, edge, marker in zip(row["interval"], edges, "<>", strict=True):
        if bound is None:
            axes.plot(edge, middle, marker=marker, color=colour, ms=6, mew=0, clip_on=False, zorder=3)
    look: dict[str, Any] = {"marker": "s", "ms": 5.5} if strong else {"marker": "o", "ms": 4.5, "mfc": "white"}
    axes.plot(100 * row["difference"], middle, color=colour, zorder=4, **look)
    words: dict[str, Any] = {"va": "center", "parse_math": False, "linespacing": 1.1}
    words |= {"color": INK, "weight": "bold"} if strong else {"color": GREY}
    where = axes.get_yaxis_transform()
    axes.text(-(NAMES - 0.08) / _inches(), middle, _name(row), transform=where, fontsize=_size(row), **words)
    numbers = f"{points(row['difference'])} {interval(*row['interval'])}"
    axes.text(1 + (NUMBERS - 0.06) / _inches(), middle, numbers, transform=where, ha="right", fontsize=8, **words)


def _inches() -> float:
    return WIDTH - NAMES - NUMBERS


def _rank(row: Row) -> bool:
    return not row["judged"]


def _name(row: Row) -> str:
    return "\n".join(textwrap.wrap(_cut(row["condition"], LETTERS * LINES), LETTERS)[:LINES])


def _size(row: Row) -> float:
    """Points in which the widest line of the name fits before the panel."""
    weight = FontProperties(weight="bold" if row["judged"] else "normal")
    lines = [line.replace("$", "S") for line in _name(row).splitlines()]  # measured as letters, not as a formula
    widths = [TextPath((0, 0), line, FONT, weight).get_extents().width / 72 for line in lines]
    return FONT * min(1.0, (NAMES - 0.2) / max(widths, default=1.0))


def _height(row: Row) -> float:
    return LINE * (_name(row).count("\n") + 1.5)


def _limits(rows: Sequence[Row]) -> tuple[float, float]:
    """Everything finite is inside, and zero is."""
    ends = [0.0, *(bound for row in rows for bound in (*row["interval"], row["difference"]) if bound is not None)]
    unseen = [row["smallest_detectable"] or 0.0 for row in rows]
    low, high = 100 * min(*ends, -max(unseen)), 100 * max(*ends, *unseen)
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def _colour(row: Row) -> str:
    if not row["judged"]:
        return GREY
    first = row["condition"].split(maxsplit=1)[0].rstrip(",").capitalize()
    return OTHER_COLOUR if first == "Filler" else COLOURS.get(first, INK)


# Map


def _values(rows: Sequence[Row], key: str) -> list[Any]:
    found = _in_order(rows, key)
    numbers = [each for each in found if isinstance(each, int | float)]
    return sorted(numbers) + [each for each in found if not isinstance(each, int | float)]


def _cells(axes: Axes, cells: Mapping[tuple[int, int], Row]) -> None:
    largest = max(abs(row["difference"]) for row in cells.values()) or 1.0
    colours = ScalarMappable(Normalize(-largest, largest), "RdBu")
    counted = len({row["items"] for row in cells.values()}) > 1
    for (column, line), row in cells.items():
        _cell(axes, column, line, row, to_rgb(colours.to_rgba(row["difference"])), counted)  # type: ignore[arg-type]


def _cell(axes: Axes, column: int, line: int, row: Row, colour: tuple[float, float, float], counted: bool) -> None:
    axes.add_patch(Rectangle((column, line), 1, 1, facecolor=colour, edgecolor="white", lw=1))
    low, high = row["low"], row["high"]
    if (low is not None and low > 0) or (high is not None and high < 0):
        axes.add_patch(Rectangle((column + 0.03, line + 0.05), 0.94, 0.9, fill=False, edgecolor=INK, lw=1.8, zorder=3))
    red, green, blue = colour
    words: dict[str, Any] = {"ha": "center", "color": INK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"}
    words |= {"parse_math": False, "zorder": 4}
    axes.text(column + 0.5, line + 0.52, points(row["difference"]), fontsize=8, weight="bold", va="bottom", **words)
    below = interval(low, high) + (f"\n{row['items']:,} items" if counted else "")
    axes.text(column + 0.5, line + 0.46, below, fontsize=6.5, va="top", linespacing=1.0, **words)


def _map_axes(axes: Axes, across: tuple[str, list[Any]], along: tuple[str, list[Any]]) -> None:
    axes.set(xlim=(0, len(across[1])), ylim=(0, len(along[1])))
    for axis, (name, values) in ((axes.xaxis, across), (axes.yaxis, along)):
        axis.set_ticks([at + 0.5 for at in range(len(values))], [_value(each) for each in values], parse_math=False)
        axis.set_label_text(_cut(name, 40), parse_math=False, fontsize=8)
        axis.set_tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else _cut(str(value), 14)


def _caption(rows: Sequence[Row]) -> str:
    counts = sorted({row["items"] for row in rows})
    items = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return f"{items} items each; points, 95 % intervals; blue above the baseline, red below; outlined: excludes 0"


# Both


def _axes(figure: Figure, box: tuple[float, float, float, float]) -> Axes:
    """Axes at left, bottom, width, height in inches."""
    wide, tall = figure.get_size_inches()
    left, bottom, width, height = box
    return figure.add_axes((left / wide, bottom / tall, width / wide, height / tall))


def _text(figure: Figure, x: float, y: float, text: str, **look: Any) -> None:
    wide, tall = figure.get_size_inches()
    # A dollar sign in a name is no formula.
    figure.text(x / wide, y / tall, text, parse_math=False, **look)


def _in_order(rows: Sequence[Row], key: str) -> list[Any]:
    found: list[Any] = []  # no dict: a value may be a list
    for row in rows:
        found += [] if row[key] in found else [row[key]]
    return found


def _cut(text: str, letters: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= letters else f"{text[: letters - 1]}…"
