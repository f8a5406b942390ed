"""The figure of `armlet quantize`: perplexity by method with intervals, and what the layers' values are like."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from armlet.precision.choice import COMPANDED, CONTRACT, EXPANDED, REFERENCES, ROUNDED
from armlet.precision.tables import STATIC, short
from armlet.presentation.style import COLOURS, GREY, style

Row = dict[str, Any]

LINES = {ROUNDED: "#333333", "Hadamard rotation": "#E69F00", COMPANDED: COLOURS["Inward"], CONTRACT: "#009E73"}
"""The methods whose layers are shown."""

PANELS = {
    "sqnr": ("SQNR (dB)", "linear"),
    "max_over_median": ("max / median of what is coded", "log"),
    "kurtosis": ("excess kurtosis of what is coded", "symlog"),
    "saturated": ("saturated share, static range", "symlog"),
}


def draw(rows: Sequence[Row], layers: Sequence[Row]) -> Figure:
    """Perplexities at the two reference codes above; the damage of each layer and four measures of it below.

    Args:
        rows: of every code and method, the unrounded model first.
        layers: the damage of each layer alone.
    """
    codes = [str(code) for code in REFERENCES if any(row["code"] == str(code) for row in rows)]
    with style():
        figure = Figure(figsize=(7.2, 5.6), layout="constrained")
        halves: Any = figure.subfigures(2, 1, height_ratios=(1, 1.1))
        upper, lower = halves
        upper.suptitle(
            "Held-out perplexity by method (log), with 95 % intervals; hollow: no integer product", fontsize=9
        )
        for axes, code in zip(upper.subplots(1, 2, squeeze=False).flat, codes, strict=False):
            _perplexities(axes, [row for row in rows if row["code"] == code], rows[0]["perplexity"], code)
        panels = list(lower.subplots(2, 3).flat)
        _damage(panels[0], layers)
        for axes, name in zip(panels[1:5], PANELS, strict=True):
            _lines(axes, rows, name)
        handles, labels = panels[1].get_legend_handles_labels()
        panels[5].legend(handles, labels, loc="center", frameon=False, title="by method; round to nearest is before")
        panels[5].axis("off")
        return figure


def _perplexities(axes: Axes, rows: Sequence[Row], base: float, code: str) -> None:
    """Perplexity of each method, best at the top, with the interval of its ratio to full precision."""
    ordered = sorted(rows, key=lambda row: row["perplexity"], reverse=True)
    values = [base, *(row["perplexity"] for row in ordered)]
    bounds = [base * row[side] for row in ordered for side in ("low", "high") if row[side] is not None]
    left = max(0.9 * min(values), min(values + bounds))
    right = min(1.3 * max(values), max(values + bounds))
    margin = (right / left) ** 0.04 + 1e-6  # where rounding changes nothing, all is one point
    for at, row in enumerate(ordered):
        colour, expanded = LINES.get(row["method"], GREY), row["method"] in EXPANDED
        if row["low"] is not None:
            low, high = base * row["low"], base * row["high"]
            axes.plot([max(low, left), min(high, right)], [at, at], color=colour, lw=1)
            for edge, arrow, cut in ((left, "<", low < left), (right, ">", high > right)):
                if cut:
                    axes.plot(edge, at, marker=arrow, ms=4, color=colour)
        axes.plot(row["perplexity"], at, marker="o", ms=4, color=colour, mfc="white" if expanded else colour)
        where = (row["perplexity"], at)
        text = axes.annotate(short(where[0]), where, (0, 3), textcoords="offset points", fontsize=5, ha="center")
        text.set(bbox={"color": "white", "pad": 0.2}, zorder=1, in_layout=False)  # above the dotted line, below points
    axes.set_yticks(range(len(ordered)), [row["method"] for row in ordered])
    axes.axvline(base, color=GREY, lw=0.6, ls=":", zorder=0.5)
    axes.set_xscale("log")
    axes.set_title(f"{code}; dotted: full precision, {short(base)}", fontsize=8)
    axes.set_xlim(left / margin, right * margin)
    logarithmic = LogLocator(subs=(1, 2, 3, 4, 5, 7) if right < 10 * left else (1, 3))
    axes.xaxis.set_major_locator(logarithmic if right > 2 * left else MaxNLocator(4))
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _damage(axes: Axes, layers: Sequence[Row]) -> None:
    for code, colour in zip(REFERENCES, ("#333333", "#CC79A7"), strict=True):
        values = [max(row[f"damage {code}"] - 1, 0) for row in layers]
        axes.plot([row["layer"] for row in layers], values, color=colour, lw=0.9, marker=".", ms=3, label=str(code))
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.set_title("rise of perplexity, one layer rounded (≤ 0 at 0)", fontsize=7)
    axes.set_ylim(0, 30 * max(1e-3, axes.get_ylim()[1]))  # room for the legend
    axes.legend(frameon=False, fontsize=6, loc="upper center", ncols=2)
    axes.set_xlabel("layer")


def _lines(axes: Axes, rows: Sequence[Row], name: str) -> None:
    """One measure by layer: of each method's values at int8 per tensor, a static range where saturation is asked."""
    code = STATIC if name == "saturated" else str(REFERENCES[0])
    title, scale = PANELS[name]
    for row in rows:
        if row["code"] == code and row["method"] in LINES:
            points = [(int(layer), found[name]) for layer, found in row["layers"].items() if found[name] is not None]
            if points:
                dashed = "--" if row["method"] == CONTRACT else "-"  # it is what it was in most layers
                axes.plot(*zip(*points, strict=True), dashed, color=LINES[row["method"]], lw=0.9, label=row["method"])
    axes.set_yscale(scale, **({"linthresh": 1e-6 if name == "saturated" else 1} if scale == "symlog" else {}))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title, fontsize=7)
    axes.set_xlabel("layer")
