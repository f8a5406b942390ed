"""Are the intervals 95 % intervals, and the announced power the power? Simulations with a known difference.

Run: python benchmarks/error_rates.py [--simulations 2000] [--only NAME]. With 2,000 all of it takes hours on two
cores; a share p that is found has a Monte Carlo error of sqrt(p (1 - p) / simulations).
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
def _counted(items: int, gained: int, lost: int) -> Comparison:
    """Of pairs of 0/1, only these counts matter."""
    baseline, treated = np.zeros(items, int), np.zeros(items, int)
    treated[:gained] = 1
    baseline[gained : gained + lost] = 1
    return compare(baseline, treated)


def pairs(discordant: float) -> Draw:
    """One answer to an item on each side; a share of the items is correct on one side only."""

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
    """Several answers to an item; only a share of the items can be answered either way."""

    def draw(random: Generator, items: int, difference: float) -> tuple[Values, Values, None]:
        open_ = random.random(items) < undecided
        chance = np.where(open_, 0.1 + 0.8 * random.beta(1.5, 1.5, items), 0.0)
        shift = np.where(open_, difference / undecided, 0.0)
        after = np.clip(chance + shift, 0, 1)
        sides = (random.binomial(1, share[:, None], (items, count)) for share in (chance, after))
        return *sides, None

    return draw


def skewed(random: Generator, items: int, difference: float) -> tuple[Values, Values, None]:
    """Scores whose differences have a long tail on one side."""
    before = random.normal(size=items)
    return before, before + random.exponential(size=items) - 1 + difference, None


def clusters(random: Generator, count: int, difference: float) -> tuple[Values, Values, Values]:
    """Scores in so many clusters of 5 to 15 items, which share a part of their differences."""
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


def _compared(sides: tuple[Values, Values, Values | None]) -> Comparison:
    baseline, treated, owners = sides
    if owners is None and baseline.ndim == 1 and baseline.dtype == int:
        return _counted(len(baseline), int((treated > baseline).sum()), int((treated < baseline).sum()))
    return compare(baseline, treated, clusters=owners)


def measure(draw: Draw, items: int, simulations: int) -> str:
    """Coverage and false positives without a difference, and power at the difference that is announced."""
    random = np.random.default_rng(items)
    null = [_compared(draw(random, items, 0.0)) for _ in range(simulations)]
    covered = np.mean([comparison.interval[0] <= 0 <= comparison.interval[1] for comparison in null])
    false = np.mean([is_significant(comparison.p_value, 0.95) for comparison in null])
    announced = [comparison.smallest_detectable for comparison in null if comparison.smallest_detectable is not None]
    least = float(np.median(announced)) if announced else None
    rates = f"coverage {covered:.3f}, false positives {false:.3f}"
    if least is None:
        return f"{rates}, nothing can be shown"
    p_values = [_compared(draw(random, items, least)).p_value for _ in range(simulations)]
    power = np.mean([is_significant(p_value, 0.95) for p_value in p_values])
    return f"{rates}, announced {least:.4f}, power there {power:.3f}"


def main(
    simulations: Annotated[int, typer.Option(min=1)] = 2000,
    only: Annotated[str, typer.Option(help="Cases with this in their name.")] = "",
) -> None:
    """Prints a line for each case and number of items (or clusters)."""
    for name, (draw, sizes) in CASES.items():
        for items in sizes if only in name else ():
            print(f"{name}, {items}: {measure(draw, items, simulations)}", flush=True)


if __name__ == "__main__":
    typer.run(main)
