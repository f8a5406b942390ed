"""How low a limit must be for values to come out below a bound, by curve."""

import numpy as np

from armlet.statistics import FloatArray


def limit_for(curve: str, largest: FloatArray, bound: FloatArray) -> FloatArray:
    """The T with which `Inward(limit=T, curve=curve)` maps each largest magnitude to its bound; both are positive.

    clip: the bound. log: T · (1 + ln(largest / T)) = bound has one solution T ≤ largest: with t = T / largest,
    t · (1 - ln t) = bound / largest, so t = exp(1 + W₋₁(-bound / (e · largest))). A magnitude within its bound needs no
    limit: T is then infinite.
    """
    if curve == "clip":
        return np.where(largest > bound, bound, np.inf)
    from scipy.special import lambertw

    ratio = np.minimum(bound / largest, 1)
    shares = np.exp(1 + lambertw(-ratio / np.e, k=-1).real)
    return np.where(largest > bound, largest * shares, np.inf)
