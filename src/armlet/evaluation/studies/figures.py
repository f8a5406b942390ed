"""The forest plot of a study: every treatment in every cell, and what the source claims."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from armlet.evaluation.search.figures import DARK, FIGURE_INCHES, shorten, titled_figure
from armlet.presentation.numbers import difference_text, points
from armlet.presentation.style import GREY, style
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from armlet.evaluation.studies.result import StudyRow

ROW_INCHES, FRAME_INCHES = 0.19, 1.3
CLAIM_COLOUR = "#D55E00"
VERDICT_COLOURS = {"helped": "#009E73", "hurt": "#CC79A7"}
NAME_CHARACTERS, HEADING_CHARACTERS = 34, 80


def draw_study(title: str, rows: Sequence["StudyRow"]) -> Figure:
    """Draws a row for each treatment under a heading for each cell; raises ArgumentError if there are no rows."""
    if not rows:
        raise ArgumentError("figure: nothing was compared")
    cells = [(key, [*group]) for key, group in groupby(rows, lambda row: (row.model, row.task, row.seed))]
    height = len(rows) + 1.4 * len(cells)
    with style():
        legend = "lines: 95 % intervals; green: helped, pink: hurt (Holm's correction); diamonds: claims of the source"
        figure = titled_figure((FIGURE_INCHES, height * ROW_INCHES + FRAME_INCHES), shorten(title, 84), legend)
        axes = figure.subplots()
        axes.set(ylim=(-height, 0), yticks=[], xlabel="difference from the baseline in percentage points")
        axes.spines["left"].set_visible(False)
        axes.axvline(0, color=DARK, lw=0.8)
        y = 0.0
        for (model, task, seed), group in cells:
            y -= 1.4
            heading = shorten(f"{model}, {task}, seed {seed}", HEADING_CHARACTERS)
            axes.annotate(
                heading, (0, y + 0.5), (-8, 0), axes.get_yaxis_transform(), "offset points", **_font(DARK, "bold")
            )
            for row in group:
                _draw_row(axes, row, y)
                y -= 1
        return figure


def _draw_row(axes: "Axes", row: "StudyRow", y: float) -> None:
    difference, claim = row.pair.comparison.difference, row.claim
    low, high = (100 * bound if bound is not None else 100 * difference for bound in row.pair.interval)
    colour = VERDICT_COLOURS.get(row.pair.verdict.split(",")[0], DARK)
    axes.plot([low, high], [y, y], color=colour, lw=1.4, solid_capstyle="butt")
    axes.plot(100 * difference, y, "s", color=colour, ms=4)
    if claim:
        axes.plot(claim.difference, y, "D", mfc="none", color=CLAIM_COLOUR, ms=4.5)
    claimed = f"   claimed {points(claim.difference / 100)}" if claim else ""
    numbers = difference_text(difference, *row.pair.interval) + claimed
    transform = axes.get_yaxis_transform()
    name = shorten(row.treatment, NAME_CHARACTERS)
    axes.annotate(name, (0, y), (-8, 0), transform, "offset points", **_font(GREY, "normal"))
    axes.annotate(numbers, (1, y), (8, 0), transform, "offset points", **(_font(GREY, "normal") | {"ha": "left"}))


def _font(colour: str, weight: str) -> dict[str, Any]:
    return {"color": colour, "weight": weight, "ha": "right", "va": "center", "parse_math": False, "fontsize": 7.5}
