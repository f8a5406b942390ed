"""Schemes: how far rounding may be off, and over which values a scale spans."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from armlet.precision.schemes import MAX_QUANTIZED, SCHEMES, QuantScheme, kth_smallest

VALUES = hnp.arrays(np.float32, (2, 3, 8), elements=st.floats(-1e4, 1e4, width=32)).map(torch.from_numpy)
each_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=str)


def ends(rows):
    return rows.abs().amax(-1, keepdim=True)


@given(VALUES, st.sampled_from([scheme for scheme in SCHEMES if scheme.dtype != "e4m3"]))
def test_an_integer_code_is_off_by_half_a_step_at_most(x, scheme):
    rows = scheme.rows(x)
    step = ends(rows) / MAX_QUANTIZED[scheme.dtype]
    off = (scheme.round(rows, ends(rows)) - rows).abs()
    # Half a step, and what float32 rounds in the product with 127 steps.
    assert (off <= step * (0.5 + 128 * 2**-23) + 2.0**-100).all()


@given(VALUES)
def test_float8_is_off_by_a_sixteenth_of_a_value_or_half_the_least_step(x):
    scheme = QuantScheme("e4m3", "tensor")
    rows = scheme.rows(x)
    scale = ends(rows).clamp(min=2.0**-100) / MAX_QUANTIZED["e4m3"]
    off = (scheme.round(rows, ends(rows)) - rows).abs()
    assert (off <= torch.maximum(rows.abs() / 16, scale * 2**-10) * (1 + 1e-5)).all()


@each_scheme
def test_the_codes_own_numbers_come_back(scheme):
    numbers = torch.tensor([[-1.0, -0.5, 0.0, 0.5, 1.0]]) if scheme.dtype == "e4m3" else torch.arange(-7.0, 8)[None]
    limit = torch.tensor([[float(MAX_QUANTIZED[scheme.dtype])]])
    assert torch.equal(scheme.round(numbers, limit), numbers)


@each_scheme
def test_zero_stays_zero_and_both_signs_reach_as_far(scheme):
    rows = torch.tensor([[-9.0, 0.0, 9.0]])
    rounded = scheme.round(rows, torch.tensor([[3.0]]))
    assert torch.allclose(rounded, torch.tensor([[-3.0, 0.0, 3.0]]))
    assert torch.equal(scheme.round(rows * 0, rows[:, :1] * 0), rows * 0)


@each_scheme
def test_nan_and_infinity_stay(scheme):
    rows = torch.tensor([[float("nan"), float("inf"), -float("inf"), 1.0]])
    rounded = scheme.round(rows, torch.tensor([[3.0]]))
    assert torch.equal(rounded[:, :3].nan_to_num(7), rows[:, :3].nan_to_num(7))
    assert rounded[0, 3].isfinite()


def test_a_token_has_its_own_scale_a_sequence_its_own_and_calibration_one_for_all():
    x = torch.randn(2, 3, 4)
    shapes = {span: tuple(QuantScheme("int8", span).rows(x).shape) for span in ("static", "tensor", "token")}
    assert shapes == {"static": (1, 24), "tensor": (2, 12), "token": (6, 4)}


def test_rounding_a_batch_is_rounding_its_sequences():
    x, scheme = torch.randn(4, 5, 6), QuantScheme("int8", "tensor")
    rounded = [scheme.round(rows, ends(rows)) for rows in (scheme.rows(x), *(scheme.rows(part) for part in x.split(1)))]
    assert torch.equal(rounded[0], torch.cat(rounded[1:]))


@given(hnp.arrays(np.float32, (2, 11), elements=st.floats(-9, 9, width=32)), st.floats(0, 1))
def test_kth_is_that_of_a_sorted_row(values, share):
    at = min(max(round(share * 11), 1), 11) - 1
    assert torch.equal(kth_smallest(torch.from_numpy(values), share)[:, 0], torch.from_numpy(np.sort(values)[:, at]))
