"""The look of interactive figures: transparent, without a title, in the font and colours of the page around them."""

from collections.abc import Iterable
from typing import Any

FONT = {"family": "system-ui, sans-serif", "size": 12, "color": "#757575"}  # the page's style replaces the colour
CLEAR, GRID = "rgba(0,0,0,0)", "rgba(128,128,128,0.25)"
INK = "#444444"  # of a line in the page's ink, likewise replaced

PlotTrace = dict[str, Any]
Domain = tuple[float, float]


def plot_layout(height: int, **others: object) -> PlotTrace:
    """The layout of a figure; height: in pixels; others: its axes, and what differs."""
    return {
        "height": height,
        "margin": {"l": 54, "r": 50, "t": 60, "b": 44},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "template": {},
        "font": FONT,
        "uirevision": "armlet",
        "bargap": 0,
        "hovermode": "x unified",
        "dragmode": False,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": CLEAR, "font": {"size": 12}},
    } | others


def plot_axis(title: str, domain: Domain, anchor: str, **others: object) -> PlotTrace:
    """An axis; domain: its part of the figure, from 0 to 1; anchor: the axis that it meets; others: what differs."""
    text = {"text": title, "font": {"size": 12}, "standoff": 4}
    lines = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "fixedrange": True, "nticks": 5}
    return {"title": text, "domain": [*domain], "anchor": anchor, **lines, **others}


def range_traces(colour: str, fill: str, group: str) -> tuple[PlotTrace, PlotTrace]:
    """Two invisible lines with the area between them filled: the lower end of a range, and its upper end."""
    line = {"type": "scatter", "mode": "lines", "connectgaps": True, "line": {"width": 0, "color": colour}}
    both = line | {"legendgroup": group}
    return both | {"showlegend": False}, both | {"fill": "tonexty", "fillcolor": fill}


def rounded(values: Iterable[float], digits: int = 4) -> list[float | int | None]:
    """Values for a page's data: with so many significant digits, whole numbers without a point, None for NaN."""
    return [_rounded(float(value), digits) for value in values]


def _rounded(value: float, digits: int) -> float | int | None:
    if value != value:
        return None
    return int(value) if value.is_integer() else float(f"{value:.{digits}g}")


def plain_figure(figure: Any) -> dict[str, Any]:
    """A plotly figure as values of JSON, with its arrays as short numbers."""
    content: dict[str, Any] = figure.to_plotly_json()
    for plain, trace in zip(content["data"], figure.data, strict=True):
        plain |= {name: rounded(trace[name], 6) for name in ("x", "y", "customdata") if trace[name] is not None}
    return {"data": content["data"], "layout": content["layout"]}
