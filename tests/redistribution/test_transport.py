"""Transport against its oracle and its own theorems."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracle
from armlet.redistribution import Transport, redistribute
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.outcome import outcome
from gates import DTYPES, assert_close, gates, masked_gates

POLICIES = st.builds(Transport, spread=st.floats(0.1, 3.0), strength=st.sampled_from([1.0, 0.5, 0.1]))


def never():
    raise AssertionError("Transport draws nothing")


def agree(policy, a, scope="token", mask=None):
    result = outcome(a, policy, scope=scope, draw=never, mask=mask)
    how = {"spread": policy.spread, "strength": policy.strength}
    expected, moved = oracle.redistribute(a.double().numpy(), partial(oracle.transport, **how), scope, mask)
    assert (result.moved.numpy() == moved).all()
    largest = torch.finfo(a.dtype).max  # a wide target reaches beyond float16's 65,504, and finite values stay finite
    assert_close(result.values, expected.clip(-largest, largest), a.dtype)


@given(gates(), POLICIES, st.sampled_from(["token", "sequence", "call"]))
def test_transport_is_its_oracle(a, policy, scope):
    agree(policy, a, scope)


@given(masked_gates(), POLICIES, st.sampled_from(["token", "sequence", "call"]))
def test_transport_with_padding_is_its_oracle(case, policy, scope):
    agree(policy, case[0], scope, case[1])


@given(gates(width=10), POLICIES, st.sampled_from(DTYPES))
def test_transport_is_its_oracle_in_every_dtype(a, policy, dtype):
    agree(policy, a.to(dtype))


def test_a_target_beyond_the_dtype_saturates():
    agree(Transport(spread=3.0), torch.full((1, 1, 1), 30_000.0, dtype=torch.float16))


@given(gates())
def test_transport_keeps_sign_and_order_and_ties(a):
    out = redistribute(a, Transport())
    assert (torch.where(a < 0, -out, out) >= 0).all()
    order = a.argsort(-1)
    before, after = a.gather(-1, order), out.gather(-1, order)
    assert (after.diff(dim=-1) >= 0).all()
    assert (after.diff(dim=-1)[before.diff(dim=-1) == 0] == 0).all()


@given(gates(), st.floats(0.25, 4.0))
def test_spread_scales_the_result(a, spread):
    one = redistribute(a.double(), Transport())
    torch.testing.assert_close(redistribute(a.double(), Transport(spread=spread)), spread * one, rtol=1e-6, atol=1e-38)


@pytest.mark.slow
def test_a_large_row_stays_finite():
    # (rank + ½)/n rounds to 1 in float32 beyond 2²⁴ values, and erf⁻¹(1) is infinite.
    a = torch.linspace(0.1, 1, 2**24 + 2)[None, None]
    out = redistribute(a, Transport())
    assert out.isfinite().all()
    assert (out.diff(dim=-1) >= 0).all()


@pytest.mark.parametrize("wrong", [{"target": "laplace"}, {"spread": 0}, {"spread": float("inf")}, {"strength": 2}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        Transport(**wrong)
