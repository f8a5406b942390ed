"""The figure of `armlet limits`: largest values and headroom by layer, before and after limits."""

from collections.abc import Mapping, Sequence
from math import log2, nan

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from armlet.attachment.sites import GATE, PRODUCT, UP
from armlet.bounds.extremes import RESIDUAL
from armlet.bounds.limits_rows import LayerHeadroom, LimitSet
from armlet.presentation.style import COLOURS, GREY, NotebookFigure, style

QUANTITY_COLOURS = {GATE: "#E69F00", UP: "#009E73", PRODUCT: "#333333", RESIDUAL: "#CC79A7"}


def draw_limits(
    rows: Sequence[LayerHeadroom],
    sets: Mapping[str, LimitSet],
    format: str,
    maximum: float,
    bound: float,
) -> Figure:
    """Draws the largest values of each layer, and below them the product's headroom without and with limits.

    sets: by label; maximum: the format's bound on a value; bound: this over the headroom that was asked for.
    """
    with style():
        figure = NotebookFigure(figsize=(7.2, 4.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        _draw_values(upper, rows)
        _draw_headroom(lower, rows, sets, maximum)
        lower.axhline(log2(maximum / bound), color=GREY, lw=0.6, ls=":", zorder=0.5)
        lower.set(xlabel="layer", ylabel=f"headroom in {format} (bits)")
        lower.set_title("product; dotted: the headroom asked for", fontsize=7)
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        return figure


def _draw_values(axes: Axes, rows: Sequence[LayerHeadroom]) -> None:
    layers = [row.layer for row in rows]
    for name, colour in QUANTITY_COLOURS.items():
        values = [row.peaks[name].value if name in row.peaks else nan for row in rows]
        axes.plot(layers, values, color=colour, lw=0.9, marker=".", ms=3, label=name)
    axes.set(yscale="log", ylabel="largest magnitude")
    axes.set_title("held-out text, without limits", fontsize=7)
    axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.1))


def _draw_headroom(axes: Axes, rows: Sequence[LayerHeadroom], sets: Mapping[str, LimitSet], maximum: float) -> None:
    layers = [row.layer for row in rows]
    lines = {"without limits": {row.layer: row.peaks[PRODUCT].value for row in rows}}
    lines |= {label: dict(chosen.largest) for label, chosen in sets.items()}
    colours = ("#333333", COLOURS["Inward"], COLOURS["Outward"])
    for (label, largest), colour, marker in zip(lines.items(), colours, "os^", strict=False):
        bits = [log2(maximum / largest[layer]) if largest[layer] else nan for layer in layers]
        axes.plot(layers, bits, color=colour, lw=0.8, marker=marker, ms=3, label=label)
    axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.1))
