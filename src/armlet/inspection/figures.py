"""One figure: the layer with ARM in its place, and what each policy does to the activated gate there."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from armlet.inspection import diagram
from armlet.inspection.panel import Panel, Window, flow, full_range, near_zero
from armlet.presentation.style import COLOURS, GREY, OTHER_COLOUR, style
from armlet.redistribution.errors import ArgumentError

__all__ = ["Panel", "draw_inspection"]

BEFORE_FILL = "#d6d6d6"
GONE_FILL = "#8c8c8c"
ZOOM_FILL = "#f1f1f1"
BINS = 120

# Inches.
WIDTH, HEIGHT = 7.2, 5.85
LEFT, RIGHT, GAP = 0.52, 0.12, 0.24
DIAGRAM, LEGEND, NAMES, DETAILS = 4.12, 4.03, 3.65, 3.52
UPPER, LOWER, ROW_HEIGHT, LABEL = 2.20, 0.42, 1.25, 0.33
"""Heights at which things stand above the figure's lower edge, and how far a row's label lies below the row."""

FARTHEST = {"upper": 0.01, "lower": 0.25}
"""Share of the moved values whose way an arrow shows: on logarithmic counts one sees the few that are far out."""

VISIBLE = {"upper": 0.0, "lower": 0.01}
"""Share of the values in view that must move for an arrow: on a density one does not see less."""


def draw_inspection(
    panels: Sequence[Panel],
    *,
    title: str,
    layer: int,
    activation: str = "SiLU",
    axis: Window | None = None,
) -> Figure:
    """Draw the layer, and below it the activated gate before and after each policy, on axes that all panels share.

    The upper row shows every value on a logarithmic count, where tails are visible; the lower one the density near
    zero, where the bulk is. What was there before and is gone after is darker. Arrows lead from where the values that
    move farthest were to where they went (`flow`).

    Args:
        panels: one to three, with the same `before`.
        title: one line on what the values are.
        layer: counted from 0.
        activation: "SiLU" or "GELU".
        axis: the range of the upper row in units of the gate, widened where a value lies outside: nothing is cropped.

    Returns:
        A figure of `WIDTH` × `HEIGHT` inches that belongs to no pyplot state; `presentation.style.save` writes it.

    Raises:
        ArgumentError: no panel or more than three, an unknown activation, a negative layer.
    """
    if not 1 <= len(panels) <= 3:
        raise ArgumentError(f"draw_inspection: a figure holds one to three panels, found {len(panels)}")
    with style():
        figure = Figure(figsize=(WIDTH, HEIGHT))
        size = _fitting(9, title, diagram.WIDTH)
        _text(figure, 0.1, HEIGHT - 0.2, title, fontsize=size, weight="bold", color=diagram.INK)
        layer_axes = _place(figure, (0.1, DIAGRAM, diagram.WIDTH, diagram.HEIGHT))
        diagram.draw_layer(layer_axes, layer=layer, activation=activation)
        _legend(figure)
        _headings(figure, panels)
        _histograms(figure, panels, full_range(panels, axis))
        return figure


def _place(figure: Figure, box: tuple[float, float, float, float], shared: Axes | None = None) -> Axes:
    """Axes at left, bottom, width, height in inches."""
    left, bottom, width, height = box
    place = (left / WIDTH, bottom / HEIGHT, width / WIDTH, height / HEIGHT)
    return figure.add_axes(place, sharex=shared, sharey=shared)


def _text(figure: Figure, x: float, y: float, text: str, **look: Any) -> None:
    # A dollar sign in a model's name is no formula.
    figure.text(x / WIDTH, y / HEIGHT, text, parse_math=False, **look)


def _columns(count: int) -> list[tuple[float, float]]:
    """Left edge and width of each panel in inches."""
    width = (WIDTH - LEFT - RIGHT - GAP * (count - 1)) / count
    return [(LEFT + index * (width + GAP), width) for index in range(count)]


def _colour(panel: Panel) -> str:
    return COLOURS.get(panel.name, OTHER_COLOUR)


def _legend(figure: Figure) -> None:
    ink: dict[str, Any] = {"color": diagram.INK}
    arrow: dict[str, Any] = {"marker": r"$\rightarrow$", "markersize": 11, "markeredgewidth": 0, "linewidth": 0}
    handles = [
        Patch(color=BEFORE_FILL, label="before redistribution"),
        Patch(color=GONE_FILL, label="before, gone after"),
        Line2D([], [], lw=0.9, label="after, in colour", **ink),
        Line2D([], [], label="way of the values that move farthest", **arrow, **ink),
    ]
    corner = (LEFT / WIDTH, LEGEND / HEIGHT)
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=corner, ncols=4, frameon=False, borderpad=0, borderaxespad=0
    )


def _headings(figure: Figure, panels: Sequence[Panel]) -> None:
    for panel, (left, width) in zip(panels, _columns(len(panels)), strict=True):
        _text(figure, left, NAMES, panel.name, fontsize=8, weight="bold", color=_colour(panel))
        moved = f"share moved {panel.moved.mean():.3g}"
        _text(figure, left + width, NAMES, moved, fontsize=6.5, color=GREY, ha="right")
        _text(figure, left, DETAILS, panel.detail, fontsize=_fitting(6.5, panel.detail, width), color=GREY)


def _fitting(size: float, text: str, width: float) -> float:
    """The font size, at most `size`, at which text fits into a width in inches: a letter is about 0.65 em wide."""
    return min(size, 72 * width / (0.65 * max(1, len(text))))


def _histograms(figure: Figure, panels: Sequence[Panel], everything: Window) -> None:
    window = near_zero(panels[0].before, everything)
    zooms = window != everything
    for axes in _row(figure, panels, UPPER, everything, log=True):
        if zooms:
            axes.axvspan(*window, color=ZOOM_FILL, lw=0, zorder=0)
    _row(figure, panels, LOWER, window, log=False)
    centre = (LEFT + WIDTH - RIGHT) / 2
    below = "activated gate, near zero (the shaded range above)" if zooms else "activated gate, every value"
    for bottom, label in ((UPPER, "activated gate, every value"), (LOWER, below)):
        _text(figure, centre, bottom - LABEL, label, ha="center", color=diagram.INK)


def _row(figure: Figure, panels: Sequence[Panel], bottom: float, window: Window, *, log: bool) -> list[Axes]:
    row: list[Axes] = []
    top = 0.0
    for panel, (left, width) in zip(panels, _columns(len(panels)), strict=True):
        axes = _place(figure, (left, bottom, width, ROW_HEIGHT), shared=row[0] if row else None)
        axes.tick_params(labelleft=not row)
        top = max(top, _histogram(axes, panel, window, log=log))
        _arrows(axes, panel, window, "upper" if log else "lower")
        row.append(axes)
    row[0].set_xlim(window)
    row[0].xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if log:
        row[0].set(yscale="log", ylim=(0.5, max(top, 10) ** 1.3), ylabel="values per bin (log)")
        row[0].yaxis.set_major_locator(LogLocator(numticks=5))
        row[0].yaxis.set_minor_locator(NullLocator())
    else:
        row[0].set(ylim=(0, top * 1.3), ylabel="density")
    return row


def _histogram(axes: Axes, panel: Panel, window: Window, *, log: bool) -> float:
    """Draw before and after; return the height of the highest bar."""
    width = (window[1] - window[0]) / BINS
    # A bin more on either side, out of sight: the outline leaves a window through which values pass instead of ending.
    edges = window[0] + width * np.arange(-1, BINS + 2)
    scale = 1.0 if log else 1 / (width * panel.before.size)
    before, after = (np.histogram(values, edges)[0] * scale for values in (panel.before, panel.after))
    # What stays is drawn over what was there; what is gone shows through, so that even a narrow gap catches the eye.
    axes.stairs(before, edges, fill=True, color=GONE_FILL, zorder=1)
    axes.stairs(np.minimum(before, after), edges, fill=True, color=BEFORE_FILL, zorder=2)
    held = np.flatnonzero(after)
    if held.size:
        # The outline begins and ends with the values: along empty bins it would look like an axis.
        span = slice(held[0], held[-1] + 1)
        axes.stairs(after[span], edges[span.start : span.stop + 1], color=_colour(panel), lw=0.9, zorder=3)
    return float(max(before.max(), after.max()))


def _arrows(axes: Axes, panel: Panel, window: Window, row: str) -> None:
    in_view = (panel.before >= window[0]) & (panel.before <= window[1])
    share = float(panel.moved[in_view].mean()) if in_view.any() else 0.0
    arrows = flow(panel, window, FARTHEST[row]) if share >= VISIBLE[row] else []
    look = {"arrowstyle": "-|>", "color": _colour(panel), "lw": 1.4, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
    for start, end in arrows:
        axes.annotate("", (end, 0.92), (start, 0.92), xycoords=axes.get_xaxis_transform(), arrowprops=look)
    if not arrows:
        note = f"share moved here {share:.2g}"
        axes.text(1, 0.92, note, color=GREY, fontsize=6.5, ha="right", va="center", transform=axes.transAxes)
