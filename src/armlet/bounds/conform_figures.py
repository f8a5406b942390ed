"""The figure of `armlet conform`: the largest values of each part."""

from collections.abc import Sequence
from math import nan

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from armlet.attachment.sites import GATE, PRODUCT, UP
from armlet.bounds.conform_checks import PartCheck
from armlet.bounds.conform_natural import LINEAR_GATE
from armlet.bounds.conform_parts import DENSE
from armlet.bounds.conform_probe import NO
from armlet.presentation.style import GREY, NotebookFigure, style

COLOURS = {LINEAR_GATE: "#E69F00", GATE: "#CC79A7", UP: "#009E73", PRODUCT: "#333333"}
MISSING_COLOUR = "#D55E00"


def draw_conformity(parts: Sequence[PartCheck]) -> Figure:
    """Draws the largest values by layer.

    A panel for each kind of part: lines for the limits, and crosses where a clamp is not applied.
    """
    kinds = list(dict.fromkeys(part.kind for part in parts))
    with style():
        figure = NotebookFigure(figsize=(7.2, 1 + 2.2 * len(kinds)), layout="constrained")
        panels = figure.subplots(len(kinds), 1, squeeze=False, sharex=True).flat
        for axes, kind in zip(panels, kinds, strict=True):
            _draw(axes, [part for part in parts if part.kind == kind])
            axes.set(yscale="log", ylabel="largest magnitude")
            axes.set_title(kind if kind == DENSE else f"{kind} experts", fontsize=7, loc="left")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend(frameon=False, ncols=6, fontsize=6, loc="lower right", bbox_to_anchor=(1, 1))
        panels[-1].set_xlabel("layer")
    return figure


def _draw(axes: Axes, parts: Sequence[PartCheck]) -> None:
    layers = [part.layer for part in parts]
    for name, colour in COLOURS.items():
        if any(name in part.largest for part in parts):
            values = [part.largest.get(name, nan) for part in parts]
            axes.plot(layers, values, color=colour, lw=0.8, marker=".", ms=4, label=name)
    if any(part.clamp for part in parts):
        limits = [part.clamp.limit if part.clamp else nan for part in parts]
        axes.plot(layers, limits, color=GREY, lw=0.8, ls="--", marker="_", label="limit")
    missing = [(part.layer, part.clamp.limit) for part in parts if part.clamp and part.status == NO]
    if missing:
        axes.plot(*zip(*missing, strict=True), "x", color=MISSING_COLOUR, ms=6, label="not applied")
