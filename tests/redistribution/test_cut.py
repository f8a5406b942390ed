"""Cut against its oracle, the near-zero set of Outward, and its own theorems."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracle
from armlet.redistribution import Cut, Outward, redistribute
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.near_zero import limited_by_share
from armlet.redistribution.outcome import outcome
from gates import DTYPES, assert_close, gate, gates, masked_gates, same_bits, uniforms

SCOPES = st.sampled_from(["token", "sequence", "call"])
WHERE = {
    "band": st.floats(0.01, 1.0),
    "share": st.sampled_from([(0.02, 0.25), (0.2, 0.25), (0.0, 1.0), (0.5, 0.5)]),
    "proportion": st.one_of(st.none(), st.floats(0, 1)),
    "strength": st.sampled_from([1.0, 0.5, 0.1]),
}
NEAR_ZERO = st.builds(Cut, **WHERE)
THRESHOLDS = st.builds(Cut, threshold=st.sampled_from([0, 1e-40, 0.1, 0.25, 0.5, 3, 1e300]), strength=WHERE["strength"])


def never():
    raise AssertionError("Cut draws nothing")


def cut(policy, a, scope="token", mask=None):
    return outcome(a, policy, scope=scope, draw=never, mask=mask)


def agree(policy, a, scope="token", mask=None):
    """The oracle's values and moved set, but for values within float32 rounding of τ, which may go either way."""
    where = {"band": policy.band, "share": policy.share, "proportion": policy.proportion, "threshold": policy.threshold}
    values, edges = a.double().numpy(), np.zeros(a.shape)
    for group in oracle.scopes(a.shape, scope, mask):
        index = tuple(np.array(group).T)
        edges[index] = oracle.cut_edge(values[index], **where)[0]
    slow = partial(oracle.cut, **where, strength=policy.strength)
    expected, moved = oracle.redistribute(values, slow, scope, mask)
    result = cut(policy, a, scope, mask)
    flipped = result.moved.numpy() != moved
    assert policy.threshold is None or not flipped.any()
    np.testing.assert_allclose(abs(values[flipped]), edges[flipped], rtol=1e-6, atol=1e-44)
    expected[flipped] = result.values.double().numpy()[flipped]
    assert_close(result.values, expected, a.dtype)


@given(gates(), st.one_of(NEAR_ZERO, THRESHOLDS), SCOPES)
def test_cut_is_its_oracle(a, policy, scope):
    agree(policy, a, scope)


@given(masked_gates(), st.one_of(NEAR_ZERO, THRESHOLDS), SCOPES)
def test_cut_with_padding_is_its_oracle(case, policy, scope):
    agree(policy, case[0], scope, case[1])


@given(gates(), st.one_of(NEAR_ZERO, THRESHOLDS), st.sampled_from(DTYPES))
def test_cut_is_its_oracle_in_every_dtype(a, policy, dtype):
    agree(policy, a.to(dtype))


@given(masked_gates(), NEAR_ZERO, SCOPES, st.sampled_from(DTYPES))
def test_cut_moves_exactly_what_outward_moves(case, policy, scope, dtype):
    a, mask = case[0].to(dtype), case[1]
    outward = Outward(band=policy.band, share=policy.share, proportion=policy.proportion)
    redrawn = outcome(a, outward, scope=scope, draw=lambda: uniforms(a), mask=mask)
    assert torch.equal(cut(policy, a, scope, mask).moved, redrawn.moved)


@given(gates(), st.one_of(NEAR_ZERO, THRESHOLDS), SCOPES, st.sampled_from(DTYPES))
def test_moved_values_become_plus_zero_and_the_others_keep_every_bit(a, policy, scope, dtype):
    a = a.to(dtype)
    result = cut(replace(policy, strength=1), a, scope)
    assert same_bits(result.values[result.moved], torch.zeros_like(a)[result.moved])
    assert same_bits(result.values[~result.moved], a[~result.moved])


@given(gates(), st.one_of(NEAR_ZERO, THRESHOLDS))
def test_a_strength_leaves_its_share_of_each_moved_value(a, policy):
    result = cut(replace(policy, strength=0.25), a.double())
    torch.testing.assert_close(result.values[result.moved], 0.75 * a.double()[result.moved], rtol=1e-15, atol=0)
    assert not result.values[result.moved & (a == 0)].signbit().any()  # −0 + strength · (0 − −0) is +0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_threshold_is_compared_in_float32_and_moves_what_equals_it(dtype):
    threshold = torch.tensor(0.1, dtype=dtype).item()
    above = torch.nextafter(torch.tensor(threshold, dtype=dtype), torch.tensor(1.0, dtype=dtype)).item()
    a = torch.tensor([[threshold, -threshold, above, -above, 0.0, -0.0]], dtype=dtype)
    expected = torch.tensor([[0, 0, above, -above, 0, 0]], dtype=dtype)
    assert same_bits(redistribute(a, Cut(threshold=threshold)), expected)
    assert same_bits(redistribute(a, Cut(threshold=0.1)), expected if dtype == torch.float32 else a + 0)


def test_a_threshold_takes_no_statistics_so_a_row_alone_decides_for_each_of_its_values():
    a = gate(2, 5, 40)
    alone = torch.stack([redistribute(value, Cut(threshold=0.1)) for value in a.reshape(-1, 1)]).view_as(a)
    for scope in ("token", "sequence", "call"):
        assert same_bits(redistribute(a, Cut(threshold=0.1), scope=scope), alone)


@pytest.mark.parametrize("policy", [Cut(), Cut(threshold=0.5)], ids=repr)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_row_that_is_not_finite_passes_through(policy, bad):
    a = gate(1, 2, 32)
    a[0, 0, 5] = bad
    result = cut(policy, a)
    assert same_bits(result.values[0, 0], a[0, 0])
    assert result.passed.tolist() == [True, False]
    assert result.moved[0, 1].any()


@pytest.mark.parametrize("strength", [1.0, 0.25])
@pytest.mark.parametrize("where", [{}, {"proportion": 0.5}, {"threshold": 0.2}], ids=repr)
def test_the_gradient_of_a_moved_value_is_what_the_strength_leaves(where, strength):
    a = gate(2, 4, 64).requires_grad_()
    values = redistribute(a, Cut(**where, strength=strength))
    values.sum().backward()
    assert torch.equal(a.grad, torch.where(values.detach() == a.detach(), 1.0, 1 - strength))
    assert (a.grad < 1).any()


@pytest.mark.parametrize("share", [0.25, 0.02, 0.1, 0.2483])
def test_share_limits_the_band_as_it_does_for_outward(share):
    sentences = [limited_by_share(policy, share, 100) for policy in (Outward(band=1.5), Cut(band=1.5))]
    assert sentences[0] == sentences[1]
    assert (sentences[0] is None) == (share == 0.1)
    assert limited_by_share(Cut(threshold=0.1), share, 100) is None


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": -0.1}, {"threshold": float("inf")}, {"threshold": "0.1"}, {"band": 0}, {"share": 2}],
    ids=repr,
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ArgumentError, match=f"Cut: {next(iter(wrong))} must be"):
        Cut(**wrong)


def test_all_zeros_and_nothing_at_all_stay():
    zeros = torch.zeros(1, 2, 8)
    assert same_bits(redistribute(zeros, Cut()), zeros)
    assert redistribute(zeros[..., :0], Cut()).shape == (1, 2, 0)
    assert np.array_equal(redistribute(zeros[0, 0], "cut:threshold=1"), zeros[0, 0])
