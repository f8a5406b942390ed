"""The values before and after a policy, counted in bins, and where the policy takes the values of each bin."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from armlet.inspection.records import Panel
from armlet.redistribution.order import MAD_TO_SIGMA
from armlet.statistics import FloatArray

BINS = 120
ZOOM = 2.5  # half-width of the window near zero, in robust standard deviations before: 1.4826 · median |a|
MAX_ZOOM_SHARE = 0.4  # if the window would cover this share of the full range, the view near zero is the full range
TRANSFER_QUANTILES = (0.05, 0.5, 0.95)

Window = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Distribution:
    """The values in one range, in bins of equal width; the last bin includes its upper edge."""

    edges: FloatArray  # [bins + 1], ascending, in units of the values
    before: NDArray[np.int64]  # [bins], number of values a before the policy
    after: NDArray[np.int64]  # [bins], number of values a′ after it
    low: FloatArray  # [bins], 5 % quantile of a′ of the values whose a is in the bin; nan if there are none
    middle: FloatArray  # [bins], the median, likewise
    high: FloatArray  # [bins], the 95 % quantile, likewise


def distributions(panel: Panel, window: Window | None = None) -> tuple[Distribution, Distribution]:
    """Counts the values of a panel in two ranges: all values, and near zero.

    window: the smallest range of all values, in units of the values; by default that of the panel's values.
    """
    everything = full_range([panel], window)
    order = np.argsort(panel.after)
    before, after = panel.before[order], panel.after[order]
    ranges = everything, near_zero_window(panel.before, everything)
    first, second = (_distribution(before, after, limits) for limits in ranges)
    return first, second


def _distribution(before: NDArray[np.floating], after: NDArray[np.floating], window: Window) -> Distribution:
    """The distribution in a range; before, after: `[n]` each, pairs in ascending order of `after`."""
    edges = np.linspace(*window, BINS + 1)
    bins = np.searchsorted(edges, before, side="right").astype(np.uint8)  # 0 and BINS + 1 are outside
    bins[before == edges[-1]] = BINS
    counts = np.bincount(bins, minlength=BINS + 2)
    ends = np.searchsorted(after, edges, side="left")
    ends[-1] = np.searchsorted(after, edges[-1], side="right")
    # A stable sort by bin keeps each bin's values after in ascending order, so that quantiles are places in it.
    by_bin = after[np.argsort(bins, kind="stable")].astype(np.float64)
    starts = np.cumsum(counts)[:BINS]
    curves = (_quantile(by_bin, starts, counts[1:-1], share) for share in TRANSFER_QUANTILES)
    return Distribution(edges, counts[1:-1], np.diff(ends), *curves)


def _quantile(groups: FloatArray, starts: NDArray[np.int64], sizes: NDArray[np.int64], share: float) -> FloatArray:
    """The quantile of each group of consecutive ascending values, as `np.quantile`; nan for a group without values."""
    place = share * np.maximum(sizes - 1, 0)
    lower = np.floor(place).astype(np.int64)
    left, right = (np.minimum(starts + at, groups.size - 1) for at in (lower, np.ceil(place).astype(np.int64)))
    values = groups[left] + (place - lower) * (groups[right] - groups[left])
    return np.where(sizes > 0, values, np.nan)


def full_range(panels: Sequence[Panel], axis: Window | None = None) -> Window:
    """A range that contains `axis` and all values before and after, with a margin if values reach its ends."""
    arrays = [values for panel in panels for values in (panel.before, panel.after)]
    low, high = float(min(map(np.min, arrays))), float(max(map(np.max, arrays)))
    margin = 0.02 * (high - low) or max(1.0, abs(high)) / 2
    start = low - margin if axis is None or axis[0] > low else axis[0]
    end = high + margin if axis is None or axis[1] < high else axis[1]
    return (start, end) if start < end else (start - margin, end + margin)


def near_zero_window(before: NDArray[np.floating], full_window: Window) -> Window:
    """The range around zero that the view near zero shows, within `full_window`."""
    half_width = ZOOM * MAD_TO_SIGMA * float(np.median(np.abs(before)))
    low, high = max(full_window[0], -half_width), min(full_window[1], half_width)
    zooms = 0 < high - low < MAX_ZOOM_SHARE * (full_window[1] - full_window[0])
    return (low, high) if zooms else full_window
