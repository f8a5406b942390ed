"""Simulates known differences, to check the intervals' coverage and the stated power.

Run: python benchmarks/error_rates.py [--simulations 2000] [--only NAME]. With 2,000, all cases take hours on
two cores; a measured share p has a Monte Carlo error of sqrt(p (1 - p) / simulations).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
import typer
from numpy.random import Generator
from numpy.typing import NDArray

from armlet.statistics import intervals
from armlet.statistics.comparison import Comparison, compare
from armlet.statistics.significance import is_significant

intervals.UNIT_RESAMPLES = 999  # per bootstrap: the time is better spent on ten times as many simulations

Values = NDArray[Any]
Draw = Callable[[Generator, int, float], tuple[Values, Values, Values | None]]


@lru_cache(None)
def _compare_counts(items: int, gained: int, lost: int) -> Comparison:
    """Compares pairs of 0/1, for which only these counts matter."""
    baseline, treated = np.zeros(items, int), np.zeros(items, int)
    treated[:gained] = 1
    baseline[gained : gained + lost] = 1
    return compare(baseline, treated)


def pairs(discordant: float) -> Draw:
    """Draws one answer to each item on each side; a share of the items is correct on only one side."""

    def draw(random: Generator, items: int, difference: float) -> tuple[Values, Values, None]:
        discordances = max(discordant, abs(difference))
        shares = [(discordances + difference) / 2, (discordances - difference) / 2, 1 - discordances]
        gained, lost, _ = random.multinomial(items, shares)
        baseline, treated = np.zeros(items, int), np.zeros(items, int)
        treated[:gained] = 1
        baseline[gained : gained + lost] = 1
        return baseline, treated, None

    return draw


def samples(count: int, undecided: float = 1.0) -> Draw:
    """Draws several answers to each item; only a share of the items can be answered either way."""

    def draw(random: Generator, items: int, difference: float) -> tuple[Values, Values, None]:
        is_open = random.random(items) < undecided
        chance = np.where(is_open, 0.1 + 0.8 * random.beta(1.5, 1.5, items), 0.0)
        shift = np.where(is_open, difference / undecided, 0.0)
        after = np.clip(chance + shift, 0, 1)
        sides = (random.binomial(1, share[:, None], (items, count)) for share in (chance, after))
        return *sides, None

    return draw


def skewed(random: Generator, items: int, difference: float) -> tuple[Values, Values, None]:
    """Draws scores whose differences have a long tail on one side."""
    before = random.normal(size=items)
    return before, before + random.exponential(size=items) - 1 + difference, None


def clusters(random: Generator, count: int, difference: float) -> tuple[Values, Values, Values]:
    """Draws scores in `count` clusters of 5 to 15 items that share a part of their differences."""
    owners = np.repeat(np.arange(count), random.integers(5, 16, count))
    before = random.normal(size=len(owners))
    shared = 0.6 * random.normal(size=count)[owners]
    return before, before + shared + 0.8 * random.normal(size=len(owners)) + difference, owners


CASES: dict[str, tuple[Draw, tuple[int, ...]]] = {
    "pairs, 2 % discordant": (pairs(0.02), (50, 200, 500, 2000)),
    "pairs, 10 % discordant": (pairs(0.1), (50, 200, 500, 2000)),
    "pairs, 30 % discordant": (pairs(0.3), (50, 200, 500, 2000)),
    "4 samples": (samples(4), (50, 200)),
    "4 samples, 15 % undecided": (samples(4, 0.15), (200,)),
    "skewed differences": (skewed, (50, 200)),
    "clusters": (clusters, (10, 40)),
}


def _compare_sides(sides: tuple[Values, Values, Values | None]) -> Comparison:
    baseline, treated, owners = sides
    if owners is None and baseline.ndim == 1 and baseline.dtype == int:
        return _compare_counts(len(baseline), int((treated > baseline).sum()), int((treated < baseline).sum()))
    return compare(baseline, treated, clusters=owners)


def measure(draw: Draw, items: int, simulations: int) -> str:
    """Measures coverage and false positives without a difference, and power at the smallest detectable difference."""
    random = np.random.default_rng(items)
    null = [_compare_sides(draw(random, items, 0.0)) for _ in range(simulations)]
    covered = np.mean([comparison.interval[0] <= 0 <= comparison.interval[1] for comparison in null])
    false = np.mean([is_significant(comparison.p_value, 0.95) for comparison in null])
    detectable = [comparison.smallest_detectable for comparison in null if comparison.smallest_detectable is not None]
    least = float(np.median(detectable)) if detectable else None
    rates = f"coverage {covered:.3f}, false positives {false:.3f}"
    if least is None:
        return f"{rates}, nothing can be shown"
    p_values = [_compare_sides(draw(random, items, least)).p_value for _ in range(simulations)]
    power = np.mean([is_significant(p_value, 0.95) for p_value in p_values])
    return f"{rates}, detectable {least:.4f}, power there {power:.3f}"


def main(
    simulations: Annotated[int, typer.Option(min=1)] = 2000,
    only: Annotated[str, typer.Option(help="Run only the cases whose names contain this.")] = "",
) -> None:
    """Prints a line for each case and number of items (or clusters)."""
    for name, (draw, sizes) in CASES.items():
        for items in sizes if only in name else ():
            print(f"{name}, {items}: {measure(draw, items, simulations)}", flush=True)


if __name__ == "__main__":
    typer.run(main)
