"""Exact order statistics against sorting by hand and against NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracle
from armlet.redistribution.order import mad, minimum, ordered
from gates import gates, masked_gates

SHARES = st.one_of(st.sampled_from([0.0, 0.02, 0.25, 0.5, 0.995, 1.0]), st.floats(0, 1))


def rows(a, mask=None):
    """Each sequence as a row, with its padding."""
    real = None if mask is None else mask[..., None].expand(a.shape).reshape(len(a), -1)
    return a.reshape(len(a), -1), real


@given(gates(), SHARES)
def test_kth_is_the_kth_of_the_sorted_row(a, share):
    values, _ = rows(a)
    expected = [oracle.kth(row, share) for row in values.numpy()]
    assert ordered(values, None).kth(share).squeeze(-1).tolist() == expected


@given(gates(), SHARES)
def test_quantile_has_the_bits_of_numpys(a, q):
    values, _ = rows(a)
    fast = ordered(values, None).quantile(q).squeeze(-1).numpy()
    np.testing.assert_array_equal(fast, [np.quantile(row, q) for row in values.numpy()])
    for row, value in zip(values.numpy(), fast, strict=True):
        # Two float32 roundings of the larger neighbour, which may have the other sign and more bits than the result.
        assert abs(value - oracle.quantile(row, q)) <= 2.0**-22 * np.abs(row).max() + 1e-44


@given(gates())
def test_median_is_the_lower_one(a):
    values, _ = rows(a)
    assert ordered(values, None).median().squeeze(-1).tolist() == [oracle.lower_median(row) for row in values.numpy()]


@given(gates())
def test_mad_is_the_median_distance_to_the_median(a):
    values, _ = rows(a)
    fast = mad(values, None, ordered(values, None).median()).squeeze(-1)
    # One float32 rounding of each distance.
    np.testing.assert_allclose(fast.numpy(), [oracle.mad(row) for row in values.numpy()], rtol=1.2e-7)


@given(masked_gates(), SHARES)
def test_padding_never_counts(case, share):
    values, real = rows(*case)
    for index, (row, keep) in enumerate(zip(values, real, strict=True)):
        if keep.any():
            whole, cut = ordered(values[index : index + 1], real[index : index + 1]), ordered(row[keep][None], None)
            assert torch.equal(whole.median(), cut.median())
            assert minimum(values[index : index + 1], real[index : index + 1]).item() == row[keep].min()
            assert torch.equal(whole.kth(share), cut.kth(share))
            assert torch.equal(whole.quantile(share), cut.quantile(share))


@pytest.mark.parametrize(
    ("n", "share", "k"), [(25, 0.02, 1), (75, 0.02, 2), (125, 0.02, 2), (10, 0.25, 2), (14, 0.25, 4)]
)
def test_k_rounds_halves_to_even(n, share, k):
    values = torch.randperm(n, generator=torch.Generator().manual_seed(0))[None].float() + 1
    assert ordered(values, None).kth(share).item() == k


def test_a_constant_row_has_a_scale():
    values = torch.full((1, 5), 3.0)
    assert mad(values, None, ordered(values, None).median()).item() == pytest.approx(1e-12)
