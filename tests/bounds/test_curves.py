"""The limit for a bound: the curve maps the largest magnitude to it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from armlet import Inward, redistribute
from armlet.bounds.curves import limit_for

curves = pytest.mark.parametrize("curve", ["clip", "log"])


@curves
@given(largest=st.floats(1e-3, 1e6), share=st.floats(1e-4, 0.999))
def test_the_curve_maps_the_largest_magnitude_to_the_bound(curve, largest, share):
    bound = largest * share
    limit = float(limit_for(curve, np.array(largest), np.array(bound)))
    values = torch.tensor([[largest, -largest, limit / 2]], dtype=torch.float64)
    after = redistribute(values[None], Inward(limit=limit, curve=curve))[0, 0]
    assert after[:2].abs().tolist() == pytest.approx([bound, bound], rel=1e-6)
    assert after[2] == limit / 2
    assert limit <= bound * (1 + 1e-9)


@curves
def test_a_magnitude_within_its_bound_needs_no_limit(curve):
    assert limit_for(curve, np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])).tolist()[:2] == [np.inf, np.inf]


@given(st.floats(1.001, 1e3), st.floats(1.001, 1e3))
def test_a_larger_magnitude_has_a_lower_limit_of_the_logarithm(first, second):
    low, high = sorted((first, second))
    limits = limit_for("log", np.array([low, high]), np.array([1.0, 1.0]))
    assert limits[0] >= limits[1]
