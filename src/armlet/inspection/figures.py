"""The figure of `armlet inspect`: the layer with ARM, and the values at its site before and after each policy."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from armlet.attachment.sites import GATE
from armlet.inspection.distributions import BINS, Window, full_range, near_zero_window
from armlet.inspection.records import SITE_NAMES, Panel, numbered
from armlet.layer.diagram import DIAGRAM_INK, draw_layer
from armlet.presentation.style import COLOURS, GREY, OTHER_COLOUR, NotebookFigure, style

BEFORE_FILL, GONE_FILL, ZOOM_FILL = "#d6d6d6", "#8c8c8c", "#f1f1f1"
TITLE_CHARACTERS, DETAIL_CHARACTERS = 90, 126  # per line of the title, and per line of all panels' details together
FARTHEST_SHARE = {"upper": 0.01, "lower": 0.25}
"""Share of the moved values that the arrows average over; smaller where the logarithmic count shows single values."""
MIN_MOVED_SHARE = {"upper": 0.0, "lower": 0.01}  # share of the values in view that must move for an arrow
SHORTEST_ARROW = 0.04  # share of the axis; a shorter arrow would have no visible direction


def draw_inspection(
    panels: Sequence[Panel],
    *,
    title: str,
    layer: int | None,
    activation: str = "SiLU",
    axis: Window | None = None,
    site: str = GATE,
    experts: int = 0,
    simplified: bool = False,
) -> Figure:
    """Draws the layer, and below it the values at the site before and after each policy, on shared axes.

    The upper row shows all values with logarithmic counts, which make tails visible; the lower row shows the density
    near zero, where most values are. Counts that are gone afterwards are darker. Arrows show the way of the values that
    move farthest (`flow`).

    panels: one to three, with the same `before`; layer: None for values that are of no layer; axis: the range of the
    upper row in units of the values, extended to include values outside it; experts, simplified: see `draw_layer`.
    """
    with style():
        figure = NotebookFigure(figsize=(7.2, 5.85), layout=ConstrainedLayoutEngine(wspace=0.06))
        look = {"x": 0.01, "ha": "left", "fontsize": 9, "weight": "bold", "color": DIAGRAM_INK}
        # Dollar signs in a model's name do not start a formula.
        figure.suptitle(fill(title, TITLE_CHARACTERS), parse_math=False, **look)
        top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.55, 4)).flat
        kind = {"activation": activation, "experts": experts, "simplified": simplified}
        draw_layer(top.subplots(), layer=layer, site=site, **kind)
        _draw_histograms(bottom, panels, full_range(panels, axis), SITE_NAMES[site])
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # a second layout would differ in its last bits, and so would the files
        return figure


def _draw_histograms(figure: SubFigure, panels: Sequence[Panel], full_window: Window, name: str) -> None:
    upper, lower = figure.subplots(2, len(panels), sharex="row", sharey="row", squeeze=False)
    window = near_zero_window(panels[0].before, full_window)
    _draw_panel_row(upper, panels, full_window, "upper")
    _draw_panel_row(lower, panels, window, "lower")
    _add_headings(upper, panels)
    if zoomed := window != full_window:
        for axes in upper:
            axes.axvspan(*window, color=ZOOM_FILL, lw=0, zorder=0)
    # The labels are below the middle panel or between the middle two.
    middle, x = (len(panels) - 1) // 2, 0.5 if len(panels) % 2 else 1.05
    lower_label = "near zero (the shaded range above)" if zoomed else "all values"
    upper[middle].set_xlabel(f"{name}, all values", x=x, color=DIAGRAM_INK)
    lower[middle].set_xlabel(f"{name}, {lower_label}", x=x, color=DIAGRAM_INK)
    arrow = {"lw": 0, "marker": r"$\rightarrow$", "markersize": 11, "markeredgewidth": 0}
    handles = {
        "before redistribution": Patch(color=BEFORE_FILL),
        "before, gone after": Patch(color=GONE_FILL),
        "after, in colour": Line2D([], [], lw=0.9, color=DIAGRAM_INK),
        "way of the values that move farthest": Line2D([], [], color=DIAGRAM_INK, **arrow),
    }
    figure.legend([*handles.values()], [*handles], loc="outside upper center", ncols=4, frameon=False)


def _add_headings(row: Sequence[Axes], panels: Sequence[Panel]) -> None:
    """Writes the policy, the share of values moved and the policy's settings above each panel."""
    details = [fill(panel.detail, DETAIL_CHARACTERS // len(panels)) for panel in panels]
    lines = max(detail.count("\n") for detail in details)
    names = numbered([panel.name for panel in panels])
    for axes, panel, name, detail in zip(row, panels, names, details, strict=True):
        detail += "\n" * (lines - detail.count("\n"))  # so that the names are level
        look = {"textcoords": "offset points", "va": "bottom", "parse_math": False, "fontsize": 6.5, "color": GREY}
        settings = axes.annotate(detail, (0, 1), (0, 4), xycoords="axes fraction", **look)
        above = {"xytext": (0, 3), "xycoords": ("axes fraction", settings)} | look
        axes.annotate(f"share moved {panel.moved.mean():.3g}", (1, 1), ha="right", **above)
        heading = above | {"fontsize": 8, "weight": "bold", "color": _panel_colour(panel)}
        axes.annotate(name, (0, 1), **heading)


def _panel_colour(panel: Panel) -> str:
    return COLOURS.get(panel.name, OTHER_COLOUR)


def _draw_panel_row(row: Sequence[Axes], panels: Sequence[Panel], window: Window, kind: str) -> None:
    """Draws the "upper" row, with logarithmic counts, or the "lower" row, with densities."""
    height = max(_draw_histogram(axes, panel, window, kind) for axes, panel in zip(row, panels, strict=True))
    for axes, panel in zip(row, panels, strict=True):
        _draw_arrows(axes, panel, window, kind)
    first = row[0]
    first.set_xlim(window)
    first.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if kind == "upper":
        first.set(yscale="log", ylim=(0.5, max(height, 10) ** 1.3), ylabel="values per bin (log)")
        first.yaxis.set_major_locator(LogLocator(numticks=5))
        first.yaxis.set_minor_locator(NullLocator())
    else:
        first.set(ylim=(0, height * 1.3), ylabel="density")


def _draw_histogram(axes: Axes, panel: Panel, window: Window, kind: str) -> float:
    """Draws before and after; returns the height of the highest bar."""
    width = (window[1] - window[0]) / BINS
    # One more bin on either side, out of view, so that the outline crosses the edge if values lie outside the window.
    edges = window[0] + width * np.arange(-1, BINS + 2)
    scale = 1.0 if kind == "upper" else 1 / (width * panel.before.size)
    before, after = (np.histogram(values, edges)[0] * scale for values in (panel.before, panel.after))
    # The remaining counts are drawn over the counts before, so that even a narrow gap is visible.
    axes.stairs(before, edges, fill=True, color=GONE_FILL, zorder=1)
    axes.stairs(np.minimum(before, after), edges, fill=True, color=BEFORE_FILL, zorder=2)
    filled = np.flatnonzero(after)
    if filled.size:
        # The outline starts and ends with the values, because along empty bins it would look like an axis.
        start, stop = filled[0], filled[-1] + 1
        axes.stairs(after[start:stop], edges[start : stop + 1], color=_panel_colour(panel), lw=0.9, zorder=3)
    return float(max(before.max(), after.max()))


def _draw_arrows(axes: Axes, panel: Panel, window: Window, kind: str) -> None:
    in_view = (panel.before >= window[0]) & (panel.before <= window[1])
    share = float(panel.moved[in_view].mean()) if in_view.any() else 0.0
    arrows = flow(panel, window, FARTHEST_SHARE[kind]) if share >= MIN_MOVED_SHARE[kind] else []
    look = {"arrowstyle": "-|>", "lw": 1.4, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
    look["color"] = _panel_colour(panel)
    for start, end in arrows:
        axes.annotate("", (end, 0.92), (start, 0.92), xycoords=axes.get_xaxis_transform(), arrowprops=look)
    if not arrows:
        note = f"share moved in view {share:.2g}"
        axes.text(1, 0.92, note, color=GREY, fontsize=6.5, ha="right", va="center", transform=axes.transAxes)


def flow(panel: Panel, window: Window, farthest: float = 0.25) -> list[tuple[float, float]]:
    """For each sign that visibly moves, the mean start and end, in units of the gate, of the values that move farthest.

    Uses moved values that start and end inside the window, and of these the share `farthest` with the largest
    displacement. A policy may move some values inwards and others outwards, and many hardly at all, so the mean over
    all values would not match the histogram.
    """
    low, high = window
    start, end = panel.before[panel.moved].astype(np.float64), panel.after[panel.moved].astype(np.float64)
    inside = (np.minimum(start, end) >= low) & (np.maximum(start, end) <= high)
    arrows: list[tuple[float, float]] = []
    for side in (inside & (start + end < 0), inside & (start + end >= 0)):
        if side.any():
            distance = np.abs(end - start)
            mask = side & (distance >= np.quantile(distance[side], 1 - farthest))
            arrows.append((float(start[mask].mean()), float(end[mask].mean())))
    return [(tail, head) for tail, head in arrows if abs(head - tail) >= SHORTEST_ARROW * (high - low)]
