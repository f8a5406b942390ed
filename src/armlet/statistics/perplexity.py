"""The ratio of two perplexities over the same windows, with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite

from armlet.statistics.comparison import compare


@dataclass(frozen=True)
class PerplexityRatio:
    """The ratio of two perplexities over the same windows, and its 95 % interval; None for an infinite bound."""

    ratio: float
    low: float | None
    high: float | None

    @classmethod
    def between(cls, before: Sequence[float], after: Sequence[float], seed: int = 0) -> "PerplexityRatio":
        """The ratio of after to before, from the losses of their windows.

        The differences are compared with 0, so that a Bonett-Price interval, used below 21 windows, depends on their
        range and not on the range of the losses, which also differ between texts.
        """
        differences = [b - a for a, b in zip(before, after, strict=True)]
        if not any(differences):  # the same run twice
            return cls(1.0, 1.0, 1.0)
        comparison = compare([0.0] * len(differences), differences, seed=seed)
        low, high = (exp(bound) if isfinite(bound) else None for bound in comparison.interval)
        return cls(exp(comparison.difference), low, high)

    def describe(self, digits: int) -> str:
        """The ratio as text, with its interval if it has one."""
        bounds = "" if self.low is None else f" [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        return f"{self.ratio:.{digits}f}{bounds}"
