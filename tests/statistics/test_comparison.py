"""The paired comparison agrees with its sources, covers what it says and shows what it announces."""

import json
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import ttest_power

from armlet.redistribution.errors import ArgumentError
from armlet.statistics import intervals
from armlet.statistics.comparison import Comparison, compare
from armlet.statistics.power import detectable, t_detectable
from armlet.statistics.significance import corrected, holm, is_significant
from armlet.statistics.units import gather_units, score_matrix

SIMULATIONS = 400
SLACK = 0.022  # two standard errors of a share of 5 % in so many simulations


@pytest.fixture
def few(monkeypatch):
    """Fewer resamples, for simulations."""
    monkeypatch.setattr(intervals, "UNIT_RESAMPLES", 499)


def sides(items, gained, lost):
    baseline, treated = np.zeros(items, int), np.zeros(items, int)
    treated[:gained] = 1
    baseline[gained : gained + lost] = 1
    return baseline, treated


def mcnemar(gained, lost):
    """The definition: the binomial sum of the smaller number, twice."""
    pairs = gained + lost
    return min(1.0, 2 * sum(math.comb(pairs, at) for at in range(min(gained, lost) + 1)) / 2**pairs)


@pytest.mark.parametrize("gained", range(0, 13, 3))
@pytest.mark.parametrize("lost", range(0, 13, 4))
def test_the_p_value_of_pairs_is_the_binomial_sum(gained, lost):
    found = compare(*sides(40, gained, lost))
    assert found.p_value == pytest.approx(mcnemar(gained, lost), rel=1e-12)
    assert (found.gained, found.lost, found.test) == (gained, lost, "exact McNemar")
    assert found.difference == pytest.approx((gained - lost) / 40, abs=1e-15)


def test_one_sample_an_item_is_the_item_itself():
    baseline, treated = sides(60, 20, 9)
    assert compare(baseline[:, None], treated[:, None]) == compare(baseline, treated)


def test_flips_of_few_units_are_gone_through_all():
    before, after = np.array([0.1, 0.5, 0.2, 0.9, 0.3]), np.array([0.4, 0.7, 0.1, 1.0, 0.9])
    apart = after - before
    means = [np.dot(signs, apart) for signs in product((1, -1), repeat=5)]
    assert compare(before, after).p_value == 2 * np.mean([mean >= apart.sum() - 1e-12 for mean in means])


def test_flips_of_many_units_agree_with_the_t_test():
    rng = np.random.default_rng(0)
    before = rng.normal(size=300)
    after = before + rng.normal(size=300) + 0.11
    found = compare(before, after)
    assert found.p_value == pytest.approx(stats.ttest_rel(after, before).pvalue, abs=0.01)
    assert found.test == "sign flips of items"


def test_the_interval_is_scipys_bootstrap_at_the_raised_level():
    rng = np.random.default_rng(1)
    before, after = rng.normal(size=40), rng.normal(size=40) + 0.3
    found = compare(before, after, seed=5)
    level = 1 - 2 * stats.norm.cdf(stats.t.ppf(0.025, 39) * math.sqrt(40 / 39))
    theirs = stats.bootstrap(
        (after - before,), np.mean, confidence_level=level, n_resamples=99_999, batch=2000, rng=np.random.default_rng(9)
    ).confidence_interval
    # Both ends are quantiles of random draws: 9,999 of them place a 2 % quantile to about 2 % of the width.
    assert found.interval == pytest.approx(tuple(theirs), abs=0.03 * (theirs.high - theirs.low))
    assert found.method == "BCa bootstrap over items"


def test_few_discordant_pairs_take_one_more_item_in_each_direction():
    found = compare(*sides(30, 4, 1))
    more = [1] * 5 + [-1] * 2 + [0] * 25
    theirs = stats.t.interval(0.95, 31, loc=np.mean(more), scale=stats.sem(more))
    assert found.interval == pytest.approx(theirs, rel=1e-12)
    assert found.method == "Bonett-Price over items"


@pytest.mark.parametrize("items", [2, 10, 1000])
def test_no_discordant_pair_is_no_proof_of_none(items):
    same = np.arange(items) % 2
    found = compare(same, same)
    assert found.interval[0] < 0 < found.interval[1]
    assert found.interval[0] == -found.interval[1]
    assert (found.difference, found.p_value, found.verdict) == (0, 1, "no difference shown")


def test_samples_and_clusters_that_never_differ_have_an_interval_and_an_announcement_too():
    same = np.random.default_rng(0).integers(0, 2, (50, 4))
    found = compare(same, same)
    assert found.interval[0] < 0 < found.interval[1]
    assert found.smallest_detectable == pytest.approx(detectable(50, 0))
    grouped = compare(same[:, 0], same[:, 0], clusters=np.arange(50) // 5)
    assert grouped.interval[0] < 0 < grouped.interval[1]
    assert grouped.smallest_detectable == pytest.approx(detectable(10, 0))


def test_one_item_says_nothing_of_others():
    assert compare([0], [1]).interval == (-1, 1)
    assert compare([0.25], [0.5]).interval == (-math.inf, math.inf)
    assert compare([0.5] * 4, [0.5] * 4).interval == (-math.inf, math.inf)
    alone = compare([0.25, 0.5], [0.5, 0.5], clusters=["a", "a"])
    assert alone.interval == (-math.inf, math.inf)
    assert (alone.smallest_detectable, alone.p_value) == (None, 1)


def test_the_difference_is_the_mean_over_items_of_their_means():
    rng = np.random.default_rng(3)
    before, after = rng.integers(0, 2, (30, 5)), rng.integers(0, 2, (30, 3))
    found = compare(before, after)
    assert found.difference == pytest.approx(after.mean() - before.mean(), abs=1e-15)
    assert (found.baseline_mean, found.treated_mean) == pytest.approx((before.mean(), after.mean()))
    assert (found.gained, found.lost) == (None, None)


@pytest.mark.slow
def test_clusters_are_resampled_whole():
    rng = np.random.default_rng(4)
    owners = np.repeat(np.arange(40), 25)
    before = rng.normal(size=1000)
    after = before + rng.normal(size=40)[owners] + 0.1 * rng.normal(size=1000)
    grouped, apart = compare(before, after, clusters=owners), compare(before, after)
    assert np.ptp(grouped.interval) > 3 * np.ptp(apart.interval)
    means = (after - before).reshape(40, 25).mean(axis=1)
    assert np.ptp(grouped.interval) == pytest.approx(np.ptp(compare(means * 0, means).interval), rel=0.05)
    assert (grouped.clusters, grouped.items, grouped.difference) == (40, 1000, apart.difference)


def test_items_weigh_the_same_in_clusters_of_unequal_sizes():
    owners = ["big"] * 8 + [f"{at}" for at in range(30)]
    after = np.array([1] * 8 + [0] * 30)
    found = compare(np.zeros(38), after, clusters=owners)
    assert found.difference == pytest.approx(8 / 38)
    assert (found.clusters, found.gained) == (31, 8)


# Power


def brute_power(items, discordant, difference, alpha=1 - 0.95):
    gain, loss = (discordant + difference) / 2, (discordant - difference) / 2
    total = 0.0
    for gained in range(items + 1):
        for lost in range(items - gained + 1):
            if mcnemar(gained, lost) < alpha:
                ways = math.comb(items, gained) * math.comb(items - gained, lost)
                total += ways * gain**gained * loss**lost * (1 - discordant) ** (items - gained - lost)
    return total


@pytest.mark.parametrize(("items", "discordant"), [(8, 0.0), (12, 0.3), (20, 0.5), (25, 0.2), (25, 1.0)])
def test_at_the_detectable_difference_the_power_is_80_percent_by_enumeration(items, discordant):
    found = detectable(items, discordant)
    assert found is not None
    assert brute_power(items, max(discordant, found), found) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("items", range(1, 6))
def test_fewer_than_six_pairs_can_show_nothing(items):
    assert detectable(items, 0.5) is None
    assert compare(np.zeros(items), np.ones(items)).verdict == "no difference shown"
    assert detectable(6, 0.5) is not None


def test_a_share_of_none_discordant_is_as_good_as_a_small_share():
    none = detectable(500, 0.0)
    assert none is not None
    assert none == pytest.approx(detectable(500, 1 - 0.05 ** (1 / 500)), rel=1e-6)  # the 95 % bound of none in 500
    assert 500 * none == pytest.approx(7.9, abs=0.1)  # so many, all in one direction, are six or more in 80 %


def test_more_items_show_less_and_more_power_asks_for_more():
    found = [detectable(items, 0.2) or 9 for items in (50, 100, 400, 2000)]
    assert found == sorted(found, reverse=True)
    assert (detectable(200, 0.2, power=0.9) or 0) > (detectable(200, 0.2) or 9)
    assert (detectable(200, 0.2, confidence=0.99) or 0) > (detectable(200, 0.2) or 9)
    assert detectable(200, 0.2, confidence=0.1) == 0  # rejects in more than 80 % as it is


def test_after_a_run_the_share_seen_is_used():
    assert compare(*sides(200, 20, 18)).smallest_detectable == detectable(200, 38 / 200)


@pytest.mark.parametrize(("items", "discordant"), [(50, 0.3), (200, 0.02), (500, 0.1), (2000, 0.1)])
def test_pairs_reject_as_often_as_announced_and_no_oftener_than_5_percent_without_a_difference(items, discordant):
    announced = detectable(items, discordant) or 1
    for difference, least, most in ((0.0, 0.0, 0.05 + 0.006), (announced, 0.77, 0.83)):
        share = max(discordant, difference)
        chances = [(share + difference) / 2, (share - difference) / 2, 1 - share]
        drawn = np.random.default_rng(items).multinomial(items, chances, size=4000)[:, :2]
        table = {tuple(pair): mcnemar(*map(int, pair)) for pair in np.unique(drawn, axis=0)}
        assert least <= np.mean([table[tuple(pair)] < 1 - 0.95 for pair in drawn]) <= most


# Coverage


def gathered_units(before, after, owners):
    return gather_units(score_matrix("baseline", before), score_matrix("treated", after), owners)


def drawn_interval(before, after, owners, seed):
    return intervals.paired_interval(gathered_units(before, after, owners), 0.95, seed)[:2]


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("items", "discordant", "direction", "most"),
    # Fewer than 20 discordant pairs are the fallback's: it may cover more than 97 %.
    [(50, 0.02, 0.5, 1), (50, 0.3, 0, 1), (200, 0.02, 1, 1), (200, 0.2, 0.5, 0.97), (500, 0.1, 0.5, 0.97)],
)
def test_intervals_of_pairs_cover_the_truth(items, discordant, direction, most):
    truth = discordant * direction
    chances = [(discordant + truth) / 2, (discordant - truth) / 2, 1 - discordant]
    drawn = np.random.default_rng(items).multinomial(items, chances, size=SIMULATIONS)[:, :2]
    intervals = [drawn_interval(*sides(items, *pair), None, seed) for seed, pair in enumerate(drawn)]
    held = np.mean([low - 1e-12 <= truth <= high + 1e-12 for low, high in intervals])
    assert 0.93 - SLACK <= held <= most + SLACK


def samples(rng, shift):
    chance = rng.uniform(0.2, 0.6, size=60)[:, None]
    return rng.binomial(1, chance, size=(60, 4)), rng.binomial(1, chance + shift, size=(60, 6)), None


def skewed(rng, shift):
    common = rng.normal(size=60)
    before, after = np.exp(common + rng.normal(size=(2, 60)) / 2)
    return before, after + shift, None


def grouped(rng, shift):
    owners = np.repeat(np.arange(30), rng.integers(3, 9, size=30))
    before = rng.normal(size=len(owners))
    return before, before + (rng.normal(size=30) * 0.6)[owners] + rng.normal(size=len(owners)) * 0.8 + shift, owners


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("design", "most"), [(samples, 0.97), (skewed, 1), (grouped, 0.97)])
def test_intervals_of_samples_scores_and_clusters_cover_the_truth(design, most):
    rng = np.random.default_rng(11)
    held = [low <= 0 <= high for low, high in (drawn_interval(*design(rng, 0), seed) for seed in range(SIMULATIONS))]
    assert 0.93 - SLACK <= np.mean(held) <= most + SLACK


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("design", [samples, grouped])
def test_flips_reject_as_often_as_announced_and_no_oftener_than_5_percent_without_a_difference(design):
    rng = np.random.default_rng(12)

    def gathered(shift):
        before, after, owners = design(rng, shift)
        return gathered_units(before, after, owners)

    announced = float(np.mean([t_detectable(gathered(0), 0.95) for _ in range(50)]))
    # Each its own seed: few flips with one and the same would be wrong in one and the same way.
    rejected = [
        [intervals.sign_flips(gathered(shift), seed) < 1 - 0.95 for seed in range(SIMULATIONS)]
        for shift in (0, announced)
    ]
    assert np.mean(rejected[0]) <= 0.05 + SLACK
    # Three points, and two standard errors.
    assert np.mean(rejected[1]) == pytest.approx(0.8, abs=0.03 + 0.04)


def test_one_item_that_outweighs_the_rest_keeps_the_bootstrap_out():
    after = np.random.default_rng(0).normal(size=60)
    assert compare(np.zeros(60), after).method == "BCa bootstrap over items"
    after[3] = 20
    assert compare(np.zeros(60), after).method == "Bonett-Price over items"


@pytest.mark.parametrize("items", [6, 9, 40, 1000, 20_000])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99, 0.999])
def test_the_t_tests_announcement_is_found_or_none(items, confidence):
    """The solver once stopped at NaN without a word, at seven times the answer."""
    rng = np.random.default_rng(0)
    units = gather_units(np.zeros((items, 1)), rng.normal(size=(items, 1)), None)
    found, spread = t_detectable(units, confidence), units.sums.std(ddof=1) * units.scale / math.sqrt(items)
    if 2 / min(2.0 ** min(items, 60), 10_000) >= 1 - confidence:
        assert found is None
    else:
        assert found is not None
        z = stats.norm.isf((1 - confidence) / 2) + stats.norm.isf(0.2)
        assert found > z * spread * 0.99
        if items >= 40:
            assert found < 1.15 * z * spread


# What holds for all inputs

pairs_of_scores = st.integers(1, 12).flatmap(
    lambda items: st.tuples(*[st.lists(st.integers(-3, 3).map(lambda x: x / 4), min_size=items, max_size=items)] * 2)
)
pairs_of_answers = st.integers(1, 40).flatmap(
    lambda items: st.tuples(*[st.lists(st.integers(0, 1), min_size=items, max_size=items)] * 2)
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.one_of(pairs_of_scores, pairs_of_answers), st.randoms(use_true_random=False), st.booleans())
def test_swapped_sides_mirror_and_the_order_of_items_is_no_matter(both, random, whole):
    baseline, treated = both
    owners = None if whole else [at % 3 for at in range(len(baseline))]
    found, swapped = compare(baseline, treated, clusters=owners), compare(treated, baseline, clusters=owners)
    assert swapped.difference == -found.difference
    assert (swapped.p_value, swapped.smallest_detectable) == (found.p_value, found.smallest_detectable)
    assert swapped.interval == pytest.approx((-found.interval[1], -found.interval[0]), abs=1e-12)
    assert (swapped.gained, swapped.lost) == (found.lost, found.gained)
    order = random.sample(range(len(baseline)), len(baseline))
    again = compare(
        [baseline[at] for at in order],
        [treated[at] for at in order],
        clusters=None if owners is None else [owners[at] for at in order],
    )
    assert again == found
    assert found.interval[0] <= found.difference <= found.interval[1]
    assert 0 <= found.p_value <= 1
    json.dumps(found.plain(), allow_nan=False)


def test_swapped_sides_mirror_the_bootstrap_too():
    baseline, treated = sides(200, 31, 22)
    found, swapped = compare(baseline, treated), compare(treated, baseline)
    assert found.method == "BCa bootstrap over items"
    assert swapped.interval == pytest.approx((-found.interval[1], -found.interval[0]), abs=1e-15)
    even = compare(*sides(200, 25, 25)).interval
    assert even[0] == -even[1]


def test_the_seed_decides_and_numpys_own_generator_stays_as_it_was():
    rng = np.random.default_rng(2)
    before, after = rng.normal(size=(2, 50))
    state = np.random.get_state()[1].copy()
    first = compare(before, after, seed=1)
    assert compare(before, after, seed=1) == first
    assert compare(before, after, seed=2).interval != first.interval
    assert (np.random.get_state()[1] == state).all()


@pytest.mark.parametrize("confidence", [1e-6, 0.3, 0.999, 0.9999999999])
def test_any_confidence_gives_an_interval_around_the_difference(confidence):
    rng = np.random.default_rng(6)
    before, after = rng.lognormal(0, 2, size=(2, 30))
    for one in (compare(before, after, confidence=confidence), compare(*sides(90, 40, 21), confidence=confidence)):
        assert one.interval[0] <= one.difference <= one.interval[1]


@pytest.mark.usefixtures("few")
def test_tiny_and_huge_scores_are_compared_as_any():
    rng = np.random.default_rng(7)
    before, after = rng.normal(size=(2, 40))
    one = compare(before, after)
    for size in (1e-150, 1e90):
        other = compare(before * size, after * size)
        assert other.p_value == one.p_value
        assert other.interval == pytest.approx(tuple(bound * size for bound in one.interval), rel=1e-9)


# What is said

PLAIN = {"p_value": 0.2, "smallest_detectable": 0.0141, "baseline_mean": 0.5, "treated_mean": 0.5, "items": 2000}
PLAIN |= {"clusters": None, "gained": 3, "lost": 7, "confidence": 0.95, "method": "", "test": ""}


def made(**changes):
    return Comparison(**({"difference": -0.002, "interval": (-0.012, 0.008)} | PLAIN | changes))


def test_the_sentence_says_verdict_difference_interval_and_what_could_go_unseen():
    assert made().sentence == (
        "no difference shown: −0.002 [−0.012, +0.008] over 2,000 items; they fit any true difference in the interval, "
        "0 included; if the true difference were 0.014, 4 of 5 such comparisons would show it"
    )
    beside = made(interval=(-0.012, -0.0001), margin=0.005, p_equivalence=0.3)
    assert "; the interval excludes 0, but p = 0.200; one larger than 0.005 is not ruled out; if the" in beside.sentence
    helped = made(difference=0.031, interval=(0.012, 0.05), p_value=0.001)
    assert helped.sentence == "helped: +0.031 [+0.012, +0.050] over 2,000 items"
    hurt = made(p_value=0.049, clusters=40)
    assert hurt.sentence == "hurt: −0.002 [−0.012, +0.008] over 2,000 items in 40 clusters"
    small = made(items=1, smallest_detectable=None, interval=(-math.inf, math.inf))
    assert small.sentence == (
        "no difference shown: −0.002 [−∞, +∞] over 1 item; they fit any true difference in the interval, 0 included; "
        "so few cannot show any"
    )
    assert small.plain()["interval"] == [None, None]
    assert "+0.00000120 [" in made(difference=1.2e-6, interval=(1e-6, 1.4e-6)).sentence


def test_the_p_value_alone_decides_the_verdict():
    assert made(p_value=0.051, confidence=0.95).verdict == "no difference shown"
    assert made(p_value=0.051, confidence=0.9).verdict == "hurt"


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95, 0.975, 0.98, 0.99, 0.995, 0.999])
def test_a_p_value_equal_to_the_level_is_not_significant(confidence):
    """1 − 0.95 is 0.05000000000000004 in floats, above 0.05: that p-value was once judged to have helped."""
    level = float(f"{1 - confidence:.6g}")
    assert made(p_value=level, confidence=confidence).verdict == "no difference shown"
    assert made(p_value=level * (1 - 1e-9), confidence=confidence).verdict == "hurt"


@pytest.mark.slow
def test_a_p_value_equal_to_a_corrected_level_is_not_significant():
    for comparisons in (1, 2, 5, 10, 25, 50, 125, 250):
        p_value = 2 * (250 / comparisons / 10_000)  # as flips count it: 250 / comparisons of 10,000, on both sides
        assert not is_significant(p_value, corrected(0.95, comparisons))
        assert not is_significant(holm([p_value] + [1.0] * (comparisons - 1))[0], 0.95)
        assert is_significant(p_value * (1 - 1e-9), corrected(0.95, comparisons))


def test_the_power_of_flips_is_at_the_largest_p_value_that_is_significant():
    """0.0498, of steps of 2 / 10,000 below 0.05; not 0.05 itself."""
    units = gather_units(np.zeros((400, 1)), np.random.default_rng(0).normal(size=(400, 1)), None)
    noncentrality = (t_detectable(units, 0.95) or 0) / (units.values.std(ddof=1) * units.scale) * math.sqrt(400)
    # In units of the spread seen, as in t_detectable; sizes are all 1.
    assert ttest_power(noncentrality / 20, 400, 0.0498 / 2, alternative="larger") == pytest.approx(0.8, abs=1e-9)


@pytest.mark.slow
def test_holm_multiplies_the_smallest_by_all_the_next_by_one_less():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    with pytest.raises(ArgumentError, match="from 0 to 1"):
        holm([0.1, math.nan])


@pytest.mark.parametrize(
    ("baseline", "treated", "settings", "says"),
    [
        ([], [], {}, "shape"),
        ([0, 1], [0, 1, 1], {}, "same items"),
        ([0, math.nan], [0, 1], {}, "NaN"),
        ([0, 1], [0, math.inf], {}, "infinity"),
        ([[0, 1], [1]], [0, 1], {}, "unequal"),
        (["a"], ["b"], {}, "baseline contains text: give numbers"),
        ("ab", [0, 1], {}, "baseline contains text: give numbers"),
        ([0, 1], [[0, 1], [1]], {}, "treated has rows of unequal length"),
        ([0, 1], [0, 1], {"clusters": [[1], [1, 2]]}, "clusters has rows of unequal length"),
        ([0, 1], [0, 1], {"confidence": "high"}, "confidence is 'high'"),
        (np.zeros((2, 0)), [0, 1], {}, "shape"),
        (np.zeros((2, 2, 2)), [0, 1], {}, "shape"),
        ([0, 1], [0, 1], {"confidence": 1}, "confidence"),
        ([0, 1], [0, 1], {"confidence": math.nan}, "confidence"),
        ([0, 1], [0, 1], {"clusters": [1]}, "one label"),
        ([0, 1], [0, 1], {"clusters": np.array([None, 1], dtype=object)}, "sorted"),
        ([0, 1], [0, 1], {"margin": 2}, "margin is 2: give a fraction of the items, such as 0.02 for 2 points"),
        ([0, 1], [0, 1], {"margin": 0}, "margin is 0: give a fraction"),
        ([0, 1], [0, 1], {"margin": "2"}, "margin is '2'"),
        ([0, 0.5], [0, 1], {"margin": math.inf}, "margin is inf: give a score above 0"),
        ([0, 1], [0, 1], {"seed": -1}, "seed"),
        ([0, 1], [0, 1], {"seed": 0.5}, "seed"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(baseline, treated, settings, says):
    with pytest.raises(ArgumentError, match=says) as caught:
        compare(baseline, treated, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [(0, 0.1), (10, -0.1), (10, math.nan), (10, 0.1, 1.0), (10, 0.1, 0.95, 0.0)])
def test_a_power_that_cannot_be_computed_is_refused(arguments):
    with pytest.raises(ArgumentError):
        detectable(*arguments)
