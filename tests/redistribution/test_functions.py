"""ln, tanh and the half-normal quantile against the platform's, in units of the last place."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

from armlet.redistribution.functions import half_normal_quantile, log, part_of_the_way, tanh
from gates import same_bits

EPS = 2.0**-52
SMALLEST, LARGEST = 2.0**-1022, float(np.finfo(np.float64).max)


def spread(count, low, high):
    """Numbers whose logarithms are spread evenly."""
    return torch.linspace(low, high, count, dtype=torch.float64).exp()


def assert_log(x):
    # One unit in the last place each: ours, and the platform's that it is compared with.
    np.testing.assert_array_max_ulp(log(x).numpy(), np.log(x.numpy()), 2)


def test_log_is_within_two_units_in_the_last_place_from_the_smallest_to_the_largest_number():
    assert_log(spread(200_001, np.log(SMALLEST) + 1e-9, np.log(LARGEST) - 1e-9))
    assert_log(torch.tensor([SMALLEST, LARGEST, 0.5, 0.5**0.5, 2**0.5, 2.0], dtype=torch.float64))


def test_log_is_within_two_units_in_the_last_place_round_one():
    assert_log(1 + spread(50_001, np.log(EPS), 1))
    assert_log(1 - spread(50_001, np.log(EPS), -0.7))
    assert log(torch.ones(1, dtype=torch.float64)).item() == 0


@given(st.floats(SMALLEST, LARGEST))
def test_log_of_any_normal_number(x):
    assert_log(torch.tensor([x], dtype=torch.float64))


def test_the_derivative_of_log_is_the_reciprocal():
    x = spread(50, -3, 3).requires_grad_()
    assert torch.autograd.gradcheck(log, (x,))


def assert_tanh(x):
    # Four units in the last place of ours, and two of the C library's.
    np.testing.assert_array_max_ulp(tanh(x).numpy(), np.array([math.tanh(value) for value in x.tolist()]), 6)


def test_tanh_has_the_bits_of_the_kernels_in_float64():
    from armlet.redistribution.backends.cpu.inward import tanh_of_number

    x, unit = spread(1_000, -3, 3), spread(1_000, 2, -2)
    assert tanh(x, unit).tolist() == [tanh_of_number(*pair) for pair in zip(x.tolist(), unit.tolist(), strict=True)]


def test_tanh_is_within_units_in_the_last_place_everywhere_and_where_its_pieces_meet():
    x = spread(100_001, -600, np.log(25))
    assert_tanh(torch.cat((x, -x)))
    meetings = (torch.arange(0.5, 60) * np.log(2) / 2).to(torch.float64)
    assert_tanh(torch.cat([meetings * (1 + i * EPS) for i in range(-20, 21)]))


@given(st.floats(1e-300, 1e300))
def test_tanh_is_odd_and_at_most_1(x):
    low, high = tanh(torch.tensor([-x, x], dtype=torch.float64)).tolist()
    assert -1 <= low == -high
    assert_tanh(torch.tensor([x], dtype=torch.float64))


def test_tanh_of_float32_never_falls():
    x = torch.linspace(0, 25, 2_000_001)
    assert (tanh(x.to(torch.float64)).to(torch.float32).diff() >= 0).all()


@given(st.floats(1e-30, 1e30), st.floats(1e-200, 50))
def test_a_unit_divides_the_argument_of_tanh(unit, ratio):
    x = torch.tensor([ratio * unit], dtype=torch.float64)
    np.testing.assert_allclose(tanh(x, unit), math.tanh(ratio), rtol=2e-15)


def test_the_first_two_derivatives_of_tanh_are_its_own():
    x, unit = spread(20, -3, 1).requires_grad_(), torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(tanh, (x, unit))
    assert torch.autograd.gradgradcheck(tanh, (x, unit))


def test_half_normal_quantile_is_the_normal_quantile_to_ten_to_the_minus_fifteen():
    # 1 − p down to its last bit, in even steps of its logarithm, and where the pieces meet.
    p = 1 - torch.cat(
        (spread(50_001, np.log(2.0**-53), np.log(0.5)), torch.tensor([0.15, 2.8e-11], dtype=torch.float64))
    )
    np.testing.assert_allclose(half_normal_quantile(p), -ndtri((1 - p.numpy()) / 2), rtol=1e-15)


def test_half_normal_quantile_is_the_inverse_of_erf():
    p = torch.cat((spread(20_001, -700, 0)[:-1], torch.linspace(0, 0.99, 20_001, dtype=torch.float64)))
    # erf⁻¹ of torch has an error of its own, of a few units in the last place.
    np.testing.assert_allclose(half_normal_quantile(p), 2**0.5 * torch.erfinv(p), rtol=4e-15)


def test_half_normal_quantile_rises_and_starts_at_zero():
    p = torch.linspace(0, 1 - 1e-6, 1_000_001, dtype=torch.float64)
    score = half_normal_quantile(p)
    assert score[0] == 0
    assert (score.diff() > 0).all()


@pytest.mark.parametrize("function", [log, tanh, half_normal_quantile])
def test_a_value_has_the_same_bits_alone_and_among_others(function):
    x = torch.linspace(0.01, 0.99, 1001, dtype=torch.float64)
    alone = torch.cat([function(x[i : i + 1]) for i in range(len(x))])
    assert same_bits(alone, function(x))


def test_strength_rounds_each_step_once():
    generator = torch.Generator().manual_seed(0)
    start, end, strength = torch.rand(3, 1001, generator=generator)
    expected = [
        np.float32(a + np.float32(np.float32(b - a) * s))
        for a, b, s in zip(*(v.numpy() for v in (start, end, strength)), strict=True)
    ]
    assert same_bits(part_of_the_way(start, end, strength), torch.from_numpy(np.array(expected)))
