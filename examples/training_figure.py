"""Draws the training runs: loss, gradients and outliers over the learning rate, without ARM and with it."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from training_results import Outcomes
from training_run import PRECISIONS

from armlet.presentation.style import COLOURS, GREY, style

SIDES = {False: ("without", GREY), True: ("with Inward", COLOURS["Inward"])}
PANELS = {
    "held-out loss, nats a byte": lambda row: row["loss"],
    "gradient norm, 0.99 quantile": lambda row: row["gradient"] and row["gradient"]["0.99"],
    "max / median of the gate": lambda row: row["outliers"] and row["outliers"]["gate max / median"],
    "max / median of what down reads": lambda row: row["outliers"] and row["outliers"]["down max / median"],
}


def draw(outcomes: Outcomes, bound: float) -> Figure:
    """Draws a column for each precision, a row for each measure, a dot for each run, and lines through the medians.

    Args:
        outcomes: outcomes of all runs.
        bound: loss above which a model has not trained.
    """
    with style():
        figure = Figure(figsize=(7.5, 7.5), layout="constrained")
        grid: Any = figure.subplots(len(PANELS), len(PRECISIONS), sharex=True, sharey="row")
        for axes, (label, measure) in zip(grid, PANELS.items(), strict=True):
            for axis, precision in zip(axes, PRECISIONS, strict=True):
                for arm in SIDES:
                    _side(axis, outcomes, precision, arm, measure)
            axes[0].set_ylabel(label)
            axes[0].set_yscale("linear" if label.startswith("held-out") else "log")
        for axis, precision in zip(grid[0], PRECISIONS, strict=True):
            axis.axhline(bound, color=GREY, linewidth=0.7, linestyle="--")
            axis.set_title(precision)
        grid[0][0].text(0.02, bound, " byte frequencies only", va="bottom", transform=grid[0][0].get_yaxis_transform())
        lowest = min((row["loss"] for row in outcomes.values() if row["loss"] is not None), default=bound)
        grid[0][0].set_ylim(lowest - 0.1 * bound, 1.3 * bound)
        grid[0][0].legend(frameon=False)
        rates = sorted({run.rate for run in outcomes})
        for axis in grid[-1]:
            axis.set_xlabel("learning rate")
            axis.set_xticks(rates, [f"{rate:g}" for rate in rates], rotation=60)
    return figure


def _side(axis: Axes, outcomes: Outcomes, precision: str, arm: bool, measure: Any) -> None:
    """Draws one side; broken runs have no dot, and a median needs at least half of the seeds."""
    label, colour = SIDES[arm]
    runs = [run for run in outcomes if run.precision == precision and run.arm == arm]
    rates = sorted({run.rate for run in runs})
    shift = 1.05 if arm else 1 / 1.05
    middles = []
    for rate in rates:
        values = [measure(outcomes[run]) for run in runs if run.rate == rate]
        finite = [value for value in values if value is not None]
        axis.plot([rate * shift] * len(finite), finite, ".", color=colour, markersize=3, alpha=0.5)
        middles.append(np.median(finite) if 2 * len(finite) >= len(values) else np.nan)
    axis.plot([rate * shift for rate in rates], middles, color=colour, label=label)
    axis.set_xscale("log", base=2)
    axis.minorticks_off()
