"""Outward against its oracle, the published outputs and its own theorems."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracle
from armlet.redistribution import Inward, Noise, Outward, Transport, redistribute
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.near_zero import NEAR_LIMIT, limited_by_share
from armlet.redistribution.outcome import outcome
from gates import DTYPES, assert_close, gates, masked_gates, same_bits, uniforms

POLICIES = st.builds(
    Outward,
    band=st.floats(0.01, 1.0),
    ceiling=st.floats(0.5, 1.0),
    share=st.sampled_from([(0.02, 0.25), (0.2, 0.25), (0.0, 1.0), (0.5, 0.5)]),
    proportion=st.one_of(st.none(), st.floats(0, 1)),
    write=st.sampled_from(["replace", "add"]),
    ceiling_of=st.sampled_from(["signed", "magnitude"]),
    strength=st.sampled_from([1.0, 0.5, 0.1]),
)


def slow(policy, a, scope="token", mask=None, u=None):
    where = {"band": policy.band, "share": policy.share, "proportion": policy.proportion}
    how = {name: getattr(policy, name) for name in ("ceiling", "write", "ceiling_of", "strength")}
    return oracle.redistribute(a.double().numpy(), partial(oracle.outward, **where, **how), scope, mask, u)


def edges(policy, a, scope, mask):
    """τ of the scope of each value, by the oracle."""
    where = {"band": policy.band, "share": policy.share, "proportion": policy.proportion}
    values = a.double().numpy()
    out = np.zeros(a.shape)
    for group in oracle.scopes(a.shape, scope, mask):
        index = tuple(np.array(group).T)
        out[index] = oracle.outward_edge(values[index], **where)[0]
    return out


def agree(policy, a, scope="token", mask=None):
    """The oracle's values and moved set, but for values within float32 rounding of τ, which may go either way."""
    u = uniforms(a)
    result = outcome(a, policy, scope=scope, draw=lambda: u, mask=mask)
    expected, moved = slow(policy, a, scope, mask, u.numpy())
    flipped = result.moved.numpy() != moved
    edge = edges(policy, a, scope, mask)[flipped]
    np.testing.assert_allclose(a.double().abs().numpy()[flipped], edge, rtol=1e-6, atol=1e-44)
    expected[flipped] = result.values.double().numpy()[flipped]
    assert_close(result.values, expected, a.dtype)


@given(gates(), POLICIES, st.sampled_from(["token", "sequence", "call"]))
def test_outward_is_its_oracle(a, policy, scope):
    agree(policy, a, scope)


@given(masked_gates(), POLICIES, st.sampled_from(["token", "sequence", "call"]))
def test_outward_with_padding_is_its_oracle(case, policy, scope):
    agree(policy, case[0], scope, case[1])


@given(gates(), POLICIES, st.sampled_from(DTYPES))
def test_outward_is_its_oracle_in_every_dtype(a, policy, dtype):
    agree(policy, a.to(dtype))


@given(gates(), POLICIES)
def test_outward_leaves_large_values_unchanged(a, policy):
    u = uniforms(a)
    result = outcome(a, policy, scope="token", draw=lambda: u)
    assert same_bits(result.values[~result.moved], a[~result.moved])
    largest_moved = torch.where(result.moved, a.abs(), 0).amax(-1)
    smallest_left = torch.where(result.moved, torch.inf, a.abs()).amin(-1)
    assert (largest_moved < smallest_left).all()


@given(gates(), st.floats(0, 0.5), st.floats(0.5, 1))
def test_outward_moves_at_least_its_lowest_share_and_ties_together(a, low, high):
    policy = Outward(share=(low, high))
    result = outcome(a, policy, scope="token", draw=lambda: uniforms(a))
    for values, moved in zip(a.flatten(0, 1), result.moved.flatten(0, 1), strict=True):
        _, strict = oracle.outward_edge(values.numpy(), share=(low, high))
        if not strict:
            assert moved.sum() >= max(1, round(low * len(values)))
        for value in values[moved]:
            assert moved[values.abs() == value.abs()].all()


@given(gates())
def test_outward_keeps_the_sign_and_stays_in_its_bounds(a):
    result = outcome(a, Outward(ceiling_of="magnitude"), scope="token", draw=lambda: uniforms(a))
    moved, before = result.values[result.moved], a[result.moved]
    assert (torch.where(before < 0, -moved, moved) >= 0).all()
    lowest = a.amin(-1, keepdim=True).clamp(max=0).expand(a.shape)[result.moved]
    highest = a.abs().amax(-1, keepdim=True).expand(a.shape)[result.moved]
    assert (moved >= lowest).all()
    assert (moved <= highest).all()


def test_bounds_at_the_edge_of_float32_stay_finite():
    a = torch.tensor([[3.4e38, -3.4e38]])
    assert redistribute(a, Outward(proportion=1, ceiling=0.5), noise=Noise.midpoint()).isfinite().all()


@given(gates())
def test_a_gate_without_negatives_is_no_error(a):
    assert (redistribute(a.abs(), Outward(), noise=uniforms(a)) >= 0).all()


def test_replace_stops_the_gradient_of_moved_values_and_add_keeps_it():
    a = torch.randn(1, 2, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for write, slope in (("replace", 0.0), ("add", 1.0)):
        policy = Outward(write=write)
        moved = outcome(a.detach(), policy, scope="token", draw=lambda: uniforms(a)).moved
        (gradient,) = torch.autograd.grad(redistribute(a, policy, noise=uniforms(a)).sum(), a)
        assert torch.equal(gradient, torch.where(moved, slope, 1.0))


def golden_cases(shared):
    """(name, policy, arrays): of cases written twice under one name, the arrays hold the later one."""
    arrays = np.load(shared / "golden" / "arm_call.npz")
    cases = json.loads((shared / "golden" / "arm_call.json").read_text())
    for case in {(case["array"], case["case"]): case for case in cases}.values():
        policy = Outward(
            band=case["c"],
            ceiling=case["p1"] / 100,
            proportion=case.get("proportion"),
            share=(case.get("p_min", 0.02), 0.25),
        )
        name, number = case["array"], case["case"]
        parts = {part: arrays[f"{name}/{part}"] for part in ("a", "u")}
        parts |= {part: arrays[f"{name}/{number}/{part}"] for part in ("near", "out")}
        yield f"{name}/{number}", case, policy, parts


def test_call_scope_is_the_published_algorithm(shared):
    cases = list(golden_cases(shared))
    assert len(cases) >= 35
    for name, case, policy, parts in cases:
        a, u = torch.from_numpy(parts["a"]), torch.from_numpy(parts["u"])
        result = outcome(a, policy, scope="call", draw=lambda u=u: u)
        out, expected, near = result.values.numpy(), parts["out"], parts["near"]
        assert same_bits(redistribute(a, policy, scope="call", noise=u), result.values), name
        np.testing.assert_array_equal(result.moved.numpy(), near, err_msg=name)
        assert near.sum() == case["k"], name
        assert np.array_equal(out[~near].view(np.int32), expected[~near].view(np.int32)), name
        # One float32 ulp of relative error.
        np.testing.assert_allclose(out[near], expected[near], rtol=2.0**-23, atol=0, err_msg=name)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"band": 0}, r"band must be a number in \(0, inf\), found 0"),
        ({"band": -0.1}, "band"),
        ({"band": float("nan")}, "band"),
        ({"band": "0.13"}, "band"),
        ({"band": 10**400}, "band"),
        ({"band": True}, "band"),
        ({"ceiling": 99.5}, r"ceiling must be a number in \[0, 1\], found 99.5"),
        ({"ceiling": -0.1}, "ceiling"),
        ({"share": (0.25, 0.02)}, "share must be .low, high. with 0 <= low <= high <= 1"),
        ({"share": (0.1, 2)}, "share"),
        ({"share": 0.1}, "share"),
        ({"share": (0.1, float("nan"))}, "share"),
        ({"share": ("a", "b")}, "share"),
        ({"proportion": 25}, "proportion"),
        ({"write": "sum"}, "write must be 'replace' or 'add', found 'sum'"),
        ({"ceiling_of": "abs"}, "ceiling_of"),
        ({"strength": 1.5}, "strength"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        Outward(**wrong)


# --- where `share` decides, and not the band -------------------------------------------------------------------------


def share_of(policy, a):
    return float(outcome(a, policy, scope="token", draw=lambda: uniforms(a)).moved.float().mean(dtype=torch.float64))


def activated(tokens=64, width=100):
    """An activated gate of normal values, `[1, tokens, width]`."""
    return torch.nn.functional.silu(torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (Outward(band=3), "band 3 is limited by share: at most 0.25 of the values move"),
        (Outward(band=3, strength=0.5), "band 3 is limited by share: at most 0.25 of the values move"),
        (Outward(band=1e-9), "band 1e-09 is limited by share: at least 0.02 of the values move"),
        (Outward(band=1e-9, share=(0, 1)), "band 1e-09 is limited by share: at least 0 of the values move"),
        (
            Outward(band=0.5, share=(0.2, 0.2)),
            "band 0.5 has no effect: share lets 0.2 of the values move, whatever the band",
        ),
    ],
)
@pytest.mark.parametrize("width", [100, 97, 48])
def test_a_band_that_share_overrides_in_every_row_is_named(policy, sentence, width):
    a = activated(width=width)
    assert limited_by_share(policy, share_of(policy, a), width) == sentence
    other = replace(policy, band=policy.band * (2 if policy.band > 0.1 else 0.5))
    assert same_bits(redistribute(a, policy), redistribute(a, other))  # the band has no effect indeed


@pytest.mark.parametrize(
    "policy",
    [
        Outward(band=0.2),
        Outward(band=3, share=(0, 1)),
        Outward(band=3, proportion=0.25),
        Outward(band=3, strength=0),
        Inward(),
        Transport(),
    ],
)
def test_what_share_does_not_decide_is_not_named(policy):
    assert limited_by_share(policy, share_of(policy, activated()), 100) is None


@pytest.mark.parametrize(
    ("policy", "another", "sentence"),
    [
        (
            Outward(band=1.5),
            Outward(band=50),
            "a band wider than 1.5 would have little effect: 0.2483 of the values moved on average, "
            "share allows at most 0.25",
        ),
        (
            Outward(band=0.02),
            Outward(band=1e-9),
            "a band narrower than 0.02 would have little effect: 0.02016 of the values moved on average, "
            "share makes at least 0.02 move",
        ),
    ],
)
def test_a_band_that_share_overrides_in_nearly_all_rows_is_named_and_another_changes_little(policy, another, sentence):
    a = activated()
    share = share_of(policy, a)
    assert limited_by_share(policy, share, 100) == sentence
    assert 0 < abs(share_of(another, a) - share) <= NEAR_LIMIT * share


def test_one_row_that_the_band_decides_is_enough_not_to_say_that_it_has_no_effect():
    policy, a = Outward(band=3), activated(tokens=1)
    a = torch.cat((a.expand(1, 30, -1), torch.linspace(1, 2, 100).view(1, 1, -1)), 1)
    shares = [share_of(policy, a[:, row : row + 1]) for row in (0, 30)]
    assert shares[0] == 0.25 > shares[1]
    assert limited_by_share(policy, share_of(policy, a[:, :30]), 100)
    assert limited_by_share(policy, share_of(policy, a), 100) is None


def test_ties_are_said_and_rows_that_passed_through_claim_nothing():
    a, policy = torch.zeros(1, 4, 100), Outward(band=3)
    assert str(limited_by_share(policy, share_of(policy, a), 100)).endswith("values move, and those tied with them")
    assert limited_by_share(policy, share_of(policy, a * torch.nan), 100) is None
