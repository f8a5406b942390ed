"""The page's plots beside the distribution: gate × up of a token, a tensor of the layer, and filler's attention."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from armlet.mechanism.figures import shown_words
from armlet.playground.effect import GateEffect, rows_of_token
from armlet.playground.reading import Reading
from armlet.presentation.plots import plot_axis, plot_layout
from armlet.presentation.style import COLOURS, GREY, OTHER_COLOUR

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MAX_POINTS, MAX_COLUMNS = 2000, 120  # drawn of a token's channels, and of a tensor's
ZERO_LINE = {"zeroline": True, "zerolinewidth": 1.5, "zerolinecolor": "rgba(128,128,128,0.9)"}
WHOLE_PLOT = (0.0, 1.0)  # of the figure
DIVERGING, SEQUENTIAL = "RdBu_r", "Blues"


def gate_up_scatter(reading: Reading, effect: GateEffect, token: int) -> "Figure":
    """Scatter of a token's activated gate × up, a point for each channel, before and after, in four quadrants.

    In a mixture, the channels of all of the token's experts. Of more than `MAX_POINTS` channels, every n-th.
    """
    from plotly.graph_objects import Figure, Scatter

    before, after, up, moved = gate_and_up_points(reading, effect, token)
    figure, colour = Figure(), COLOURS.get(effect.name, OTHER_COLOUR)
    small = {"mode": "markers", "hovertemplate": "gate %{x:.3g}, up %{y:.3g}<extra>%{fullData.name}</extra>"}
    figure.add_trace(Scatter(x=before, y=up, name="before", marker={"size": 4, "color": GREY, "opacity": 0.5}, **small))
    ring = {"size": 5, "color": colour, "opacity": 0.7, "symbol": "circle-open"}
    figure.add_trace(Scatter(x=after[moved], y=up[moved], name="after, if moved", marker=ring, **small))
    for text, corner in zip(quadrant_texts(before, up), ((1, 1), (0, 1), (0, 0), (1, 0)), strict=True):
        x, y = corner
        place = {"xref": "paper", "yref": "paper", "x": x, "y": y, "xanchor": ("left", "right")[x]}
        figure.add_annotation(text=text, yanchor=("bottom", "top")[y], showarrow=False, **place)
    axes = {
        "xaxis": plot_axis("activated gate", WHOLE_PLOT, "y", **ZERO_LINE),
        "yaxis": plot_axis("up", WHOLE_PLOT, "x", **ZERO_LINE),
    }
    figure.update_layout(plot_layout(360, hovermode="closest", **axes))
    return figure


def gate_and_up_points(reading: Reading, effect: GateEffect, token: int) -> tuple[np.ndarray, ...]:
    """The drawn points of a token: gate before and after, up, and which moved, `[points]` each."""
    assert reading.up is not None
    rows = rows_of_token(reading, token)
    step = max(1, -(-rows.numel() * reading.values.shape[1] // MAX_POINTS))
    parts = (reading.values, effect.after, reading.up, effect.moved)
    before, after, up, moved = (part[rows].flatten()[::step] for part in parts)
    return (*(part.float().numpy() for part in (before, after, up)), moved.numpy())


def quadrant_texts(gate: np.ndarray, up: np.ndarray) -> list[str]:
    """How many points are in each quadrant: both positive, then counterclockwise."""
    positive, total = (gate > 0, up > 0), max(len(gate), 1)
    quadrants = ((True, True), (False, True), (False, False), (True, False))
    shares = [((positive[0] == x) & (positive[1] == y)).sum() / total for x, y in quadrants]
    return [
        f"gate {'+' if x else '−'} up {'+' if y else '−'}<br>{share:.0%}"
        for (x, y), share in zip(quadrants, shares, strict=True)
    ]


def tensor_map(tensor: Tensor, name: str, words: list[str]) -> "Figure":
    """Heat map of a tensor of the layer: tokens × channels, or tokens × tokens of the attention's mean over heads."""
    from plotly.graph_objects import Figure, Heatmap

    values, columns, axis = tensor_cells(tensor, name)
    size = float(np.abs(values).max()) if values.size else 1.0
    signed = bool((values < 0).any())
    scale = {"colorscale": DIVERGING, "zmid": 0, "zmin": -size, "zmax": size} if signed else {"colorscale": SEQUENTIAL}
    hover = f"token %{{y}}, {axis} %{{x}}: %{{z:.4g}}<extra></extra>"
    figure = Figure(Heatmap(z=values, x=columns, hovertemplate=hover, **scale))
    step = max(1, len(words) // 16)
    ticks = {"tickvals": [*range(0, len(words), step)], "ticktext": shown_words(words[::step])}
    rows = ticks if len(values) == len(words) else {}
    y_axis = plot_axis("", WHOLE_PLOT, "x", autorange="reversed", **rows)
    figure.update_layout(plot_layout(420, hovermode="closest", xaxis=plot_axis(axis, WHOLE_PLOT, "y"), yaxis=y_axis))
    return figure


def tensor_cells(tensor: Tensor, name: str) -> tuple[np.ndarray, list[int], str]:
    """The cells of `tensor_map` `[rows, columns]`, the index of each column, and what a column is.

    All rows; of the columns, evenly many, and those with the largest and the smallest value, so that the range is full.
    """
    flat = tensor[0].float()
    if name == "Attention_weights":
        return flat.mean(0).numpy(), [*range(flat.shape[-1])], "attended token"
    if name == "RoPE":  # [heads, s, h]
        flat = flat.transpose(0, 1)
    flat = flat.reshape(flat.shape[0], -1)
    width = flat.shape[1]
    chosen = {*range(0, width, max(1, width // MAX_COLUMNS))}
    finite = torch.where(flat.isfinite(), flat, torch.zeros(()))
    chosen |= {int(finite.amax(0).argmax()), int(finite.amin(0).argmin())}
    columns = sorted(chosen)
    return flat[:, columns].numpy(), columns, "channel"


def received_attention(without: Tensor, filled: Tensor, start: int, count: int) -> "Figure":
    """The attention that each of the prompt's tokens receives from later ones, without filler and with it."""
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    kept = np.delete(filled.numpy(), slice(start, start + count))
    for name, values, dash in (("without filler", without.numpy(), "solid"), ("with filler", kept, "dot")):
        figure.add_trace(Scatter(y=values, name=name, mode="lines+markers", line={"dash": dash}, marker={"size": 4}))
    figure.add_vline(x=start - 0.5, line={"dash": "dash", "width": 1})
    y_axis = plot_axis("attention received", WHOLE_PLOT, "x", type="log", dtick=1)
    figure.update_layout(plot_layout(320, xaxis=plot_axis("token of the prompt", WHOLE_PLOT, "y"), yaxis=y_axis))
    return figure
