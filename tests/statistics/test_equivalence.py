"""A difference is rarely claimed to be smaller than a margin if it is as large, and often enough if there is none."""

import math
from bisect import bisect
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from armlet.statistics.comparison import compare
from armlet.statistics.equivalence import pairs_equivalence, tail_probability, tango_score, units_equivalence
from armlet.statistics.power import items_for_margin
from armlet.statistics.units import gather_units, score_matrix

SIMULATIONS = 1000
ERROR = 0.0138  # two standard errors of a share of 5 % in so many simulations


def sides(items, gained, lost):
    baseline, treated = np.zeros(items, int), np.zeros(items, int)
    treated[:gained] = 1
    baseline[gained : gained + lost] = 1
    return baseline, treated


# Pairs of 0/1


@pytest.mark.parametrize(("items", "gained", "lost", "margin"), [(10, 1, 2, 0.2), (20, 2, 1, 0.1), (25, 0, 4, 0.3)])
def test_the_p_value_is_the_largest_probability_of_a_score_as_high_by_enumeration(items, gained, lost, margin):
    gains, losses = np.divmod(np.arange((items + 1) ** 2), items + 1)
    gains, losses = gains[gains + losses <= items], losses[gains + losses <= items]
    as_high = tango_score(items, gains, losses, margin) >= tango_score(items, gained, lost, margin) - 1e-9
    outcomes = np.stack([gains, losses, items - gains - losses], axis=1)[as_high]
    shares = np.linspace(0, (1 - margin) / 2, 300)
    chances = [
        stats.multinomial.pmf(outcomes, items, [share, share + margin, max(0, 1 - 2 * share - margin)]).sum()
        for share in shares
    ]
    assert tail_probability(items, gained, lost, margin) == pytest.approx(max(chances), rel=1e-3)


def test_the_score_is_that_of_tangos_paper():
    """Its test of no less than −0.1: the variance is the most likely one at that difference, found by search here."""
    items, gained, lost, margin = 44, 1, 3, 0.1
    shares = np.linspace(1e-9, (1 - margin) / 2 - 1e-9, 2_000_001)
    likelihood = gained * np.log(shares) + lost * np.log(shares + margin)
    likelihood += (items - gained - lost) * np.log(1 - 2 * shares - margin)
    share = shares[likelihood.argmax()]
    expected = (gained - lost + items * margin) / math.sqrt(items * (2 * share + margin - margin**2))
    assert tango_score(items, gained, lost, margin) == pytest.approx(expected, rel=1e-6)


def claims(items, margin):
    """All numbers of gained and lost pairs, and in which of them the difference is claimed to be smaller."""
    gained, lost = (axis.ravel() for axis in np.indices((items + 1, items + 1)))
    gained, lost = gained[gained + lost <= items], lost[gained + lost <= items]
    scores = tango_score(items, gained, lost, margin)
    order = np.argsort(scores)
    # The p-value falls as the score rises, so few outcomes show from which score on it is significant.
    first = bisect(order, -0.05, key=lambda at: -tail_probability(items, int(gained[at]), int(lost[at]), margin))
    lowest = scores[order[first]] if first < len(order) else math.inf
    return gained, lost, (scores >= lowest) & (tango_score(items, lost, gained, margin) >= lowest)


def chance_of_a_claim(items, margin, discordant, difference):
    gained, lost, claimed = claims(items, margin)
    gain, loss = (discordant + difference) / 2, (discordant - difference) / 2
    outcomes = np.stack([gained, lost, items - gained - lost], axis=1)[claimed]
    return stats.multinomial.pmf(outcomes, items, [gain, loss, 1 - gain - loss]).sum() if len(outcomes) else 0.0


@pytest.mark.parametrize(("items", "margin"), [(20, 0.2), (50, 0.1), (100, 0.05), (100, 0.1), (200, 0.04)])
@pytest.mark.parametrize("sign", [1, -1])
def test_pairs_that_differ_by_the_margin_are_claimed_to_differ_by_less_in_at_most_5_percent(items, margin, sign):
    """Not simulated: the sum over all outcomes."""
    chances = [chance_of_a_claim(items, margin, share, sign * margin) for share in (margin, 0.2, 0.35, 0.5)]
    assert max(chances) <= 0.05
    assert max(chances) > 0.01  # some are claimed


@pytest.mark.slow
@pytest.mark.parametrize("margin", [0.06, 0.1, 0.2])
def test_as_many_pairs_as_announced_show_that_there_is_no_difference_in_80_percent(margin):
    power = chance_of_a_claim(items_for_margin(margin, 0.2), margin, 0.2, 0)
    assert power == pytest.approx(0.8, abs=0.04)  # the announcement is an approximation


def test_pairs_without_discordance_need_as_many_items_as_the_rule_of_three_says():
    """None of n has this probability, (1 − margin)^n, of being seen if a share `margin` is lost."""
    needed = items_for_margin(0.02, 0)
    assert needed == math.ceil(math.log(0.05) / math.log(0.98))
    assert pairs_equivalence(needed - 1, 0, 0, 0.02) >= 0.05


# Samples, clusters and scores


def whole_flips(rng, items, difference):
    """Four answers to each item, all changed in few items and in one direction: the least normal of all."""
    changed = np.repeat(rng.random((items, 1)) < abs(difference), 4, axis=1).astype(int)
    return (0 * changed, changed, None) if difference > 0 else (changed, 0 * changed, None)


def samples(rng, items, difference):
    chance = rng.uniform(max(-difference, 0), min(1, 1 - difference), size=items)[:, None]
    return rng.binomial(1, chance, (items, 4)), rng.binomial(1, chance + difference, (items, 4)), None


def clusters(rng, count, difference):
    sizes = rng.integers(5, 16, count)
    gain, loss = (np.repeat(rng.beta(0.5, 0.5, count) * share, sizes) for share in (0.2 + difference, 0.2 - difference))
    drawn = rng.random(len(gain))
    return (drawn > 1 - loss).astype(int), (drawn < gain).astype(int), np.repeat(np.arange(count), sizes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("design", "units", "margin"),
    [
        (whole_flips, 100, 0.025),
        (whole_flips, 100, 0.05),
        (samples, 60, 0.15),
        (clusters, 30, 0.1),
        (clusters, 60, 0.06),
    ],
)
def test_samples_and_clusters_that_differ_by_the_margin_are_rarely_claimed_to_differ_by_less(design, units, margin):
    rng = np.random.default_rng(units)
    claimed = []
    for run in range(SIMULATIONS):
        before, after, owners = design(rng, units, margin if run % 2 else -margin)
        gathered = gather_units(score_matrix("baseline", before), score_matrix("treated", after), owners)
        claimed.append(units_equivalence(gathered, margin) < 0.05)
    assert np.mean(claimed) <= 0.05 + ERROR


def test_a_single_unit_and_equal_scores_claim_nothing():
    assert compare([0.25], [0.25], margin=5).p_equivalence == 1
    assert compare([0.5] * 9, [0.5] * 9, margin=0.1).p_equivalence == 1
    assert compare([0, 1], [0, 1], clusters=["a", "a"], margin=0.5).p_equivalence == 1


# What is said


def test_swapped_sides_and_units_of_scores_have_no_effect():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 80))
    p_value = compare(before, after, margin=0.5).p_equivalence
    assert p_value == compare(after, before, margin=0.5).p_equivalence
    assert compare(before * 1e90, after * 1e90, margin=0.5e90).p_equivalence == pytest.approx(p_value, rel=1e-9)
    pairs = sides(200, 9, 4)
    assert compare(*pairs, margin=0.1).p_equivalence == compare(*pairs[::-1], margin=0.1).p_equivalence


def test_a_margin_changes_nothing_but_what_is_said_of_it():
    pairs = sides(500, 10, 8)
    without, with_margin = compare(*pairs), compare(*pairs, margin=0.03)
    assert (without.margin, without.p_equivalence, without.verdict) == (None, None, "no difference shown")
    assert replace(with_margin, margin=None, p_equivalence=None) == without
    assert with_margin.verdict == "no difference larger than 0.03"
    assert with_margin.sentence.endswith(" over 500 items")


@pytest.mark.parametrize(
    ("gained", "lost", "margin", "verdict"),
    [
        (60, 20, 0.03, "helped"),
        (60, 20, 0.1, "helped by less than 0.1"),
        (20, 60, 0.1, "hurt by less than 0.1"),
        (40, 42, 0.001, "no difference shown"),
    ],
)
def test_a_difference_can_be_shown_and_be_smaller_than_the_margin(gained, lost, margin, verdict):
    assert compare(*sides(1000, gained, lost), margin=margin).verdict == verdict


def test_a_wider_margin_is_easier_to_keep():
    p_values = [compare(*sides(300, 12, 9), margin=margin).p_equivalence for margin in (0.02, 0.03, 0.05, 0.1, 0.3)]
    assert p_values == sorted(p_values, reverse=True)
