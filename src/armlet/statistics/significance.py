"""Decides whether p-values are significant, one at a time or several together."""

from decimal import Decimal

import numpy as np
from numpy.typing import ArrayLike

from armlet.redistribution.errors import ArgumentError

P_ROUNDING = 1e-12
"""Relative: p-values closer to the level than this differ from it only by float rounding."""


def significance_level(confidence: float) -> float:
    """1 − confidence in decimal arithmetic: 0.05 for 0.95, for which floats return 0.05000000000000004."""
    return float(1 - Decimal(repr(float(confidence))))


def is_significant(p_value: float, confidence: float) -> bool:
    """Whether p < 1 − confidence. A p-value equal to the level, such as 0.05 at confidence 0.95, is not significant."""
    return p_value < significance_level(confidence) * (1 - P_ROUNDING)


def corrected(confidence: float, comparisons: int) -> float:
    """The confidence level at which `holm` tests the smallest of this many p-values."""
    return 1 - (1 - confidence) / comparisons


def holm(p_values: ArrayLike) -> list[float]:
    """P-values adjusted by Holm's step-down method for all comparisons together; `is_significant` decides on each.

    Raises:
        ArgumentError: the p-values are not a list of numbers from 0 to 1.
    """
    from statsmodels.stats.multitest import multipletests

    values = np.asarray(p_values, dtype=float)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ArgumentError("p_values must be a list of numbers from 0 to 1")
    return np.asarray(multipletests(values, method="holm")[1]).tolist() if len(values) else []
