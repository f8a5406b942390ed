"""The interactive figure of one policy: all values and those near zero, before and after, and a′ as a function of a."""

from math import log10
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from armlet.inspection.distributions import Distribution
from armlet.presentation.page import plotly_objects
from armlet.presentation.plots import INK, Domain, PlotTrace, plot_axis, plot_layout, range_traces
from armlet.presentation.style import COLOURS, OTHER_COLOUR

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HEIGHT = 460  # pixels
BARS, TRANSFER_FILL = "rgba(128,128,128,0.45)", "rgba(128,128,128,0.28)"
UPPER, LOWER = (0.58, 1.0), (0.0, 0.4)  # the rows, as shares of the height
LOWEST_COUNT, EMPTY_BIN = 0.5, 0.1  # where a logarithmic axis starts; where it draws a count of 0: below the axis
HEADROOM = 1.15  # highest value of an axis over the highest bin

TRACES = ("before", "low", "high", "middle", "after")
"""The traces of each row, in the order in which they are drawn: those of the upper row, then those of the lower."""
LEGEND_ORDER = ("before", "after", "middle", "high", "low")
"""The traces in the legend; "low" is part of the band of "high"."""

Heights = NDArray[np.floating] | NDArray[np.integer]


def distribution_figure(
    views: tuple[Distribution, Distribution],
    policy_name: str,
    *,
    quantity: str = "activated gate",
    logarithmic: bool = True,
) -> "Figure":
    """Draws all values in the upper row, as counts, and those near zero in the lower row, as a density.

    Grey bars are the values before, the coloured outline those after. The dashed line, on the axis to the right, is the
    median of a′ of the values in each bin of a, in a band from its 5 % to its 95 % quantile. The paper is transparent,
    and the page around the figure sets the colours of its text (`page.figure_style`).

    views: from `distributions`; policy_name: such as "Outward", which determines the colour; quantity: what the values
    are, for the axes; logarithmic: whether the counts are.

    Raises ArgumentError if plotly is not installed.
    """
    upper, lower = views
    first = _row(upper, policy_name, count_heights(upper, logarithmic), "%{customdata:,} values")
    second = _row(lower, policy_name, density_heights(views), "density %{y:.3~g}")
    for trace in second:
        trace |= {"xaxis": "x2", "yaxis": "y4" if trace["yaxis"] == "y2" else "y3", "showlegend": False}
    return plotly_objects().Figure([*first, *second], _layout(views, quantity, logarithmic))


def count_heights(view: Distribution, logarithmic: bool) -> tuple[Heights, Heights]:
    """The heights of the upper row before and after, `[bins]` each: the counts, or below a logarithmic axis if 0."""
    pair = view.before, view.after
    return tuple(np.where(counts > 0, counts, EMPTY_BIN) for counts in pair) if logarithmic else pair  # type: ignore[return-value]


def density_heights(views: tuple[Distribution, Distribution]) -> tuple[Heights, Heights]:
    """The heights of the lower row before and after, `[bins]` each: shares of all values per unit."""
    scale = density_scale(views)
    return views[1].before * scale, views[1].after * scale


def density_scale(views: tuple[Distribution, Distribution]) -> float:
    """The density of one value in a bin of the lower row."""
    everything, near_zero = views
    return float(1 / (everything.before.sum() * (near_zero.edges[1] - near_zero.edges[0])))


def _row(view: Distribution, policy_name: str, heights: tuple[Heights, Heights], height: str) -> list[PlotTrace]:
    """The `TRACES` of one row, with the axes of the upper row; height: how a label says a bin's height."""
    x, width = (view.edges[:-1] + view.edges[1:]) / 2, float(view.edges[1] - view.edges[0])
    before = {"type": "bar", "width": width, "marker": {"color": BARS, "line": {"width": 0}}}
    line = {"type": "scatter", "mode": "lines", "connectgaps": True}
    low, high = range_traces(INK, TRANSFER_FILL, "band")
    outline = {"color": COLOURS.get(policy_name, OTHER_COLOUR), "width": 2, "shape": "hvh"}
    dashes = {"color": INK, "width": 1.5, "dash": "4px,3px"}
    looks = {
        "before": before | {"name": "before", "y": heights[0], "customdata": view.before},
        "low": low | {"y": view.low},
        "high": high | {"name": "where 90 % of values go", "y": view.high},
        "middle": line | {"name": "where values go", "y": view.middle, "line": dashes},
        "after": line | {"name": f"after {policy_name}", "y": heights[1], "customdata": view.after, "line": outline},
    }
    labels = {"before": f"before: {height}", "after": f"after: {height}"}
    labels |= {"low": "5 % of a′ are below %{y:.3~g}", "high": "95 % of a′ are below %{y:.3~g}"}
    labels["middle"] = "median of a′: %{y:.3~g}"
    return [
        {"x": x, "yaxis": "y" if kind in ("before", "after") else "y2", "legendgroup": kind}
        | looks[kind]
        | {"legendrank": LEGEND_ORDER.index(kind), "hovertemplate": f"{labels[kind]}<extra></extra>"}
        for kind in TRACES
    ]


def _layout(views: tuple[Distribution, Distribution], quantity: str, logarithmic: bool) -> PlotTrace:
    upper, lower = views
    top = HEADROOM * float(max(upper.before.max(), upper.after.max(), 1))
    count_axis = {"type": "log", "range": [log10(LOWEST_COUNT), 1.1 * log10(10 * top)], "dtick": 1, "tickformat": "~s"}
    linear_axis = {"type": "linear", "range": [0, top], "tickformat": "~s"}
    peak = HEADROOM * float(max(heights.max() for heights in density_heights(views)))
    zoomed = (lower.edges[0], lower.edges[-1]) != (upper.edges[0], upper.edges[-1])
    return plot_layout(
        HEIGHT,
        xaxis=_x_axis(upper, f"a: {quantity}, all values", "y"),
        xaxis2=_x_axis(lower, f"a: {quantity}, {'near zero' if zoomed else 'all values'}", "y3"),
        yaxis=plot_axis("values per bin", UPPER, "x", **(count_axis if logarithmic else linear_axis)),
        yaxis2=_transfer_axis(upper, UPPER, "x", "y"),
        yaxis3=plot_axis("density", LOWER, "x2", range=[0, peak or 1.0]),
        yaxis4=_transfer_axis(lower, LOWER, "x2", "y3"),
    )


def _x_axis(view: Distribution, title: str, anchor: str) -> PlotTrace:
    place = {"range": [view.edges[0], view.edges[-1]], "hoverformat": ".3~g", "nticks": 7}
    return plot_axis(title, (0.0, 1.0), anchor, **place)


def _transfer_axis(view: Distribution, domain: Domain, anchor: str, below: str) -> PlotTrace:
    """The axis of a′: the range of a, and all of the band."""
    known = view.before > 0
    low = min(view.edges[0], view.low[known].min(initial=np.inf))
    high = max(view.edges[-1], view.high[known].max(initial=-np.inf))
    place = {"overlaying": below, "side": "right", "showgrid": False, "tickmode": "auto", "range": [low, high]}
    return plot_axis("goes to (a′)", domain, anchor, **place)
