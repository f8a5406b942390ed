"""Simulates true differences as large as the margin, and none: how often is the difference said to be smaller?

Run: python benchmarks/margin_rates.py [--simulations 4000] [--only NAME]. With 4,000, all cases take half an hour; a
measured share of 5 % has a Monte Carlo error of 0.3 points. At a difference of the margin, at most 5 % may be said.
"""

from collections.abc import Callable
from itertools import product
from math import inf
from typing import Annotated, Any

import numpy as np
import typer
from numpy.random import Generator
from numpy.typing import NDArray

from armlet.statistics.equivalence import tail_probability, tango_score, units_equivalence
from armlet.statistics.significance import is_significant
from armlet.statistics.units import Units, gather_units, score_matrix

Draw = Callable[[Generator, int, float, float], Units]
Values = NDArray[Any]

MARGINS = (0.01, 0.02, 0.05, 0.1)
SIZES = (20, 50, 100, 500, 2000)


def pairs(random: Generator, items: int, difference: float, share: float) -> Units:
    """Draws one answer to each item on each side, of which `share` (or as many as needed) are discordant."""
    discordant = max(share, abs(difference))
    gained, lost, same = random.multinomial(
        items, [(discordant + difference) / 2, (discordant - difference) / 2, 1 - discordant]
    )
    return _units(np.repeat([0, 1, 0], [gained, lost, same]), np.repeat([1, 0, 0], [gained, lost, same]))


def samples(random: Generator, items: int, difference: float, share: float) -> Units:
    """Draws four answers to each item, of which `share` can be answered either way, with a chance that shifts."""
    open_share = max(share, abs(difference))
    is_open, shift = random.random(items) < open_share, difference / (open_share or 1)
    chance = max(-shift, 0) + (1 - abs(shift)) * random.random(items)
    before, after = (np.where(is_open, chance + part, 0.0).clip(0, 1) for part in (0, shift))
    return _units(*(random.binomial(1, side[:, None], (items, 4)) for side in (before, after)))


def clusters(random: Generator, count: int, difference: float, share: float) -> Units:
    """Draws pairs in clusters of 5 to 15 items, which differ in their shares of discordant pairs."""
    sizes = random.integers(5, 16, count)
    discordant = max(share, abs(difference))
    both = [2 * part * random.beta(0.5, 0.5, count) for part in (discordant + difference, discordant - difference)]
    gain, loss = (np.repeat(side / 2, sizes) for side in both)
    drawn = random.random(len(gain))
    gained, lost = drawn < gain, drawn > 1 - loss
    return _units(np.where(lost, 1, 0), np.where(gained, 1, 0), np.repeat(np.arange(count), sizes))


def scores(random: Generator, items: int, difference: float, share: float) -> Units:
    """Draws scores whose differences have a long tail in the direction of the difference; their spread is `share`."""
    tail = share * np.copysign(1, difference) * (random.exponential(size=items) - 1)
    return _units(np.zeros(items), tail + difference)


def _units(before: Values, after: Values, owners: Values | None = None) -> Units:
    return gather_units(score_matrix("baseline", before), score_matrix("treated", after), owners)


class Claims:
    """Whether differences are said to be smaller than a margin; the exact test, monotone in the score, runs rarely."""

    def __init__(self, margin: float) -> None:
        self.margin, self.accepted, self.rejected = margin, -inf, inf  # the highest and the lowest such score

    def claims(self, units: Units) -> bool:
        """Whether both one-sided tests reject."""
        if units.name == "clusters" or not units.binary or units.max_difference > 1:
            return is_significant(units_equivalence(units, self.margin), 0.95)
        gained, lost = (int((units.sums == sign).sum()) for sign in (1, -1))
        return self._rejects(len(units.sums), gained, lost) and self._rejects(len(units.sums), lost, gained)

    def _rejects(self, items: int, gained: int, lost: int) -> bool:
        score = float(tango_score(items, gained, lost, self.margin))
        if self.accepted < score < self.rejected:
            if is_significant(tail_probability(items, gained, lost, self.margin), 0.95):
                self.rejected = score
            else:
                self.accepted = score
        return score >= self.rejected


CASES: dict[str, tuple[Draw, tuple[int, ...], tuple[float, ...]]] = {
    "pairs": (pairs, SIZES, (0.0, 0.05, 0.1, 0.2, 0.5)),
    "4 samples": (samples, SIZES, (0.0, 0.05, 0.2, 1.0)),
    "clusters": (clusters, (10, 20, 50, 200), (0.0, 0.1, 0.3, 0.5)),
    "skewed scores": (scores, SIZES, (0.2,)),
}
"""The draws, the numbers of units, and the shares of items that can change."""


def main(
    simulations: Annotated[int, typer.Option(min=1)] = 4000,
    only: Annotated[str, typer.Option(help="Run only the cases whose names contain this.")] = "",
) -> None:
    """Prints the claims at a true difference of ± the margin and of 0, by margin."""
    for name, (draw, sizes, shares) in CASES.items():
        for items, share in product(sizes, shares) if only in name else ():
            rates = []
            for margin in MARGINS:
                random, test = np.random.default_rng(items), Claims(margin)
                truths = np.resize([margin, -margin], simulations), np.zeros(simulations)
                wrong, right = (
                    np.mean([test.claims(draw(random, items, truth, share)) for truth in side]) for side in truths
                )
                rates.append(f"{margin:g}: {100 * wrong:.1f}, {100 * right:.1f} %")
            print(f"{name}, {items}, {share:g}: {'; '.join(rates)}", flush=True)


if __name__ == "__main__":
    typer.run(main)
