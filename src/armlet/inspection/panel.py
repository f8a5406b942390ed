"""What one panel of the figure shows: its values, the ranges to draw them on, and where the values that move go."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from armlet.redistribution.order import MAD_TO_SIGMA

ZOOM = 2.5  # half-width of the window near zero, in robust standard deviations before: 1.4826 · median |a|
NEARLY_ALL = 0.4  # share of the full range from which that window is too wide, and the lower row shows the full range
SHORTEST_ARROW = 0.04  # share of the axis: a shorter arrow would have no visible direction

Window = tuple[float, float]


@dataclass(frozen=True)
class Panel:
    """One policy's effect on the activated gate."""

    name: str  # of the policy, "Outward", "Inward" or "Transport"; it decides the colour
    detail: str  # its settings in a few words, "band 0.13, ceiling 0.995"
    before: NDArray[np.floating]  # [n] finite values of all tokens, n > 0, the same in every panel of a figure
    after: NDArray[np.floating]  # [n], what became of each value of `before`
    moved: NDArray[np.bool_]  # [n], the positions that the policy changed


def full_range(panels: Sequence[Panel], axis: Window | None = None) -> Window:
    """A range that contains `axis` and every value before and after, with a margin where values reach its ends."""
    arrays = [values for panel in panels for values in (panel.before, panel.after)]
    low, high = float(min(map(np.min, arrays))), float(max(map(np.max, arrays)))
    margin = 0.02 * (high - low) or max(1.0, abs(high)) / 2
    start = low - margin if axis is None or axis[0] > low else axis[0]
    end = high + margin if axis is None or axis[1] < high else axis[1]
    return (start, end) if start < end else (start - margin, end + margin)


def near_zero_window(before: NDArray[np.floating], everything: Window) -> Window:
    """The range around zero that the lower row shows, within `everything`."""
    reach = ZOOM * MAD_TO_SIGMA * float(np.median(np.abs(before)))
    low, high = max(everything[0], -reach), min(everything[1], reach)
    zooms = 0 < high - low < NEARLY_ALL * (everything[1] - everything[0])
    return (low, high) if zooms else everything


def flow(panel: Panel, window: Window, farthest: float = 0.25) -> list[tuple[float, float]]:
    """For each sign that visibly moves, the mean start and end, in units of the gate, of the values that move farthest.

    Only moved values that start and end inside the window count, and of these the share `farthest` with the largest
    displacement. A policy may move some values inwards and others outwards, and many of them hardly at all: the mean
    over all of them would hide what the histogram shows.
    """
    low, high = window
    start, end = panel.before[panel.moved].astype(np.float64), panel.after[panel.moved].astype(np.float64)
    inside = (np.minimum(start, end) >= low) & (np.maximum(start, end) <= high)
    arrows: list[tuple[float, float]] = []
    for side in (inside & (start + end < 0), inside & (start + end >= 0)):
        if side.any():
            distance = np.abs(end - start)
            far = side & (distance >= np.quantile(distance[side], 1 - farthest))
            arrows.append((float(start[far].mean()), float(end[far].mean())))
    return [(tail, head) for tail, head in arrows if abs(head - tail) >= SHORTEST_ARROW * (high - low)]
