"""The bins contain what numpy counts, and the curves are the quantiles of what a policy made of each bin's values."""

from time import thread_time

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from armlet.inspection.distributions import BINS, TRANSFER_QUANTILES, distributions, full_range, near_zero_window
from armlet.inspection.measure import inspect_gates
from armlet.inspection.records import GateSample, Panel
from armlet.inspection.synthetic import synthetic
from armlet.redistribution import Inward, Outward, Transport

PAIRS = st.integers(1, 60).flatmap(
    lambda n: st.tuples(*(hnp.arrays(np.float32, n, elements=st.floats(-50, 50, width=32)) for _ in range(2)))
)


def panel(before, after):
    return Panel("Outward", "band 0.13", before, after, before != after)


def redistributed(policy, *, scope="token", width=1024):
    gates = GateSample([synthetic("heavy-tail", tokens=4, width=width)])
    return inspect_gates(gates, [policy], scope=scope).effects[0].panel


@given(PAIRS)
@example((np.zeros(1, dtype=np.float32),) * 2)
@example((np.float32([0, 0, 0.1, -0.1, 40]), np.float32([40, 0, 0, -9, 40])))
def test_both_views_count_as_numpy_does(pair):
    for view in distributions(panel(*pair)):
        for values, counts in zip(pair, (view.before, view.after), strict=True):
            np.testing.assert_array_equal(counts, np.histogram(values.astype(np.float64), view.edges)[0])


@given(PAIRS)
def test_curves_are_numpys_quantiles_of_the_values_after_of_each_bin(pair):
    before, after = (values.astype(np.float64) for values in pair)
    for view in distributions(panel(*pair)):
        place = np.digitize(before, view.edges) - 1
        place[before == view.edges[-1]] = BINS - 1
        for index in range(BINS):
            values, curves = after[place == index], [curve[index] for curve in (view.low, view.middle, view.high)]
            expected = np.quantile(values, TRANSFER_QUANTILES) if values.size else [np.nan] * 3
            np.testing.assert_allclose(curves, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("policy", [Outward(), Inward(), Transport()])
def test_the_first_view_is_of_all_values_and_the_second_near_zero(policy):
    shown = redistributed(policy)
    everything, near_zero = distributions(shown)
    assert everything.before.sum() == everything.after.sum() == shown.before.size
    assert (everything.edges[0], everything.edges[-1]) == full_range([shown])
    assert (near_zero.edges[0], near_zero.edges[-1]) == near_zero_window(shown.before, full_range([shown]))
    assert 0 < near_zero.before.sum() < shown.before.size


def test_a_wider_window_is_shown_whole():
    everything, _ = distributions(redistributed(Inward()), window=(-1e3, 1e3))
    assert (everything.edges[0], everything.edges[-1]) == (-1e3, 1e3)


def test_of_inward_the_median_is_its_formula_within_a_bin():
    shown = redistributed(Inward(knee=0.9), scope="call")
    knee = np.quantile(np.abs(shown.before), 0.9)
    for view in distributions(shown):
        centres, width = (view.edges[:-1] + view.edges[1:]) / 2, view.edges[1] - view.edges[0]
        with np.errstate(divide="ignore"):
            formula = np.where(
                np.abs(centres) <= knee, centres, np.sign(centres) * knee * (1 + np.log(np.abs(centres) / knee))
            )
        filled = view.before > 0
        assert (np.abs(view.middle - formula)[filled] <= width).all()
        assert (view.low[filled] <= view.middle[filled]).all()
        assert (view.middle[filled] <= view.high[filled]).all()


@pytest.mark.slow
def test_a_hundred_thousand_values_take_under_25_milliseconds():
    shown = redistributed(Outward(), width=25_000)

    def seconds():
        start = thread_time()
        distributions(shown)
        return thread_time() - start

    assert min(seconds() for _ in range(9)) < 0.025
