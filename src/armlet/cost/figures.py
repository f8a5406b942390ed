"""What `armlet bench` found, as one figure: ARM alone against its yardsticks, and a model with and without it."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from armlet.presentation.style import COLOURS, GREY, OTHER_COLOUR, style

Row = dict[str, Any]

YARDSTICKS = {
    "literal": ("the literal algorithm", GREY),
    "arm": ("ARM", COLOURS["Outward"]),
    "silu": ("SiLU alone", COLOURS["Inward"]),
    "copy": ("a copy", OTHER_COLOUR),
}


def draw_speed(result: Row) -> Figure:
    """The times of each shape, and the ratios of the model.

    Args:
        result: the content of bench.json, with a function's or a model's part.
    """
    dtypes = list(dict.fromkeys(row["dtype"] for row in result["function"]))
    parts = [*dtypes, *(["model"] if result["model"] else [])]
    with style():
        figure = Figure(figsize=(1.2 + 3.2 * len(parts), 3.2), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(parts)))
        for axis, dtype in zip(axes, dtypes, strict=False):
            _function(axis, [row for row in result["function"] if row["dtype"] == dtype], dtype)
        if result["model"]:
            _model(axes[-1], result["model"])
        machine = result["machine"]
        threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
        title = f"{result['policy']['name']}, backend {result['backend']}\n{threads} of {machine['processor']}"
        figure.suptitle(title, fontsize=8)
    return figure


def _function(axis: Axes, rows: list[Row], dtype: str) -> None:
    at = np.arange(len(rows))
    for step, (name, (label, colour)) in enumerate(YARDSTICKS.items()):
        axis.bar(at + 0.2 * (step - 1.5), [1e3 * row["seconds"][name] for row in rows], 0.2, color=colour, label=label)
    axis.set_yscale("log")
    axis.set_ylabel("milliseconds (median)")
    axis.set_xticks(at, [f"{row['tokens']:,} × {row['width']:,}" for row in rows], rotation=60, ha="right")
    axis.set_title(f"tokens × width, {dtype}")
    _legend(axis)


def _model(axis: Axes, model: Row) -> None:
    labels, colours = ("layer 0", "all layers"), (COLOURS["Outward"], OTHER_COLOUR)
    at = np.arange(len(model["work"]))
    for step, (label, colour) in enumerate(zip(labels, colours, strict=True)):
        found = [row["ratios"][f"{label} / without"] for row in model["work"]]
        middle = np.array([each["median"] for each in found])
        spread = np.abs(np.array([each["quartiles"] for each in found]).T - middle)
        axis.bar(at + 0.3 * (step - 0.5), middle, 0.3, yerr=spread, color=colour, label=label, error_kw={"lw": 0.7})
    axis.axhline(1, color=GREY, linewidth=0.7, linestyle="--")
    axis.set_ylabel("time with ARM / without")
    axis.set_xticks(at, [f"{row['work']}, {row['tokens']:,} tokens" for row in model["work"]])
    axis.set_title(f"{model['name'].rstrip('/').split('/')[-1]}, {model['dtype']}")
    _legend(axis)


def _legend(axis: Axes) -> None:
    """Above the bars, which reach anywhere."""
    low, high = axis.get_ylim()
    log = axis.get_yscale() == "log"
    axis.set_ylim(low, high * (high / low) ** 0.25 if log else high + 0.25 * (high - low))
    axis.legend(frameon=False, fontsize=6, ncols=2, loc="upper left")
