"""The figures of `armlet explain`: attention, its affine map, counts of filler, layers, classes of tokens."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from armlet.mechanism.classes import CLASSES
from armlet.mechanism.explanation import AS_IT_IS, Row
from armlet.mechanism.measure import QUANTITIES, fit_affine
from armlet.presentation.style import COLOURS, GREY, style
from armlet.prompts.fillers import RANDOM_SENTENCE, Filler, Prompt

WITHOUT, FILLED, CONTROL = "#0072B2", "#D55E00", "#7f7f7f"
OTHER_FILLERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SHADE = "#fbe3d6"

NAMES = {
    "mass": "attention mass\non own tokens",
    "lambda": "λ",
    "shift": "‖Σ‖ / ‖A‖",
    "shift_consistency": "consistency\nof the shift",
    "r2": "R²",
    "r2_heads": "R², a λ for\neach head",
    "gate_variance": "variance\nof the gate",
    "near_zero": "near-zero\nshare",
    "l1": "L1",
    "l2": "L2",
    "gini": "Gini",
}
COUNTED = ("mass", "lambda", "r2", "shift", "gate_variance", "near_zero", "l1", "gini")
"""The quantities that `draw_counts` shows."""

LONGEST_LABELLED = 90
"""Tokens beyond which their words would not be readable below an axis."""


def draw_attention(prompt: Prompt, filler: Filler, received: tuple[Tensor, Tensor], *, layer: int) -> Figure:
    """What attention each token receives from those behind it: without the filler, with it, and the filler's own.

    Args:
        prompt: without the filler.
        filler: its tokens.
        received: `View.received` of one layer, without and with it.
        layer: from 0.
    """
    plain, filled = (seen.numpy() for seen in received)
    inside = slice(prompt.at, prompt.at + filler.count)
    with style():
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharey=True)
        figure.suptitle(
            f"Attention that a token receives from the prompt's own later tokens, layer {layer}, mean over heads",
            fontsize=9,
        )
        upper.plot(plain, color=WITHOUT, lw=1, marker=".", ms=3, label="without filler")
        label = f"with {_spelt(filler)}"
        upper.plot(np.delete(filled, inside), color=FILLED, lw=1, marker=".", ms=3, label=label)
        upper.axvline(prompt.at - 0.5, color=GREY, lw=0.6, ls=":", label="where the filler stands")
        lower.axvspan(inside.start - 0.5, inside.stop - 0.5, color=SHADE, lw=0, label="filler")
        lower.plot(filled, color=FILLED, lw=1, marker=".", ms=3)
        lower.set_xlabel("token, the filler's among them")
        _words(upper, prompt.words)
        for axes in (upper, lower):
            axes.set(yscale="log", ylabel="attention (log)")
            axes.margins(x=0.01)
            axes.legend(frameon=False, ncols=3)
        return figure


def draw_affine(filler: Filler, attention: tuple[Tensor, Tensor], *, layer: int, heads: int) -> Figure:
    """A prompt's attention outputs without and with the filler, in their first two principal components.

    Args:
        filler: its tokens.
        attention: `View.attention` of one layer, without and with it.
        layer: from 0.
        heads: of the layer.
    """
    before, after = attention
    fit = fit_affine(before, after, heads)
    predicted = fit.scale * before + fit.shift
    stacked = np.concatenate([before.numpy(), after.numpy()])
    centre = stacked.mean(axis=0)
    _, sizes, axes_of = np.linalg.svd(stacked - centre, full_matrices=False)
    share = sizes[:2] ** 2 / (sizes**2).sum()
    a, b, c = ((values.numpy() - centre) @ axes_of[:2].T for values in (before, after, predicted))
    with style():
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.quiver(*a.T, *(b - a).T, angles="xy", scale_units="xy", scale=1, color="#bbbbbb", width=0.0025, zorder=1)
        axes.scatter(*a.T, s=14, color=WITHOUT, label="A, without filler", zorder=2)
        axes.scatter(*b.T, s=14, color=FILLED, label=f"A′, with {_spelt(filler)}", zorder=3)
        axes.scatter(*c.T, s=20, facecolors="none", edgecolors="black", lw=0.5, label="λ·A + Σ", zorder=4)
        axes.set(
            xlabel=f"first component ({share[0]:.0%} of the variance)", ylabel=f"second component ({share[1]:.0%})"
        )
        numbers = f"λ = {fit.scale:.2f}, ‖Σ‖/‖A‖ = {fit.relative:.2f}, R² = {fit.r2:.2f}"
        axes.set_title(f"Attention output of one prompt's tokens, layer {layer}\n{numbers}", fontsize=8)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        return figure


def draw_counts(rows: Sequence[Row], *, layer: int) -> Figure:
    """Quantities of one layer against the number of filler tokens, each filler and the control with its interval."""
    kinds = list(dict.fromkeys(row["filler"] for row in rows))
    with style():
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        figure.suptitle(f"What filler does in layer {layer}, by its number of tokens (95 % intervals)", fontsize=9)
        panels = figure.subplots(2, 4).flat
        for axes, quantity in zip(panels, COUNTED, strict=True):
            for kind in kinds:
                own = [row for row in rows if (row["layer"], row["quantity"], row["filler"]) == (layer, quantity, kind)]
                _line(axes, own, _colour(kind, kinds))
            axes.set_title(NAMES[quantity].replace("\n", " "), fontsize=7)
            axes.set_xlim(0, 1.05 * max(row["count"] for row in rows))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        handles = [Line2D([], [], color=_colour(kind, kinds), label=_named(kind)) for kind in kinds]
        figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
        return figure


def draw_layers(rows: Sequence[Row]) -> Figure:
    """Layers × quantities at the highest count of each filler and of the control: the value, and how far it moved.

    A colour is the change against the largest one of its quantity; a change whose interval holds 0 has none.

    Args:
        rows: of every layer.
    """
    layers = sorted({row["layer"] for row in rows})
    count = max(row["count"] for row in rows)
    kinds = list(dict.fromkeys(row["filler"] for row in rows))
    cells = {(r["filler"], r["layer"], r["quantity"]): r for r in rows if r["count"] == count}
    with style():
        figure = Figure(figsize=(3.6 * len(kinds), 1.5 + 0.17 * len(layers)), layout="constrained")
        figure.suptitle(
            "Values with filler. Red: it rises, blue: it falls, pale: by less than elsewhere in the column,\n"
            "grey: the interval of the change holds 0, or there is nothing to compare with",
            fontsize=8,
        )
        for axes, kind in zip(figure.subplots(1, len(kinds), sharey=True), kinds, strict=True):
            shades = [[_shade(cells[kind, layer, name], rows) for name in QUANTITIES] for layer in layers]
            axes.imshow(shades, cmap="RdBu_r", norm=Normalize(-1.4, 1.4), aspect="auto")
            for (at, column), _ in np.ndenumerate(shades):
                number = cells[kind, layers[at], list(QUANTITIES)[column]]["with"]
                axes.text(column, at, _short(number), fontsize=4.5, ha="center", va="center")
            axes.set_title(f"{count} tokens, {_named(kind)}", fontsize=8)
            axes.set_xticks(range(len(QUANTITIES)), [NAMES[name] for name in QUANTITIES], rotation=90, fontsize=6)
            axes.set_yticks(range(len(layers)), [str(layer) for layer in layers], fontsize=6)
            axes.tick_params(length=0)
        figure.supylabel("layer", fontsize=7)
        return figure


def draw_classes(rows: Sequence[Row], treatments: Sequence[str], *, layer: int) -> Figure:
    """The near-zero share of each class of tokens, as it is and after each treatment, with its interval.

    Args:
        rows: of `class_rows`.
        treatments: those shown, from left to right.
        layer: from 0.
    """
    own = {(row["class"], row["treatment"]): row for row in rows if row["layer"] == layer}
    names = [name for name in CLASSES if (name, AS_IT_IS) in own]
    shown = [AS_IT_IS, *treatments]
    width = 0.8 / len(shown)
    with style():
        figure = Figure(figsize=(5.6, 3.2), layout="constrained")
        axes = figure.subplots()
        for at, treatment in enumerate(shown):
            cells = [own[name, treatment] for name in names]
            middle = np.arange(len(names)) + (at + 0.5) * width - 0.4
            heights = [cell["share"] for cell in cells]
            axes.bar(middle, heights, width, color=_treatment_colour(treatment), label=_literal(treatment))
            sure = [(x, c["share_low"], c["share_high"]) for x, c in zip(middle, cells, strict=True) if c["share_low"]]
            axes.vlines(*zip(*sure, strict=True), color="black", lw=0.6) if sure else None
        axes.set_xticks(range(len(names)), [_class_label(name, own[name, AS_IT_IS]) for name in names])
        axes.set(ylabel="near-zero share", title=f"Near-zero share by class of token, layer {layer} (95 % intervals)")
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        return figure


def _treatment_colour(treatment: str) -> str:
    if treatment.endswith(RANDOM_SENTENCE):
        return "#d0d0d0"
    return "#9a9a9a" if treatment == AS_IT_IS else COLOURS.get(treatment.partition(",")[0], "#E69F00")


def _class_label(name: str, row: Row) -> str:
    label = f"{name}\n{row['tokens']} tokens"
    if name == "other" or row["low"] is None:
        return label
    return f"{label}\nagainst other {row['change']:+.4f}\n[{row['low']:+.4f}, {row['high']:+.4f}]"


def _line(axes: Axes, rows: Sequence[Row], colour: str) -> None:
    """One quantity of one filler by count, from the baseline on where there is one."""
    base = rows[0]["without"]
    points = [(0, base, base, base)] if base is not None else []
    points += [
        (r["count"], r["with"], r["low"] + (base or 0), r["high"] + (base or 0)) for r in rows if r["low"] is not None
    ]
    if points:
        counts, values, low, high = zip(*points, strict=True)
        axes.plot(counts, values, color=colour, lw=1, marker=".", ms=4)
        axes.fill_between(counts, low, high, color=colour, alpha=0.2, lw=0)


def _shade(row: Row, rows: Sequence[Row]) -> float:
    """The change against the largest of this quantity in the whole table; 0 where nothing is shown."""
    if row["change"] is None or row["low"] is None or row["low"] <= 0 <= row["high"]:
        return 0.0
    return row["change"] / max(abs(other["change"]) for other in rows if other["quantity"] == row["quantity"])


def _short(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def _words(axes: Axes, words: Sequence[str]) -> None:
    if len(words) <= LONGEST_LABELLED:
        shown = [repr(word)[1:-1] if not word.isprintable() else word.strip() or "␣" for word in words]
        axes.set_xticks(range(len(words)), shown, rotation=90, fontsize=5, parse_math=False)


def _spelt(filler: Filler) -> str:
    return f"{filler.count} tokens of {_named(filler.kind)}"


def _named(kind: str) -> str:
    return "a random sentence" if kind == RANDOM_SENTENCE else _literal(f"filler {kind!r}")


def _literal(text: str) -> str:
    """A dollar sign is no formula."""
    return text.replace("$", r"\$")


def _colour(kind: str, kinds: Sequence[str]) -> str:
    if kind == RANDOM_SENTENCE:
        return CONTROL
    return (FILLED, *OTHER_FILLERS)[kinds.index(kind) % (1 + len(OTHER_FILLERS))]
