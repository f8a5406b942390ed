"""The figure of `armlet quantize`: perplexity by method with intervals, and the distribution in each layer."""

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from armlet.precision.choice import COMPANDED, CONTRACT, EXPANDED, ROUNDED
from armlet.precision.codes import REFERENCES
from armlet.precision.findings import LayerRow, MethodRow, rows_at
from armlet.precision.tables import STATIC, short_perplexity
from armlet.presentation.style import COLOURS, GREY, style

METHOD_COLOURS = {ROUNDED: "#333333", "Hadamard rotation": "#E69F00", COMPANDED: COLOURS["Inward"], CONTRACT: "#009E73"}
"""The methods whose layers are shown."""

CODE_COLOURS = ("#333333", "#CC79A7")  # of `REFERENCES`

PANELS: dict[str, tuple[str, Literal["linear", "log", "symlog"], float]] = {
    "sqnr": ("SQNR (dB)", "linear", 1),
    "max_over_median": ("max / median of what is coded", "log", 1),
    "kurtosis": ("excess kurtosis of what is coded", "symlog", 1),
    "saturated": ("saturated share, static range", "symlog", 1e-6),
}
"""Each measure's title, scale, and the value below which a symlog scale is linear."""


def draw_precision(rows: Sequence[MethodRow], layers: Sequence[LayerRow]) -> Figure:
    """Perplexities at the two reference codes above; the damage of each layer and four measures of it below."""
    with style():
        figure = Figure(figsize=(7.2, 5.6), layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.1), squeeze=False).flat
        _draw_methods(upper, rows)
        _draw_layers(lower, rows, layers)
        return figure


def _draw_methods(figure: SubFigure, rows: Sequence[MethodRow]) -> None:
    full = rows[0].perplexity
    by_code = {code: methods for code in REFERENCES if (methods := rows_at(rows, code))}
    signs = f"dotted: full precision, {short_perplexity(full)}; hollow: no integer product"
    figure.suptitle(f"Held-out perplexity by method (log), with 95 % intervals\n{signs}", fontsize=8)
    panels = figure.subplots(1, max(len(by_code), 1), squeeze=False).flat
    for axes, (code, methods) in zip(panels, by_code.items(), strict=False):
        _draw_perplexities(axes, sorted(methods.values(), key=lambda row: row.perplexity, reverse=True), full)
        axes.set_title(str(code), fontsize=8)


def _draw_perplexities(axes: Axes, rows: Sequence[MethodRow], full: float) -> None:
    """Each method's perplexity, best at the top, with the interval of its ratio to full precision's."""
    left, right = _draw_limits(axes, rows, full)
    for at, row in enumerate(rows):
        colour, ratio = METHOD_COLOURS.get(row.method, GREY), row.against_full
        if ratio.low is not None and ratio.high is not None:
            low, high = full * ratio.low, full * ratio.high
            axes.plot([max(low, left), min(high, right)], [at, at], color=colour, lw=1)
            axes.plot([left] * (low < left), [at] * (low < left), marker="<", ms=4, color=colour)
            axes.plot([right] * (high > right), [at] * (high > right), marker=">", ms=4, color=colour)
        face = "white" if row.method in EXPANDED else colour
        axes.plot(row.perplexity, at, marker="o", ms=4, color=colour, markerfacecolor=face)
    axes.set_yticks(range(len(rows)), [f"{row.method}  {short_perplexity(row.perplexity)}" for row in rows])
    axes.axvline(full, color=GREY, lw=0.6, ls=":", zorder=0.5)


def _draw_limits(axes: Axes, rows: Sequence[MethodRow], full: float) -> tuple[float, float]:
    """Sets a log scale that shows every perplexity, and intervals as far as they do not dwarf these."""
    values = [full, *(row.perplexity for row in rows)]
    bounds = [full * bound for row in rows for bound in (row.against_full.low, row.against_full.high) if bound]
    left, right = max(0.9 * min(values), min(values + bounds)), min(1.3 * max(values), max(values + bounds))
    margin = (right / left) ** 0.04 + 1e-6  # where rounding changes nothing, all values are equal
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
    for code, colour in zip(REFERENCES, CODE_COLOURS, strict=True):
        rises, label = [max(row.damage[code] - 1, 0) for row in layers], f"{code}, one layer rounded"
        axes.plot([row.layer for row in layers], rises, color=colour, lw=0.9, marker=".", ms=3, label=label)
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.set_ylim(bottom=0)
    axes.set_title("rise of perplexity, one layer rounded (≤ 0 at 0)", fontsize=7)


def _draw_measure(axes: Axes, rows: Sequence[MethodRow], name: str) -> None:
    """One measure by layer: of each method's values at int8 per tensor, or at a static range for saturation."""
    title, scale, linear = PANELS[name]
    for method, row in rows_at(rows, STATIC if name == "saturated" else REFERENCES[0]).items():
        if colour := METHOD_COLOURS.get(method):
            points = [(layer, value) for layer, at in row.outcome.layers.items() if (value := at.get(name)) is not None]
            dashes = "--" if method == CONTRACT else "-"  # most layers are not contracted and coincide
            axes.plot(*zip(*points, strict=True), linestyle=dashes, color=colour, lw=0.9, label=method)
    axes.set_yscale(scale, **({"linthresh": linear} if scale == "symlog" else {}))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title, fontsize=7)
