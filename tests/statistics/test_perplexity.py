"""The ratio of two perplexities: an interval in units of the differences, by a seed."""

from armlet.statistics.perplexity import PerplexityRatio


def test_a_ratio_has_an_interval_in_units_of_the_differences():
    losses = [3.0, 4.0, 2.0, 5.0, 3.5, 2.5, 4.5, 3.2]
    ratio = PerplexityRatio.between(losses, [loss + 0.01 + 0.001 * (at % 3) for at, loss in enumerate(losses)])
    assert 1 < ratio.low < ratio.ratio < ratio.high < 1.03
    assert PerplexityRatio.between(losses, losses) == PerplexityRatio(1, 1, 1)


def test_a_seed_is_that_of_the_bootstrap():
    losses = [3 + 0.1 * (at * at % 17) for at in range(40)]
    after = [loss + 0.01 * (at * at % 23) for at, loss in enumerate(losses)]
    assert PerplexityRatio.between(losses, after, 1).low != PerplexityRatio.between(losses, after, 2).low
