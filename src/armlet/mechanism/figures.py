"""The figures of `armlet explain`: attention, its affine map, filler counts, layers, and classes of tokens."""

from collections.abc import Sequence
from itertools import cycle
from math import isnan

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from armlet.mechanism.classes import CLASSES
from armlet.mechanism.layers import LayerFindings, Setup
from armlet.mechanism.measure import QUANTITIES, fit_affine
from armlet.mechanism.records import NO_TREATMENT, ClassShare, QuantityChange, treatment_of
from armlet.presentation.style import COLOURS, GREY, NotebookFigure, style
from armlet.prompts.fillers import RANDOM_SENTENCE, Filler, Prompt

WITHOUT, FILLED, CONTROL, FILLER_SHADE = "#0072B2", "#D55E00", "#7f7f7f", "#fbe3d6"
OTHER_FILLERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SPARE_COLOURS = ("#CC79A7", "#882255", "#F0E442", "#000000")  # of a second filler, or policy of one name

QUANTITY_NAMES = {
    "mass": "attention mass\non own tokens",
    "lambda": "λ",
    "shift": "‖Σ‖ / ‖A‖",
    "shift_consistency": "consistency\nof the shift",
    "r2": "R²",
    "r2_heads": "R², one λ\nper head",
    "gate_variance": "variance\nof the gate",
    "near_zero": "near-zero\nshare",
    "l1": "L1",
    "l2": "L2",
    "gini": "Gini",
}
DRAWN_QUANTITIES = ("mass", "lambda", "r2", "shift", "gate_variance", "near_zero", "l1", "gini")  # by `draw_counts`
MAX_WORDS = 90  # largest number of words that are readable below an axis


def draw_figure(
    name: str, setup: Setup, first: LayerFindings, changes: Sequence[QuantityChange], shares: Sequence[ClassShare]
) -> Figure:
    """The figure of this name; `first` has the findings of the first measured layer."""
    layer, filler = first.layer, setup.fillers[setup.example()]
    if name == "attention":
        return draw_attention(setup.prompts[0], filler, first.received, layer=layer)
    if name == "affine":
        return draw_affine(filler, first.attention, layer=layer, heads=first.heads)
    if name == "classes":
        causes = (*(other for other in setup.fillers if other.count == filler.count), *setup.policies)
        return draw_classes(shares, [*map(treatment_of, causes)], layer=layer)
    return draw_counts(changes, layer=layer) if name == "counts" else draw_layers(changes)


def draw_attention(prompt: Prompt, filler: Filler, received: tuple[Tensor, Tensor], *, layer: int) -> Figure:
    """Draws `View.received` of the prompt's tokens without and with filler; below, with the filler's tokens too."""
    without, filled = (attention.numpy() for attention in received)
    filler_slice = slice(prompt.insert_at, prompt.insert_at + filler.count)
    with style():
        figure = NotebookFigure(figsize=(7.2, 4.4), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharey=True)
        title = f"Attention that a token receives from the prompt's own later tokens, layer {layer}, mean over heads"
        figure.suptitle(title, fontsize=9)
        dots = {"lw": 1, "marker": ".", "ms": 3}
        upper.plot(without, color=WITHOUT, label="without filler", **dots)
        upper.plot(np.delete(filled, filler_slice), color=FILLED, label=f"with {_filler_name(filler)}", **dots)
        upper.axvline(prompt.insert_at - 0.5, color=GREY, lw=0.6, ls=":", label="place of the filler")
        if len(prompt.words) <= MAX_WORDS:
            words = shown_words(prompt.words)
            upper.set_xticks(range(len(words)), words, rotation=90, fontsize=5, parse_math=False)
        lower.axvspan(filler_slice.start - 0.5, filler_slice.stop - 0.5, color=FILLER_SHADE, lw=0, label="filler")
        lower.plot(filled, color=FILLED, **dots)
        upper.set_xlabel("token of the prompt")
        lower.set_xlabel("token, including the filler")
        for axes in (upper, lower):
            axes.set(yscale="log", ylabel="attention (log)")
            axes.margins(x=0.01)
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, frameon=False, ncols=3)  # above
        return figure


def shown_words(words: Sequence[str]) -> list[str]:
    """The texts of tokens, all of them visible."""
    return [repr(word)[1:-1] if not word.isprintable() else word.strip() or "␣" for word in words]


def draw_affine(filler: Filler, attention: tuple[Tensor, Tensor], *, layer: int, heads: int) -> Figure:
    """Draws `View.attention` of a prompt without and with filler, in their first two principal components."""
    before, after = attention
    fit = fit_affine(before, after, heads)
    stacked = np.concatenate([before.numpy(), after.numpy()])
    _, sizes, directions = np.linalg.svd(stacked - stacked.mean(axis=0), full_matrices=False)
    share, fitted = sizes**2 / (sizes**2).sum(), fit.scale * before + fit.shift
    a, b, c = ((values.numpy() - stacked.mean(axis=0)) @ directions[:2].T for values in (before, after, fitted))
    with style():
        figure = NotebookFigure(figsize=(4.6, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.quiver(*a.T, *(b - a).T, angles="xy", scale_units="xy", scale=1, color="#bbbbbb", width=0.0025, zorder=1)
        axes.scatter(*a.T, s=14, color=WITHOUT, label="A, without filler", zorder=2)
        axes.scatter(*b.T, s=14, color=FILLED, label=f"A′, with {_filler_name(filler)}", zorder=3)
        axes.scatter(*c.T, s=20, facecolors="none", edgecolors="black", lw=0.5, label="λ·A + Σ", zorder=4)
        axes.set_xlabel(f"first component ({share[0]:.0%} of the variance)")
        axes.set_ylabel(f"second component ({share[1]:.0%})")
        numbers = f"λ = {fit.scale:.2f}, ‖Σ‖/‖A‖ = {fit.relative:.2f}, R² = {fit.r2:.2f}"
        axes.set_title(f"Attention output of one prompt's tokens, layer {layer}\n{numbers}", fontsize=8)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        return figure


def draw_counts(changes: Sequence[QuantityChange], *, layer: int) -> Figure:
    """Draws quantities of one layer against the number of filler tokens, with intervals, by filler and control."""
    kinds, max_count = list(dict.fromkeys(change.filler for change in changes)), max(change.count for change in changes)
    colours = dict(zip(kinds, cycle((FILLED, *OTHER_FILLERS)), strict=False)) | {RANDOM_SENTENCE: CONTROL}
    with style():
        figure = NotebookFigure(figsize=(7.2, 3.6), layout="constrained")
        figure.suptitle(f"Effect of filler in layer {layer} by number of tokens (95 % intervals)", fontsize=9)
        for axes, quantity in zip(figure.subplots(2, 4).flat, DRAWN_QUANTITIES, strict=True):
            selected = [change for change in changes if (change.layer, change.quantity) == (layer, quantity)]
            for kind in kinds:
                _draw_line(axes, [change for change in selected if change.filler == kind], colours[kind])
            axes.set_ylabel(QUANTITY_NAMES[quantity])
            axes.set_xlabel("filler tokens")
            axes.set_xlim(0, 1.05 * max_count)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        handles = [Line2D([], [], color=colours[kind], label=_kind_name(kind)) for kind in kinds]
        figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
        return figure


def draw_layers(changes: Sequence[QuantityChange]) -> Figure:
    """Draws a table of layers × quantities at the highest count of each filler and of the control.

    Cells show values. Colours show changes relative to the quantity's largest, unless the interval contains 0.
    """
    kinds = list(dict.fromkeys(change.filler for change in changes))
    count, rows = max(change.count for change in changes), len({change.layer for change in changes})
    with style():
        figure = NotebookFigure(figsize=(3.6 * len(kinds), 1.5 + 0.17 * rows), layout="constrained")
        figure.suptitle(
            "Values with filler. Red: increase, blue: decrease, pale: smaller than others in the column,\n"
            "grey: the interval of the change contains 0, or there is none",
            fontsize=8,
        )
        for axes, kind in zip(figure.subplots(1, len(kinds), sharey=True), kinds, strict=True):
            _draw_cells(axes, [c for c in changes if (c.filler, c.count) == (kind, count)], changes)
            axes.set_title(f"{count} tokens, {_kind_name(kind)}", fontsize=8)
        figure.supxlabel("quantity", fontsize=7)
        figure.supylabel("layer", fontsize=7)
        return figure


def _draw_cells(axes: Axes, cells: Sequence[QuantityChange], changes: Sequence[QuantityChange]) -> None:
    """Draws the cells of one filler, layer by layer, in the order of `QUANTITIES`."""
    width = len(QUANTITIES)
    shades = np.reshape([shade(cell, changes) for cell in cells], (-1, width))
    axes.imshow(shades, cmap="RdBu_r", norm=Normalize(-1.4, 1.4), aspect="auto")
    for index, cell in enumerate(cells):
        axes.text(index % width, index // width, cell_text(cell), fontsize=4.5, ha="center", va="center")
    axes.set_xticks(range(width), [QUANTITY_NAMES[name] for name in QUANTITIES], rotation=90, fontsize=6)
    axes.set_yticks(range(len(shades)), [str(cell.layer) for cell in cells[::width]], fontsize=6)
    axes.tick_params(length=0)


def cell_text(cell: QuantityChange) -> str:
    """The value with filler in few characters."""
    return "-" if isnan(cell.filled) else format(cell.filled, ".0f" if abs(cell.filled) >= 1000 else ".3g")


def shade(cell: QuantityChange, changes: Sequence[QuantityChange]) -> float:
    """The change divided by the largest change of this quantity in the table; 0 unless its interval excludes 0."""
    if isnan(cell.change) or not (cell.low > 0 or cell.high < 0):
        return 0.0
    return cell.change / np.nanmax([abs(change.change) for change in changes if change.quantity == cell.quantity])


def _draw_line(axes: Axes, changes: Sequence[QuantityChange], colour: str) -> None:
    """Draws one quantity of one filler by count, starting at the baseline if there is one; intervals as a band."""
    if points := count_points(changes):
        counts, values, low, high = zip(*points, strict=True)
        axes.plot(counts, values, color=colour, lw=1, marker=".", ms=4)
        axes.fill_between(counts, low, high, color=colour, alpha=0.2, lw=0)
        axes.vlines(counts, low, high, color=colour, lw=0.6)  # a band of a single count would be invisible


def count_points(changes: Sequence[QuantityChange]) -> list[tuple[int, float, float, float]]:
    """Count, value, and interval's ends for one quantity of one filler; the baseline first, if there is one."""
    without = changes[0].without
    base = 0.0 if isnan(without) else without
    points = [] if isnan(without) else [(0, without, without, without)]
    return points + [(c.count, c.filled, c.low + base, c.high + base) for c in changes if not isnan(c.filled)]


def draw_classes(shares: Sequence[ClassShare], treatments: Sequence[str], *, layer: int) -> Figure:
    """Draws the near-zero share of each class of tokens with intervals, untreated and after each treatment."""
    cells = {(share.name, share.treatment): share for share in shares if share.layer == layer}
    names = [name for name in CLASSES if (name, NO_TREATMENT) in cells]
    width = 0.8 / (1 + len(treatments))
    with style():
        figure = NotebookFigure(figsize=(5.6, 3.2), layout="constrained")
        axes = figure.subplots()
        for index, (treatment, colour) in enumerate(_treatment_colours([NO_TREATMENT, *treatments]).items()):
            middle = np.arange(len(names)) + (index + 0.5) * width - 0.4
            bars = [cells[name, treatment] for name in names]
            heights, low, high = zip(*((bar.share, bar.share_low, bar.share_high) for bar in bars), strict=True)
            axes.bar(middle, heights, width, color=colour, label=_escaped(treatment))
            axes.vlines(middle, low, high, color="black", lw=0.6)
        axes.set_xticks(range(len(names)), [_class_label(cells[name, NO_TREATMENT]) for name in names])
        axes.set(xlabel="class of token", ylabel="near-zero share")
        axes.set(title=f"Near-zero share by class of token, layer {layer} (95 % intervals)")
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        return figure


def _treatment_colours(treatments: Sequence[str]) -> dict[str, str]:
    """A colour for each treatment; a spare one where another treatment already has it."""
    colours: dict[str, str] = {}
    spare = cycle(SPARE_COLOURS)
    for treatment in treatments:
        colour = _treatment_colour(treatment)
        colours[treatment] = next(spare) if colour in colours.values() else colour
    return colours


def _treatment_colour(treatment: str) -> str:
    if treatment.endswith(RANDOM_SENTENCE):
        return "#d0d0d0"
    return "#9a9a9a" if treatment == NO_TREATMENT else COLOURS.get(treatment.partition(",")[0], "#E69F00")


def _class_label(share: ClassShare) -> str:
    label = f"{share.name}\n{share.tokens} tokens"
    if share.name == "other" or isnan(share.low):
        return label
    return f"{label}\nagainst other {share.change:+.4f}\n[{share.low:+.4f}, {share.high:+.4f}]"


def _filler_name(filler: Filler) -> str:
    return f"{filler.count} tokens of {_kind_name(filler.kind)}"


def _kind_name(kind: str) -> str:
    return _escaped(kind_name(kind))


def kind_name(kind: str) -> str:
    """A kind of filler in titles."""
    return "a random sentence" if kind == RANDOM_SENTENCE else f"filler {kind!r}"


def _escaped(text: str) -> str:
    """Escapes dollar signs, which would start formulas."""
    return text.replace("$", r"\$")
