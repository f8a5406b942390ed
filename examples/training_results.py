"""Results of training runs: with against without ARM at each precision and rate, and the largest rate that trains."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from training_run import PRECISIONS, Run

Row = dict[str, Any]
Outcomes = Mapping[Run, Row]

MEASURES = {
    "loss": lambda row: row["loss"],
    "spikes": lambda row: row["spikes"],
    **{f"gradient {q}": lambda row, q=q: row["gradient"] and math.log(row["gradient"][q]) for q in ("0.5", "0.99")},
    **{
        name: lambda row, name=name: row["outliers"] and math.log(row["outliers"][name])
        for name in ("gate max / median", "down max / median")
    },
}
"""Measures of a run; norms and reaches are logarithms, whose differences are ratios."""

RATIOS = tuple(name for name in MEASURES if name.startswith(("gradient", "gate", "down")))


def trained(row: Row, bound: float) -> bool:
    """Returns whether a run learned more than the frequency of each byte."""
    return row["loss"] is not None and row["loss"] < bound


def tabulate(outcomes: Outcomes, rates: Sequence[float], seeds: int, bound: float) -> Row:
    """Computes the results.

    Args:
        outcomes: outcomes of all runs.
        rates: learning rates, ascending.
        seeds: number of seeds.
        bound: loss above which a model has not trained, `Text.bound`.
    """
    rows = [_row(outcomes, precision, rate, seeds, bound) for precision in PRECISIONS for rate in rates]
    edges = [_edge(outcomes, precision, rates, seeds, bound) for precision in PRECISIONS]
    return {"bound": bound, "rows": rows, "edges": edges}


def _row(outcomes: Outcomes, precision: str, rate: float, seeds: int, bound: float) -> Row:
    """The result for one precision and rate; differences are over the seeds that trained with and without."""
    sides = {arm: [outcomes[Run(precision, rate, seed, arm)] for seed in range(seeds)] for arm in (False, True)}
    counts = {arm: sum(trained(row, bound) for row in side) for arm, side in sides.items()}
    pairs = [pair for pair in zip(*sides.values(), strict=True) if all(trained(row, bound) for row in pair)]
    result: Row = {"precision": precision, "rate": rate, "trained": [counts[False], counts[True]], "pairs": len(pairs)}
    for name, measure in MEASURES.items():
        values = [(measure(without), measure(treated)) for without, treated in pairs]
        result[name] = _difference(values, name in RATIOS)
    return result


def _edge(outcomes: Outcomes, precision: str, rates: Sequence[float], seeds: int, bound: float) -> Row:
    """Each seed's largest rate that trains, with all smaller ones, and the difference in doublings."""
    largest = {
        arm: [_largest(outcomes, precision, rates, seed, arm, bound) for seed in range(seeds)] for arm in (False, True)
    }
    doublings = [(math.log2(without), math.log2(treated)) for without, treated in zip(*largest.values(), strict=True)]
    return {
        "precision": precision,
        "without": largest[False],
        "with": largest[True],
        "doublings": _difference(doublings, ratios=False),
    }


def _largest(outcomes: Outcomes, precision: str, rates: Sequence[float], seed: int, arm: bool, bound: float) -> float:
    best = rates[0] / 2  # one doubling below the grid, or lower
    for rate in rates:
        if not trained(outcomes[Run(precision, rate, seed, arm)], bound):
            break
        best = rate
    return best


def _difference(pairs: Sequence[tuple[float, float]], ratios: bool) -> Row | None:
    """Means without and with, and with − without (or with / without) with Student's 95 % interval over seeds.

    If all seeds have the same difference, as edges and spikes may, there is no interval.
    """
    from scipy.stats import ttest_1samp

    if len(pairs) < 3:  # the interval of two seeds says nothing
        return None
    differences = [treated - without for without, treated in pairs]
    means = [sum(side) / len(side) for side in zip(*pairs, strict=True)]
    back = math.exp if ratios else float
    low = high = None
    if max(differences) > min(differences):
        low, high = map(back, ttest_1samp(differences, 0).confidence_interval(0.95))
    effect = sum(differences) / len(differences)
    return {"without": back(means[0]), "with": back(means[1]), "effect": back(effect), "low": low, "high": high}
