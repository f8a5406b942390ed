"""When a p-value is significant, alone and among several; the only place that compares one with a level."""

from decimal import Decimal

import numpy as np
from numpy.typing import ArrayLike

from armlet.redistribution.errors import ArgumentError

P_ROUNDING = 1e-12
"""Relative: p-values closer to the level than this are equal to it and differ by float rounding only."""


def significance_level(confidence: float) -> float:
    """1 − confidence in decimal arithmetic: 0.05 for 0.95, where floats give 0.05000000000000004."""
    return float(1 - Decimal(repr(float(confidence))))


def is_significant(p_value: float, confidence: float) -> bool:
    """Whether p < 1 − confidence. A p-value equal to the level, as 0.05 is at confidence 0.95, is not significant."""
    return p_value < significance_level(confidence) * (1 - P_ROUNDING)


def corrected(confidence: float, comparisons: int) -> float:
    """The confidence at which the smallest of so many p-values rejects under `holm`."""
    return 1 - (1 - confidence) / comparisons


def holm(p_values: ArrayLike) -> list[float]:
    """P-values adjusted by Holm's step-down: each that `is_significant` rejects, for all comparisons together.

    Raises:
        ArgumentError: not a list of numbers from 0 to 1.
    """
    from statsmodels.stats.multitest import multipletests

    values = np.asarray(p_values, dtype=float)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ArgumentError("p_values must be a list of numbers from 0 to 1")
    return np.asarray(multipletests(values, method="holm")[1]).tolist() if len(values) else []
