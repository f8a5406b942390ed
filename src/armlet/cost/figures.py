"""The figure of `armlet bench`: ARM's function compared with other operations, and a model with and without ARM."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure, SubFigure

from armlet.cost.findings import FunctionRow, Measurements, ModelTimes
from armlet.cost.measure import PLACEMENTS
from armlet.presentation.style import COLOURS, GREY, OTHER_COLOUR, NotebookFigure, style

TIMED_OPERATIONS = {
    "literal": ("the literal algorithm", GREY),
    "arm": ("ARM", COLOURS["Outward"]),
    "silu": ("only SiLU", COLOURS["Inward"]),
    "copy": ("a copy", OTHER_COLOUR),
}


def draw_cost(cost: Measurements) -> Figure:
    """Draws the times by shape in a panel for each dtype, and the ratios of the model; at least one of the two."""
    dtypes = list(dict.fromkeys(row.dtype for row in cost.function))
    widths = [*([len(dtypes)] if dtypes else []), *([1] if cost.model else [])]
    with style():
        figure = NotebookFigure(figsize=(1.2 + 3.2 * sum(widths), 3.4), layout="constrained")
        parts = list(figure.subfigures(1, len(widths), squeeze=False, width_ratios=widths).flat)
        figure.suptitle(f"{cost.policy.name}, backend {cost.backend}\n{cost.processor}", fontsize=8)
        if dtypes:
            _draw_function(parts[0], cost.function, dtypes)
        if cost.model:
            _draw_model(parts[-1], cost.model)
    return figure


def _draw_function(figure: SubFigure, function: Sequence[FunctionRow], dtypes: Sequence[str]) -> None:
    for axes, dtype in zip(figure.subplots(1, len(dtypes), squeeze=False).flat, dtypes, strict=True):
        rows = [row for row in function if row.dtype == dtype]
        centres = np.arange(len(rows))
        for index, (name, (label, colour)) in enumerate(TIMED_OPERATIONS.items()):
            milliseconds = [1e3 * row.seconds[name] for row in rows]
            axes.bar(centres + 0.2 * (index - 1.5), milliseconds, 0.2, color=colour, label=label)
        axes.set(yscale="log", xlabel="tokens × width", ylabel="milliseconds (median)", title=dtype)
        axes.set_xticks(centres, [f"{row.tokens:,} × {row.width:,}" for row in rows], rotation=60, ha="right")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(TIMED_OPERATIONS), frameon=False)


def _draw_model(figure: SubFigure, model: ModelTimes) -> None:
    axes = figure.subplots()
    centres = np.arange(len(model.work))
    for index, (label, colour) in enumerate(zip(PLACEMENTS, (COLOURS["Outward"], OTHER_COLOUR), strict=True)):
        ratios = [row.ratios[f"{label} / without"] for row in model.work]
        medians = np.array([ratio.median for ratio in ratios])
        spread = np.abs(np.array([ratio.quartiles for ratio in ratios]).T - medians)
        look = {"yerr": spread, "error_kw": {"lw": 0.7}, "color": colour, "label": label}
        bars = axes.bar(centres + 0.3 * (index - 0.5), medians, 0.3, **look)
        axes.bar_label(bars, fmt="%.3f", padding=2, fontsize=6)
    axes.axhline(1, color=GREY, linewidth=0.7, linestyle="--")
    axes.set(xlabel="work", ylabel="time with ARM / without")
    axes.set_xticks(centres, [f"{row.work}, {row.tokens:,} tokens" for row in model.work])
    axes.set_title(f"{model.name.rstrip('/').split('/')[-1]}, {model.dtype}")
    figure.legend(loc="outside lower center", ncols=len(PLACEMENTS), frameon=False)
