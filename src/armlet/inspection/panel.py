"""What a panel of the figure shows: its values, the ranges they are drawn on, and the way their mass moves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.order import MAD_TO_SIGMA

ZOOM = 2.5
"""Half-width of the window near zero, in robust standard deviations, 1.4826 · median |a|, of the values before."""

NEARLY_ALL = 0.4
"""Of the full range: a wider window would magnify too little to be worth a second range, and the full one is shown."""

SHORTEST_ARROW = 0.04
"""Of the axis: a shorter arrow has no visible direction and is left out."""

Window = tuple[float, float]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """One policy's effect on the activated gate.

    Args:
        name: of the policy, "Outward", "Inward" or "Transport"; it decides the colour.
        detail: its settings in a few words, "band 0.13, ceiling 0.995".
        before: `[n]` values of all tokens, the same in every panel of a figure.
        after: `[n]`, value by value what became of `before`.
        moved: `[n]` bool, the positions that the policy changed.

    Raises:
        ArgumentError: the three are not vectors of one length, are empty, or hold NaN or Inf.
    """

    name: str
    detail: str
    before: NDArray[np.floating]
    after: NDArray[np.floating]
    moved: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if not (
            self.before.ndim == 1 and self.before.shape == self.after.shape == self.moved.shape and self.before.size
        ):
            shapes = ", ".join(str(list(values.shape)) for values in (self.before, self.after, self.moved))
            raise ArgumentError(
                f"Panel {self.name}: before, after and moved must be [n] with one n > 0, found {shapes}"
            )
        if not (np.isfinite(self.before).all() and np.isfinite(self.after).all()):
            raise ArgumentError(f"Panel {self.name}: values hold NaN or Inf; leave those tokens out")


def full_range(panels: Sequence[Panel], axis: Window | None = None) -> Window:
    """The range that holds `axis` and every value before and after, with a little air where values reach its ends."""
    values = [values for panel in panels for values in (panel.before, panel.after)]
    low, high = float(min(v.min() for v in values)), float(max(v.max() for v in values))
    air = 0.02 * (high - low) or max(1.0, abs(high)) / 2
    if axis is None:
        return low - air, high + air
    return (axis[0] if axis[0] <= low else low - air), (axis[1] if axis[1] >= high else high + air)


def near_zero(before: NDArray[np.floating], everything: Window) -> Window:
    """The window round zero that the lower row shows, within `everything`."""
    reach = ZOOM * MAD_TO_SIGMA * float(np.median(np.abs(before)))
    low, high = max(everything[0], -reach), min(everything[1], reach)
    zooms = 0 < high - low < NEARLY_ALL * (everything[1] - everything[0])
    return (low, high) if zooms else everything


def flow(panel: Panel, window: Window, farthest: float = 0.25) -> list[tuple[float, float]]:
    """Where mass goes: for each sign, from the mean before to the mean after of the values that move farthest.

    Only moved values that begin and end inside the window count. A policy may move some values inwards and others
    outwards, and many of them hardly at all: the mean over all of them would hide what the histogram shows.

    Args:
        panel: values before and after.
        window: lowest and highest value shown.
        farthest: the share of those values, the ones with the largest displacement, that the mean is taken over.

    Returns:
        Pairs of start and end in units of the gate; none for a sign whose mass does not visibly move.
    """
    low, high = window
    begin, end = panel.before[panel.moved].astype(np.float64), panel.after[panel.moved].astype(np.float64)
    inside = (np.minimum(begin, end) >= low) & (np.maximum(begin, end) <= high)
    sides = (inside & (begin + end < 0), inside & (begin + end >= 0))
    arrows = [_mean_move(begin[side], end[side], farthest) for side in sides if side.any()]
    return [(start, stop) for start, stop in arrows if abs(stop - start) >= SHORTEST_ARROW * (high - low)]


def _mean_move(begin: Values, end: Values, farthest: float) -> tuple[float, float]:
    distance = np.abs(end - begin)
    far = distance >= np.quantile(distance, 1 - farthest)
    return float(begin[far].mean()), float(end[far].mean())
