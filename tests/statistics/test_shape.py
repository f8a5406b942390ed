"""Measures against slow loops, their symmetries, and distributions whose number of modes is known."""

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import oracle
from armlet.inspection.synthetic import synthetic
from armlet.redistribution import Inward, Outward, Transport, redistribute
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.outward import near_zero_halfwidth
from armlet.statistics.shape import MEASURES, count_modes, difference, measure

# Zeros and ties are the special cases; what is tiny next to the rest would only test rounding.
ELEMENTS = st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0]), st.floats(-50, 50, width=32).map(lambda x: round(x, 3)))
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 12))
MATRICES = hnp.arrays(np.float32, SHAPES, elements=ELEMENTS).map(torch.from_numpy)

SEEDS = range(20)


def measured(a):
    return measure(a, halfwidth=near_zero_halfwidth(a))


def slow_gini(row):
    pairs = [abs(abs(x) - abs(y)) for x in row for y in row]
    total = sum(abs(x) for x in row)
    return sum(pairs) / (2 * len(row) * total) if total else 0.0


def slow(a, halfwidth):
    rows = a.double().tolist()
    pooled = [x for row in rows for x in row]
    mean = sum(pooled) / len(pooled)
    variance = sum((x - mean) ** 2 for x in pooled) / len(pooled)
    near = [abs(x) < e for row, (e,) in zip(rows, halfwidth.tolist(), strict=True) for x in row]
    return {
        "near_zero": sum(near) / len(near),
        "std": math.sqrt(variance),
        "kurtosis": sum((x - mean) ** 4 for x in pooled) / len(pooled) / variance**2 - 3 if variance else math.nan,
        "l1": sum(sum(abs(x) for x in row) for row in rows) / len(rows),
        "l2": sum(math.sqrt(sum(x * x for x in row)) for row in rows) / len(rows),
        "gini": sum(slow_gini(row) for row in rows) / len(rows),
    }


@given(MATRICES)
def test_measures_equal_slow_loops(a):
    halfwidth = near_zero_halfwidth(a)
    fast = measure(a, halfwidth=halfwidth)
    for name, expected in slow(a, halfwidth).items():
        # Both sides round in float64, in different orders; 600 terms of size 50⁴ at most.
        assert fast[name] == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True), name


@given(MATRICES, st.floats(0.01, 2))
def test_halfwidth_is_the_oracles_epsilon_of_each_token(a, band):
    for row, width in zip(a.numpy(), near_zero_halfwidth(a, band), strict=True):
        magnitudes = np.abs(row)
        # Float32 statistics against float64 ones: the rounding of |a| − median, then of the product.
        tolerance = 1e-6 * float(magnitudes.max()) + 1e-12
        assert width.item() == pytest.approx(1.4826 * oracle.mad(magnitudes) * band, rel=1e-6, abs=tolerance)


def test_measure_gives_exactly_the_measures_in_order():
    assert list(measured(torch.randn(3, 50))) == list(MEASURES)


@pytest.mark.slow
@given(MATRICES, st.integers(-20, 20))
def test_scaling_scales_lengths_and_leaves_shape(a, power):
    assume(bool(a.any()))
    # The floor under the MAD is absolute; it does not scale.
    assume(min(near_zero_halfwidth(a).min(), near_zero_halfwidth(a * 2.0**power).min()) > 1e-9)
    before, after = measured(a), measured(a * 2.0**power)
    for name in MEASURES:
        factor = 2.0**power if name in ("std", "l1", "l2") else 1
        # A power of two rounds nothing, so bits are compared.
        np.testing.assert_equal(after[name], before[name] * factor, name)


@given(MATRICES)
def test_mirror_image_has_the_same_measures(a):
    before, after = measured(a), measured(-a)
    # The mean of the mirror image is summed in the same order, so nothing differs but the side a cell's edge falls on.
    del before["modes"], after["modes"]
    np.testing.assert_equal(before, after)


@pytest.mark.slow
@given(MATRICES, st.randoms(use_true_random=False))
def test_order_within_a_token_does_not_matter(a, random):
    order = list(range(a.shape[1]))
    random.shuffle(order)
    shuffled = measured(a[:, order])
    for name, value in measured(a).items():
        assert shuffled[name] == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtype_of_the_same_values_does_not_matter(dtype):
    a = torch.randn(4, 300, generator=torch.Generator().manual_seed(0)).bfloat16().to(torch.float16).to(dtype)
    assert measured(a) == measured(a.float())


@pytest.mark.parametrize("requires_grad", [False, True])
def test_measuring_leaves_the_values_alone(requires_grad):
    a = torch.randn(2, 30, requires_grad=requires_grad)
    kept = a.detach().clone()
    measured(a)
    assert torch.equal(a.detach(), kept)


def test_one_ruler_serves_both_sides():
    before = torch.linspace(-1, 1, 101)[None]
    halfwidth = near_zero_halfwidth(before)
    after = before * 100
    assert measure(after, halfwidth=halfwidth)["near_zero"] < measure(before, halfwidth=halfwidth)["near_zero"]
    assert measured(after)["near_zero"] == measured(before)["near_zero"]


def test_gini_is_zero_for_equal_magnitudes_and_nearly_one_for_a_single_spike():
    assert measured(torch.tensor([[1.0, -1.0, 1.0, -1.0]]))["gini"] == 0
    assert measured(torch.eye(1, 1000))["gini"] == pytest.approx(0.999)


def test_zeros_have_no_tail_no_kurtosis_and_one_mode():
    zeros = measured(torch.zeros(2, 5))
    assert math.isnan(zeros["max_over_median"])
    assert math.isnan(zeros["kurtosis"])
    assert (zeros["modes"], zeros["std"], zeros["l1"], zeros["l2"], zeros["gini"]) == (1, 0, 0, 0, 0)


def test_mostly_zeros_have_an_infinite_tail():
    assert measured(torch.eye(1, 9))["max_over_median"] == math.inf


def test_a_single_value_can_be_measured():
    one = measured(torch.tensor([[-2.0]]))
    assert (one["modes"], one["std"], one["l1"], one["l2"], one["max_over_median"]) == (1, 0, 2, 2, 1)


def test_difference_is_after_minus_before():
    before, after = measured(torch.randn(2, 40)), measured(torch.randn(2, 40))
    assert difference(before, after) == {name: after[name] - before[name] for name in MEASURES}


@pytest.mark.parametrize("shape", [(), (4,), (0, 4), (4, 0), (1, 2, 3)])
def test_what_is_no_filled_matrix_is_refused(shape):
    with pytest.raises(ArgumentError, match="tokens, width"):
        near_zero_halfwidth(torch.zeros(shape))
    with pytest.raises(ArgumentError, match="tokens, width"):
        measure(torch.zeros(shape), halfwidth=torch.ones(1, 1))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_values_are_refused(value):
    with pytest.raises(ArgumentError, match="NaN or Inf"):
        measure(torch.tensor([[1.0, value]]), halfwidth=torch.ones(1, 1))


@pytest.mark.parametrize("shape", [(2,), (1, 1), (2, 3)])
def test_a_halfwidth_of_another_shape_is_refused(shape):
    with pytest.raises(ArgumentError, match="halfwidth"):
        measure(torch.ones(2, 3), halfwidth=torch.ones(shape))


def mixture(seed, centres, deviation, count):
    rng = np.random.default_rng(seed)
    return rng.choice(centres, count) + deviation * rng.standard_normal(count)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [2000, 4000, 50_000])
def test_five_mode_mixture_has_five_modes(seed, count):
    assert count_modes(mixture(seed, [-2.5, -1, 0, 1, 2.5], 0.18, count)) == 5


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [100, 4000, 50_000])
def test_one_mode_is_one_mode(seed, count):
    rng = np.random.default_rng(seed)
    assert count_modes(rng.standard_normal(count)) == 1
    assert count_modes(rng.standard_t(2, count)) == 1
    assert count_modes(rng.exponential(size=count)) == 1
    assert count_modes(rng.random(count)) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_two_separate_normals_have_two_modes(seed):
    assert count_modes(mixture(seed, [-3, 3], 1, 2000)) == 2


@pytest.mark.parametrize("seed", range(6))
def test_pile_up_at_the_minimum_of_silu_is_a_mode_beside_the_one_near_zero(seed):
    # One value in 300 lies within 0.001 of the minimum: a mode only if the edge is not smoothed away.
    gate = 0.1 + 0.5 * torch.randn(400_000, generator=torch.Generator().manual_seed(seed))
    assert count_modes(torch.nn.functional.silu(gate).double().numpy()) == 2


@pytest.mark.parametrize("distance", [1e2, 1e6, 1e30])
def test_a_far_outlier_is_no_mode_and_costs_nothing(distance):
    values = np.append(mixture(0, [-3, 3], 1, 5000), distance)
    assert count_modes(values) == 2


@given(st.integers(1, 3000))
def test_equal_values_have_one_mode(count):
    assert count_modes(np.full(count, -0.278)) == 1


@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e6, 1e6)))
def test_every_sample_has_a_mode(values):
    assert count_modes(values) >= 1


def test_half_the_values_at_zero_do_not_hide_the_other_modes():
    assert count_modes(np.append(np.zeros(6000), mixture(0, [-3, 3], 0.5, 4000))) == 3


def test_transport_leaves_one_mode_and_a_narrower_spread():
    before = synthetic("modes")
    after = redistribute(before, Transport())
    halfwidth = near_zero_halfwidth(before)
    change = difference(measure(before, halfwidth=halfwidth), measure(after, halfwidth=halfwidth))
    assert (measured(before)["modes"], measured(after)["modes"]) == (5, 1)
    assert change["std"] < -0.2
    assert change["near_zero"] < 0


def test_inward_shortens_heavy_tails_and_leaves_the_middle():
    before = synthetic("heavy-tail")
    after = redistribute(before, Inward())
    halfwidth = near_zero_halfwidth(before)
    change = difference(measure(before, halfwidth=halfwidth), measure(after, halfwidth=halfwidth))
    assert change["near_zero"] == 0
    assert change["kurtosis"] < 0
    assert change["max_over_median"] < 0
    assert change["std"] < 0


def test_outward_empties_the_neighbourhood_of_zero():
    before = synthetic("heavy-tail", tokens=8)
    after = redistribute(before, Outward())
    halfwidth = near_zero_halfwidth(before)
    assert measure(after, halfwidth=halfwidth)["near_zero"] < 0.2 * measure(before, halfwidth=halfwidth)["near_zero"]
