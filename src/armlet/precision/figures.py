"""The figure of `armlet quantize`: perplexity by method with intervals, and the distribution in each layer."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from armlet.precision.choice import COMPANDED, CONTRACT, EXPANDED, ROUNDED
from armlet.precision.rows import LayerRow, MethodRow, rows_with
from armlet.precision.schemes import REFERENCES
from armlet.precision.tables import STATIC, short_perplexity
from armlet.presentation.style import COLOURS, GREY, NotebookFigure, style

METHOD_COLOURS = {ROUNDED: "#333333", "Hadamard rotation": "#E69F00", COMPANDED: COLOURS["Inward"], CONTRACT: "#009E73"}
"""Methods with their own colour; only these are drawn by layer."""

SCHEME_COLOURS = ("#333333", "#CC79A7")  # colours of `REFERENCES`

Scale: TypeAlias = Literal["linear", "log", "symlog"]

PANELS: dict[str, tuple[str, str, Scale, float]] = {
    "sqnr": ("error of rounding", "SQNR (dB)", "linear", 1),
    "max_over_median": ("quantised values", "max / median", "log", 1),
    "kurtosis": ("quantised values", "excess kurtosis", "symlog", 1),
    "saturated": ("quantised values, static range", "saturated share", "symlog", 1e-6),
}
"""Title, label and scale of each measure, and the value below which a symlog scale is linear."""


def draw_precision(rows: Sequence[MethodRow], layers: Sequence[LayerRow]) -> Figure:
    """Draws perplexities at the two reference schemes, and below them the damage and four measures of each layer."""
    with style():
        figure = NotebookFigure(figsize=(7.2, 5.6), layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.1), squeeze=False).flat
        _draw_methods(upper, rows)
        _draw_layers(lower, rows, layers)
        return figure


def _draw_methods(figure: SubFigure, rows: Sequence[MethodRow]) -> None:
    full = rows[0].perplexity
    by_scheme = {scheme: methods for scheme in REFERENCES if (methods := rows_with(rows, scheme))}
    signs = f"dotted: full precision, {short_perplexity(full)}; hollow: no integer matmul"
    figure.suptitle(f"Held-out perplexity by method, with 95 % intervals\n{signs}", fontsize=8)
    figure.supxlabel("perplexity (log)", fontsize=7)
    figure.supylabel("method", fontsize=7)
    panels = figure.subplots(1, max(len(by_scheme), 1), squeeze=False).flat
    for axes, (scheme, methods) in zip(panels, by_scheme.items(), strict=False):
        _draw_perplexities(axes, sorted(methods.values(), key=lambda row: row.perplexity, reverse=True), full)
        axes.set_title(str(scheme), fontsize=8)


def _draw_perplexities(axes: Axes, rows: Sequence[MethodRow], full: float) -> None:
    """Draws each method's perplexity, best at the top, with the interval of its ratio to full precision's."""
    left, right = _draw_limits(axes, rows, full)
    for y, row in enumerate(rows):
        colour, ratio = METHOD_COLOURS.get(row.method, GREY), row.against_full
        if ratio.low is not None and ratio.high is not None:
            low, high = full * ratio.low, full * ratio.high
            axes.plot([max(low, left), min(high, right)], [y, y], color=colour, lw=1)
            axes.plot([left] * (low < left), [y] * (low < left), marker="<", ms=4, color=colour)
            axes.plot([right] * (high > right), [y] * (high > right), marker=">", ms=4, color=colour)
        face = "white" if row.method in EXPANDED else colour
        axes.plot(row.perplexity, y, marker="o", ms=4, color=colour, markerfacecolor=face)
    axes.set_yticks(range(len(rows)), [f"{row.method}  {short_perplexity(row.perplexity)}" for row in rows])
    axes.axvline(full, color=GREY, lw=0.6, ls=":", zorder=0.5)


def _draw_limits(axes: Axes, rows: Sequence[MethodRow], full: float) -> tuple[float, float]:
    """Sets a log scale that shows every perplexity; intervals that are much wider are cut off."""
    values = [full, *(row.perplexity for row in rows)]
    bounds = [full * bound for row in rows for bound in (row.against_full.low, row.against_full.high) if bound]
    left, right = max(0.9 * min(values), min(values + bounds)), min(1.3 * max(values), max(values + bounds))
    margin = (right / left) ** 0.04 + 1e-6  # all values are equal if rounding changes nothing
    logarithmic = LogLocator(subs=(1, 2, 3, 4, 5, 7) if right < 10 * left else (1, 3))
    axes.set(xscale="log", xlim=(left / margin, right * margin))
    axes.xaxis.set_major_locator(logarithmic if right > 2 * left else MaxNLocator(4))
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.xaxis.set_minor_formatter(NullFormatter())
    return left, right


def _draw_layers(figure: SubFigure, rows: Sequence[MethodRow], layers: Sequence[LayerRow]) -> None:
    *panels, key = figure.subplots(2, 3).flat
    _draw_damage(panels[0], layers)
    for axes, name in zip(panels[1:], PANELS, strict=True):
        _draw_measure(axes, rows, name)
    for axes in panels:
        axes.set_xlabel("layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    entries = [axes.get_legend_handles_labels() for axes in panels[:2]]
    handles, labels = ([*first, *second] for first, second in zip(*entries, strict=True))
    key.legend(handles, labels, loc="center", frameon=False)
    key.axis("off")


def _draw_damage(axes: Axes, layers: Sequence[LayerRow]) -> None:
    for scheme, colour in zip(REFERENCES, SCHEME_COLOURS, strict=True):
        rises, label = [max(row.damage[scheme] - 1, 0) for row in layers], f"{scheme}, one layer rounded"
        axes.plot([row.layer for row in layers], rises, color=colour, lw=0.9, marker=".", ms=3, label=label)
    _set_scale(axes, "symlog", 1e-3)
    axes.set_ylim(bottom=0)
    axes.set_title("one layer rounded (≤ 0 at 0)", fontsize=7)
    axes.set_ylabel("rise of perplexity")


def _draw_measure(axes: Axes, rows: Sequence[MethodRow], name: str) -> None:
    """Draws a measure of each method by layer, at int8 per tensor, or at a static range for saturation."""
    title, label, scale, linear = PANELS[name]
    for method, row in rows_with(rows, STATIC if name == "saturated" else REFERENCES[0]).items():
        if colour := METHOD_COLOURS.get(method):
            points = [(n, value) for n, stats in row.outcome.layers.items() if (value := stats.get(name)) is not None]
            dashes = "--" if method == CONTRACT else "-"  # most layers are not contracted and coincide
            axes.plot(*zip(*points, strict=True), linestyle=dashes, color=colour, lw=0.9, label=method)
    _set_scale(axes, scale, linear)
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title, fontsize=7)
    axes.set_ylabel(label)


def _set_scale(axes: Axes, scale: Scale, linear: float) -> None:
    """Sets the scale of what is drawn; a symlog scale without a value above `linear` is linear, and has its ticks."""
    if scale != "symlog":
        axes.set_yscale(scale)
    elif axes.dataLim.y1 > linear:
        axes.set_yscale(scale, linthresh=linear)
