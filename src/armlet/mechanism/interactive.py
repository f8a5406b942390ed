"""The interactive figures of `explain`: a quantity by the number of filler tokens, and attention with filler."""

from collections.abc import Sequence
from html import escape
from math import isnan
from typing import Any

import numpy as np
from torch import Tensor

from armlet.mechanism.figures import CONTROL, FILLED, MAX_WORDS, WITHOUT, count_points, kind_name, shown_words
from armlet.mechanism.records import QuantityChange
from armlet.presentation.numbers import short_number
from armlet.presentation.plots import GRID, PlotTrace, plot_axis, plot_layout, range_traces, rounded
from armlet.prompts.fillers import Filler, Prompt
from armlet.statistics import FloatArray

COUNTS_HEIGHT, ATTENTION_HEIGHT = 320, 460  # pixels
FILLER_FILL, CONTROL_FILL = "rgba(213,94,0,0.22)", "rgba(128,128,128,0.25)"
UPPER, LOWER = (0.64, 1.0), (0.0, 0.32)  # the rows of the attention, as shares of the height

Figure = dict[str, Any]


def counts_figure() -> Figure:
    """A figure without points: a range and a line for the filler, and both for the control (`counts_changes`)."""
    looks = (("filler", FILLED, FILLER_FILL, "solid"), ("control", CONTROL, CONTROL_FILL, "4px,3px"))
    traces = [trace for look in looks for trace in _counts_traces(*look)]
    axes = {"xaxis": plot_axis("filler tokens", (0.0, 1.0), "y", rangemode="tozero"), "yaxis": _quantity_axis("")}
    return {"data": traces, "layout": plot_layout(COUNTS_HEIGHT, **axes)}


def _counts_traces(group: str, colour: str, fill: str, dash: str) -> list[PlotTrace]:
    low, high = range_traces(colour, fill, group)
    line = {"type": "scatter", "mode": "lines+markers", "line": {"color": colour, "width": 2, "dash": dash}}
    line |= {"cliponaxis": False, "marker": {"size": 6, "color": colour}, "legendgroup": group}
    line |= {"hovertemplate": "%{fullData.name}: %{y:.4~g} (%{customdata})<extra></extra>"}
    ends = ({**end, "hoverinfo": "skip", "showlegend": False} for end in (low, high))
    return [*ends, line]


def _quantity_axis(title: str) -> PlotTrace:
    return plot_axis(title, (0.0, 1.0), "x")


def counts_changes(
    filler: Sequence[QuantityChange], control: Sequence[QuantityChange], quantity: str
) -> tuple[dict[int, PlotTrace], PlotTrace]:
    """What `counts_figure` shows of one quantity in one layer: changes of its traces by index, and of its layout.

    filler, control: the records at each count; `filler` is empty if only the control is shown; quantity: for the axis.
    """
    traces: dict[int, PlotTrace] = {}
    for start, changes in ((0, filler), (3, control)):
        points = count_points(changes) if changes else []
        counts, values, lows, highs = zip(*points, strict=True) if points else ((),) * 4
        shown = {"x": [*counts], "visible": bool(points)}
        traces[start], traces[start + 1] = (shown | {"y": rounded(ends)} for ends in (lows, highs))
        name = escape(kind_name(changes[0].filler)) if changes else ""
        intervals = [*map(_interval, counts, lows, highs)]
        traces[start + 2] = shown | {"y": rounded(values), "name": name, "customdata": intervals}
    return traces, {"yaxis": _quantity_axis(quantity)}


def _interval(count: int, low: float, high: float) -> str:
    if count == 0:
        return "without filler"
    return "no interval" if isnan(low) else f"{short_number(low)} to {short_number(high)}"


def attention_figure(prompt: Prompt, filler: Filler, received: tuple[Tensor, Tensor]) -> Figure:
    """The attention that each token receives, as `draw_attention`: its own tokens above, with the filler's below.

    received: `View.received` without filler and with it.
    """
    without, filled = (attention.numpy() for attention in received)
    inside = slice(prompt.insert_at, prompt.insert_at + filler.count)
    words = [escape(word) for word in shown_words(prompt.words)]
    fillers = [f"{escape(kind_name(filler.kind))}, token {index + 1}" for index in range(filler.count)]
    all_words = [*words[: prompt.insert_at], *fillers, *words[prompt.insert_at :]]
    with_filler = f"with {filler.count} tokens of {escape(kind_name(filler.kind))}"
    lower = _attention_trace(filled, all_words, with_filler, FILLED) | {"xaxis": "x2", "yaxis": "y2"}
    traces = [
        _attention_trace(without, words, "without filler", WITHOUT),
        _attention_trace(np.delete(filled, inside), words, with_filler, FILLED),
        lower | {"showlegend": False},
    ]
    place, dotted = prompt.insert_at - 0.5, {"color": CONTROL, "width": 1, "dash": "dot"}
    shapes = [
        {"type": "line", "x0": place, "x1": place, "yref": "y domain", "y0": 0, "y1": 1, "line": dotted},
        {"type": "rect", "xref": "x2", "yref": "y2 domain", "x0": place, "x1": inside.stop - 0.5, "y0": 0, "y1": 1}
        | {"fillcolor": GRID, "line": {"width": 0}},
    ]
    return {"data": traces, "layout": _attention_layout(words, shapes)}


def _attention_trace(values: FloatArray, words: Sequence[str], name: str, colour: str) -> PlotTrace:
    line = {"type": "scatter", "mode": "lines+markers", "line": {"color": colour, "width": 1.5}}
    line |= {"marker": {"size": 4, "color": colour}, "name": name}
    label = "%{customdata}: %{y:.3~g}<extra>%{fullData.name}</extra>"
    return line | {"x": [*range(len(words))], "y": rounded(values), "customdata": [*words], "hovertemplate": label}


def _attention_layout(words: Sequence[str], shapes: Sequence[PlotTrace]) -> PlotTrace:
    ticks = {"tickvals": [*range(len(words))], "ticktext": [*words], "tickangle": -90, "tickfont": {"size": 9}}
    upper = plot_axis("", (0.0, 1.0), "y", **(ticks if len(words) <= MAX_WORDS else {"title": "token of the prompt"}))
    height = {"type": "log", "dtick": 1, "tickformat": "~g"}
    return plot_layout(
        ATTENTION_HEIGHT,
        hovermode="closest",
        shapes=[*shapes],
        xaxis=upper,
        xaxis2=plot_axis("token, including the filler (shaded)", (0.0, 1.0), "y2"),
        yaxis=plot_axis("attention", UPPER, "x", **height),
        yaxis2=plot_axis("attention", LOWER, "x2", **height),
    )
