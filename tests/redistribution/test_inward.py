"""Inward against its oracle and its own theorems."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracle
from armlet.redistribution import Inward, functions, redistribute
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.outcome import outcome
from armlet.redistribution.policies import settings
from gates import DTYPES, assert_close, gates, masked_gates, same_bits

POLICIES = st.builds(
    Inward,
    knee=st.one_of(st.sampled_from([0.0, 0.5, 0.99, 1.0]), st.floats(0, 1, width=16)),
    limit=st.one_of(st.none(), st.sampled_from([1e-30, 0.5, 2.0, 1e30])),
    side=st.sampled_from(["both", "above"]),
    curve=st.sampled_from(["log", "clip", "tanh"]),
    strength=st.sampled_from([1.0, 0.5, 0.1]),
)


def never():
    raise AssertionError("Inward draws nothing")


def agree(policy, a, scope="token", mask=None):
    """The oracle's values; at T the curves are continuous, so a flip there changes nothing beyond rounding."""
    result = outcome(a, policy, scope=scope, draw=never, mask=mask)
    expected, _ = oracle.redistribute(a.double().numpy(), partial(oracle.inward, **settings(policy)), scope, mask)
    assert_close(result.values, expected, a.dtype)


@given(gates(), POLICIES, st.sampled_from(["token", "sequence", "call"]))
def test_inward_is_its_oracle(a, policy, scope):
    agree(policy, a, scope)


@given(masked_gates(), POLICIES, st.sampled_from(["token", "sequence", "call"]))
def test_inward_with_padding_is_its_oracle(case, policy, scope):
    agree(policy, case[0], scope, case[1])


@given(gates(), POLICIES, st.sampled_from(DTYPES))
def test_inward_is_its_oracle_in_every_dtype(a, policy, dtype):
    agree(policy, a.to(dtype))


@given(gates(), POLICIES)
def test_inward_leaves_the_bulk_unchanged_and_contracts_the_tails(a, policy):
    result = outcome(a, policy, scope="token", draw=never)
    assert same_bits(result.values[~result.moved], a[~result.moved])
    assert (result.values.abs() <= a.abs()).all()
    assert (result.values * a >= 0).all()


@given(gates())
def test_inward_keeps_the_order_of_values(a):
    out = redistribute(a, Inward(knee=0.5))
    order = a.argsort(-1)
    assert (out.gather(-1, order).diff(dim=-1) >= 0).all()


@given(gates())
def test_clip_is_never_beyond_the_quantile(a):
    knee = torch.quantile(a.abs().double(), 0.9, dim=-1, keepdim=True)
    assert (redistribute(a, Inward(knee=0.9, curve="clip")).double().abs() <= knee * (1 + 1e-6) + 1e-44).all()


@pytest.mark.parametrize("curve", ["log", "clip"])
def test_a_knee_at_zero_sends_what_is_beyond_it_to_zero(curve):
    a = torch.zeros(1, 1, 100)
    a[..., 0], a[..., 1] = 5.0, -2.0
    assert torch.equal(redistribute(a, Inward(knee=0.9, curve=curve)), torch.zeros_like(a))


@given(st.floats(1e-3, 1e3), st.floats(1.0, 20.0), st.sampled_from([-1.0, 1.0]))
def test_expand_inverts_the_log_curve(knee, excess, sign):
    contracted = torch.tensor([sign * knee * (1 + np.log(excess))], dtype=torch.float64)
    np.testing.assert_allclose(Inward.expand(contracted, knee), [sign * knee * excess], rtol=1e-13)


@given(gates(width=40))
def test_contract_then_expand_gives_the_gate_back(a):
    knee = torch.tensor([[[np.quantile(row, 0.9)] for row in rows] for rows in a.abs().numpy()])
    back = Inward.expand(redistribute(a.double(), Inward(knee=0.9)), knee)
    known = knee > 0  # what went to zero does not come back
    # The contracted value c is stored rounded, and expanding multiplies that rounding by c/T ≤ 1 + ln(3e4/1e-41).
    np.testing.assert_allclose(torch.where(known, back, 0), torch.where(known, a.double(), 0), rtol=1e-13, atol=1e-300)


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
KNEES = st.one_of(st.floats(2.0**-149, 2.0**127, width=32), st.sampled_from([2.0**-149, 1e-38, 1e-30, 1.0, 1e30]))


def ulps(a, b):
    """By how many float32 numbers two tensors are apart."""
    ordered = [each.view(torch.int32).long() for each in (a, b)]
    ordered = [torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits) for bits in ordered]
    return (ordered[0] - ordered[1]).abs().max().item()


@given(FLOATS, KNEES)
def test_compand_then_expand_is_the_identity_within_2_ulp_over_all_float32_where_float64_is_between(value, knee):
    a = torch.tensor([value])
    assert ulps(Inward.expand(Inward.compand(a.double(), knee), knee).float(), a) <= 2


@given(FLOATS, KNEES)
def test_expand_then_compand_is_the_identity_within_2_ulp_in_float32(value, knee):
    companded = Inward.compand(torch.tensor([value]), knee)  # what the curve can give, so that expanding stays finite
    expanded = Inward.expand(companded, knee)
    if expanded.isinf():  # a float32 above the largest: its companded value was rounded up
        assert Inward.compand(torch.tensor([torch.finfo(torch.float32).max]), knee).sub(companded).abs() <= ulp(
            companded
        )
    else:
        assert ulps(Inward.compand(expanded, knee), companded) <= 2


def ulp(a):
    return np.spacing(a.abs().numpy())[0]


@given(FLOATS, KNEES)
def test_a_companded_float32_expands_to_within_half_an_ulp_for_each_unit_of_its_own(value, knee):
    a = torch.tensor([value])
    companded = Inward.compand(a, knee)
    expanded = Inward.expand(companded.double(), knee)
    # c = |a′|/T is stored to c·2⁻²⁴, half an ulp at most, and expanding multiplies that by T·exp(c − 1) = |a|. A
    # denormal is stored more coarsely: to half of 2⁻¹⁴⁹, a share of T.
    share = (companded.abs().double() / knee * 2.0**-24).clamp(min=2.0**-150 / knee)
    allowed = torch.expm1(share) * a.abs().double() * (1 + 1e-6) + 2.0**-149
    assert ((expanded - a.double()).abs() <= allowed).all()


@given(gates(width=40))
def test_inward_is_compand_at_its_own_knee(a):
    knee = torch.tensor([[[np.quantile(row, 0.9)] for row in rows] for rows in a.abs().numpy()])
    moved = redistribute(a, Inward(knee=0.9))
    known = (knee > 0).expand_as(a)
    assert same_bits(Inward.compand(a, knee)[known], moved[known])


def test_compand_and_expand_have_the_gradients_of_their_formulas():
    a = torch.tensor([-7.0, -1.5, -0.3, 0.2, 0.9, 1.7, 40.0], dtype=torch.float64, requires_grad=True)
    for knee in (0.5, 1.0, 2.5):
        assert torch.autograd.gradcheck(lambda a, knee=knee: Inward.compand(a, knee), a)
        assert torch.autograd.gradcheck(
            lambda a, knee=knee: Inward.expand(a, knee), a.detach().clamp(-9, 9).requires_grad_()
        )


def test_a_knee_of_zero_companding_moves_nothing():
    a = torch.tensor([-2.0, 0.0, 5.0])
    assert torch.equal(Inward.compand(a, 0.0), a)
    assert torch.equal(Inward.expand(a, 0.0), a)


def test_the_slope_is_one_at_the_knee_and_falls_as_the_knee_over_the_value():
    a = torch.linspace(-3, 3, 101, dtype=torch.float64)[None, None].requires_grad_()
    (gradient,) = torch.autograd.grad(redistribute(a, Inward(knee=0.5)).sum(), a)
    knee = np.float64(np.float32(np.quantile(a.detach().abs().numpy(), 0.5)))
    # Statistics are constants to autograd, so the slope is min(1, T/|a|).
    np.testing.assert_allclose(gradient, np.minimum(1, knee / a.detach().abs().numpy().clip(1e-9)), rtol=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"knee": 99}, {"knee": -0.1}, {"curve": "sqrt"}, {"strength": -1}, {"knee": None}, {"side": "below"}),
        *({"limit": 0}, {"limit": -1.0}, {"limit": 1e-60}, {"limit": 1e300}, {"limit": float("nan")}, {"limit": "7"}),
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        Inward(**wrong)


@pytest.mark.parametrize("wrong", [[1.0], 3, None, torch.ones(3, dtype=torch.int64), np.ones(3)], ids=repr)
def test_the_curve_takes_a_tensor_of_floats_alone(wrong):
    for name in ("compand", "expand"):
        with pytest.raises(ArgumentError, match=f"Inward.{name}: expected a floating-point tensor, .*, found"):
            getattr(Inward, name)(wrong, 0.5)


@given(gates(elements=st.floats(-30, 30, width=32)), st.sampled_from([0.5, 2.0, 7.0]))
def test_a_limit_above_is_the_clamp_of_the_gate_before_its_activation(g, bound):
    """silu(min(g, L)) = min(silu(g), silu(L)) for L > 0, since silu rises from there and is below before it."""
    limit = torch.nn.functional.silu(torch.tensor(bound)).item()
    clamped = redistribute(torch.nn.functional.silu(g), Inward(limit=limit, side="above", curve="clip"))
    assert same_bits(clamped, torch.nn.functional.silu(g).clamp(max=limit))
    np.testing.assert_allclose(clamped, torch.nn.functional.silu(g.clamp(max=bound)), rtol=1e-6)


@given(gates(), st.sampled_from(["log", "clip", "tanh"]), st.sampled_from([0.1, 1.0, 3.0]))
def test_a_limit_takes_no_statistics(a, curve, limit):
    policy = Inward(limit=limit, curve=curve)
    assert same_bits(redistribute(a, policy, scope="token"), redistribute(a, policy, scope="call"))


@given(gates(), st.sampled_from([0.1, 1.0, 3.0]))
def test_tanh_is_bounded_by_its_limit_and_has_slope_1_at_0(a, limit):
    assert (redistribute(a, Inward(limit=limit, curve="tanh")).abs() <= np.float32(limit)).all()
    small = a.clamp(-1e-5, 1e-5)
    np.testing.assert_allclose(redistribute(small, Inward(limit=limit, curve="tanh")), small, rtol=1e-6, atol=1e-44)


@given(gates(), st.sampled_from(["log", "clip", "tanh"]))
def test_above_leaves_all_values_up_to_the_limit_and_all_negative_ones(a, curve):
    both, above = (redistribute(a, Inward(limit=0.5, side=side, curve=curve)) for side in ("both", "above"))
    assert same_bits(above[a <= 0], a[a <= 0])
    assert same_bits(above[a > 0], both[a > 0])


@pytest.mark.parametrize("x", [1e-300, 1e-8, 0.1, 0.17, 0.35, 1.0, 5.0, 19.9, 20.0, 1e300])
def test_tanh_is_within_two_units_of_the_libraries_own(x):
    assert functions.tanh(torch.tensor([x, -x], dtype=torch.float64)).tolist() == pytest.approx(
        [math.tanh(x), -math.tanh(x)], rel=5e-16, abs=0
    )
