"""Measures of the distribution of the activated gate, before and after redistribution.

Every measure is computed in float64 from all values. Only the number of modes depends on parameters, a bandwidth and a
threshold, both described at `count_modes`.
"""

import numpy as np
import torch
from torch import Tensor

from armlet.redistribution.errors import ArgumentError
from armlet.statistics import FloatArray

MEASURES: dict[str, str] = {
    "near_zero": "share of values nearer to zero than their token's near-zero half-width before (fraction)",
    "std": "standard deviation of all values (units of the gate)",
    "max_over_median": "largest |a| over median |a|, all values (ratio)",
    "kurtosis": "excess kurtosis of all values (0 for a normal)",
    "modes": "peaks of the smoothed density of all values (count)",
    "l1": "sum of |a| over a token, mean over tokens (units of the gate)",
    "l2": "Euclidean norm of a token, mean over tokens (units of the gate)",
    "gini": "Gini coefficient of |a| in a token, mean over tokens (0: all equal, 1: one value has it all)",
}
"""Name and meaning of each measure, in the order of the tables."""

PROMINENCE = 0.02  # least rise of a mode above the adjacent valleys, as a share of the highest peak
SIGNIFICANCE = 6  # and in standard deviations of its sampling noise, so that a few values close by chance do not count
BINS_PER_BANDWIDTH = 8
KERNEL_RADIUS = 4  # bandwidths at which the smoothing kernel is truncated


def measure(a: Tensor, *, halfwidth: Tensor) -> dict[str, float]:
    """Measures one distribution.

    Args:
        a: activated gate, `[tokens, width]`, any float dtype, no padding.
        halfwidth: `[tokens, 1]`, `near_zero_halfwidth` of the values *before*, for both sides of a comparison.

    Returns:
        A number for each of `MEASURES`, in that order. `max_over_median` is inf if more than half of the values are
        zero, and nan if all are; `kurtosis` is nan if all values are equal (one mode); the Gini coefficient of an
        all-zero token is 0.

    Raises:
        ArgumentError: `a` is not a matrix, is empty, or contains NaN or Inf; `halfwidth` is not `[tokens, 1]`.
    """
    measures = {name: float(values.mean()) for name, values in token_measures(a, halfwidth=halfwidth).items()}
    values = a.detach().double().cpu().numpy()
    magnitudes, squares = np.abs(values), (values - values.mean()) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        measures["max_over_median"] = float(magnitudes.max() / np.median(magnitudes))
        measures["kurtosis"] = float(np.mean((squares / values.var()) ** 2)) - 3
    measures |= {"std": float(values.std()), "modes": count_modes(values.ravel())}
    return {name: measures[name] for name in MEASURES}


def token_measures(a: Tensor, *, halfwidth: Tensor) -> dict[str, FloatArray]:
    """Measures each token: near_zero, l1, l2 and gini, each `[tokens]`; arguments and errors as in `measure`."""
    if a.ndim != 2 or a.numel() == 0:
        shape = list(a.shape)
        raise ArgumentError(f"shape: values must be [tokens, width] and not empty, got {shape}; remove padding first")
    if not bool(torch.isfinite(a).all()):
        advice = "drop those tokens first, a policy passes them through unchanged"
        raise ArgumentError(f"shape: values contain NaN or Inf; {advice}")
    if halfwidth.shape != (len(a), 1):
        raise ArgumentError(f"measure: halfwidth must be [{len(a)}, 1], got {list(halfwidth.shape)}")
    values = a.detach().double().cpu().numpy()
    magnitudes = np.abs(values)
    l1, width = magnitudes.sum(axis=1), values.shape[1]
    # The Gini coefficient from ranks: the mean difference between two magnitudes divided by twice their mean.
    differences = (np.sort(magnitudes, axis=1) * (2 * np.arange(1, width + 1) - width - 1)).sum(axis=1)
    return {
        "near_zero": (magnitudes < halfwidth.detach().double().cpu().numpy()).mean(axis=1),
        "l1": l1,
        "l2": np.sqrt(np.square(values).sum(axis=1)),
        "gini": np.divide(differences, width * l1, out=np.zeros_like(l1), where=l1 > 0),
    }


def difference(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """After − before for each measure, from two results of `measure`; nan if both are infinite."""
    return {name: after[name] - before[name] for name in before}


def count_modes(values: FloatArray) -> int:
    """Count the peaks of a smoothed density.

    The density is a Gaussian kernel estimate on a fine grid, mirrored at the smallest and the largest value and zero
    outside them, so that a peak at the very edge (a SiLU gate has many values at its minimum) counts like any other.
    The bandwidth is half of Silverman's rule, 0.45 · min(standard deviation, interquartile range / 1.349) · n^(−1/5):
    outliers do not widen it, and it is half because the rule, designed for one mode, merges several. A peak is a mode
    if it rises above the adjacent valleys by `PROMINENCE` of the highest peak and by `SIGNIFICANCE` standard deviations
    of its noise.

    Args:
        values: `[n]`, finite, n ≥ 1.

    Returns:
        At least 1. A few hundred values show only pronounced modes; distinguishing five takes thousands.
    """
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import find_peaks

    lower, upper = np.quantile(values, (0.25, 0.75))
    # If half of the values are equal, the interquartile range is 0 and only the standard deviation is used.
    spreads = [spread for spread in (values.std(), (upper - lower) / 1.349) if spread > 0]
    bandwidth = 0.45 * float(min(spreads, default=0.0)) * values.size**-0.2
    if bandwidth == 0:
        return 1
    histogram = _histogram(values, bandwidth)
    density = np.pad(gaussian_filter1d(histogram, BINS_PER_BANDWIDTH, mode="reflect", truncate=KERNEL_RADIUS), 1)
    # A Poisson count under this kernel has variance density · Σ kernel²; Σ kernel² = 1 / (2 √π · bins per bandwidth).
    noise = np.sqrt(density / (2 * np.sqrt(np.pi) * BINS_PER_BANDWIDTH))
    threshold = np.maximum(PROMINENCE * density.max(), SIGNIFICANCE * noise)
    threshold[density.argmax()] = 0  # the highest peak is always a mode
    return len(find_peaks(density, prominence=threshold)[0])


def _histogram(values: FloatArray, bandwidth: float) -> FloatArray:
    """Counts on a grid with `BINS_PER_BANDWIDTH` cells per bandwidth, from the smallest value to the largest.

    Gaps wider than the kernel are shortened: peaks keep their heights, and outliers do not make the grid large.
    """
    steps = np.minimum(np.diff(np.sort(values)) / bandwidth, 2 * KERNEL_RADIUS + 1)
    positions = np.concatenate([[0.0], np.cumsum(steps)])
    return np.bincount(np.rint(positions * BINS_PER_BANDWIDTH).astype(np.int64)).astype(np.float64)
