"""The forest plot of a study: every treatment in every cell, and what the source claims."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from armlet.evaluation.report.findings import NoiseFloor
from armlet.evaluation.search.figures import DARK, FIGURE_INCHES, shorten, titled_figure
from armlet.evaluation.studies.rows import StudyRow
from armlet.presentation.numbers import difference_text, points
from armlet.presentation.style import GREY, VERDICT_COLOURS, style
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Bounds = tuple[float | None, float | None]

ROW_INCHES, MARGIN_INCHES = 0.19, 1.3
HEADING_ROWS, BELOW_HEADING = 1.9, 1.0  # the height of a cell's heading, and how far below it the first row is
FLOOR_COLOUR = "#999999"
VERDICT_MARKERS = {"helped": "^", "hurt": "v"}
NAME_CHARACTERS, HEADING_CHARACTERS = 34, 80


def draw_study(title: str, rows: Sequence[StudyRow], floors: Mapping[str, NoiseFloor]) -> Figure:
    """Draws a row for each treatment, and for the noise floor, under a heading for each cell.

    Raises ArgumentError if there are no rows.
    """
    if not rows:
        raise ArgumentError("figure: nothing was compared")
    cells = [(name, [*group]) for name, group in groupby(rows, lambda row: row.cell)]
    height = len(rows) + len(floors) + HEADING_ROWS * len(cells)
    with style():
        size = (FIGURE_INCHES, height * ROW_INCHES + MARGIN_INCHES)
        figure = titled_figure(size, shorten(title, 84), _legend(rows))
        axes = figure.subplots()
        axes.set(ylim=(-height, 0), yticks=[], xlabel="difference from the baseline in percentage points")
        axes.spines["left"].set_visible(False)
        axes.axvline(0, color=DARK, lw=0.8)
        y = 0.0
        for name, group in cells:
            y -= HEADING_ROWS
            _write(axes, shorten(name, HEADING_CHARACTERS), y + BELOW_HEADING, DARK, weight="bold")
            for row in group:
                _draw_treatment(axes, row, y)
                y -= 1
            if name in floors:
                floor = floors[name]
                _draw_interval(axes, floor.difference, floor.interval, y, FLOOR_COLOUR)
                _write(axes, "the baseline against itself", y, FLOOR_COLOUR)
                _write(axes, difference_text(floor.difference, *floor.interval), y, FLOOR_COLOUR, "left")
                y -= 1
        return figure


def _legend(rows: Sequence[StudyRow]) -> str:
    """The meaning of the marks that are drawn."""
    shown = any(row.pair.verdict.split()[0] in VERDICT_MARKERS for row in rows)
    marks = ["triangles: helped or hurt, after Holm's correction"] * shown
    marks += ["diamonds: claims of the source"] * any(row.claim for row in rows)
    return "; ".join(["lines: 95 % intervals", *marks])


def _draw_treatment(axes: "Axes", row: StudyRow, y: float) -> None:
    difference, claim = row.pair.comparison.difference, row.claim
    verdict = row.pair.verdict.split()[0]
    colour, marker = VERDICT_COLOURS.get(verdict, DARK), VERDICT_MARKERS.get(verdict, "s")
    _draw_interval(axes, difference, row.pair.interval, y, colour, marker)
    if claim:
        axes.plot(claim.difference, y, "D", mfc="none", color=DARK, ms=4.5)
    claimed = f"   claimed {points(claim.difference / 100)}" if claim else ""
    _write(axes, shorten(row.treatment, NAME_CHARACTERS), y, GREY)
    _write(axes, difference_text(difference, *row.pair.interval) + claimed, y, GREY, "left")


def _draw_interval(axes: "Axes", difference: float, interval: Bounds, y: float, colour: str, marker: str = "s") -> None:
    """Draws an interval, of which an infinite bound is not drawn, and its difference."""
    low, high = (100 * (difference if bound is None else bound) for bound in interval)
    axes.plot([low, high], [y, y], color=colour, lw=1.4, solid_capstyle="butt")
    axes.plot(100 * difference, y, marker, color=colour, ms=4 if marker == "s" else 5.5)


def _write(axes: "Axes", text: str, y: float, colour: str, align: str = "right", weight: str = "normal") -> None:
    """Writes a name to the left of the panel, or numbers to its right."""
    font: Any = {"color": colour, "weight": weight, "ha": align, "va": "center", "parse_math": False, "fontsize": 7.5}
    x, shift = (0, -8) if align == "right" else (1, 8)
    axes.annotate(text, (x, y), (shift, 0), axes.get_yaxis_transform(), "offset points", **font)
