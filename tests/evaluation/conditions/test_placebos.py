"""Placebos do what they are for: nothing, or as much as the policy, elsewhere."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from armlet import Cut, Inward, Noise, Outward, Transport, redistribute
from armlet.evaluation.conditions.placebos import GATE_PLACEBOS, DrawOnly, Matched, placebo, placebo_names
from armlet.redistribution.outcome import drawer, outcome


def gate(batch, seq, width, seed=0):
    """SiLU of normal values: what a gate looks like."""
    drawn = torch.randn(batch, seq, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.silu(1.5 * drawn)


POLICIES = [Outward(), Outward(write="add", strength=0.5), Inward(knee=0.9), Inward(curve="clip"), Transport()]


def outcome_of(policy, a, *, scope="token", noise=None, mask=None):
    return outcome(a, policy, scope=scope, draw=drawer(a, noise or Noise(0), None), mask=mask)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("name", ["identity", "draw-only"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_identity_and_draw_only_leave_every_bit(policy, name, dtype):
    a = gate(3, 5, 64).to(dtype)
    found = outcome_of(placebo(name, policy), a)
    assert torch.equal(found.values, a)
    assert not found.moved.any()


def test_draw_only_draws_from_the_sampler_as_its_policy_does():
    a = gate(1, 4, 64)
    generators = [torch.Generator().manual_seed(3) for _ in range(3)]
    for policy, generator in zip((Outward(), DrawOnly(Outward())), generators, strict=False):
        redistribute(a, policy, noise=Noise.fresh(generator))
    untouched, after, placebo_after = (generators[at].get_state() for at in (2, 0, 1))
    assert torch.equal(after, placebo_after)
    assert not torch.equal(after, untouched)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("scope", ["token", "sequence", "call"])
def test_matched_moves_as_many_values_of_each_row(policy, scope):
    a = gate(3, 6, 48)
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[1, :2] = False
    own, matched = (outcome_of(each, a, scope=scope, mask=mask) for each in (policy, Matched(policy)))
    rows = {"token": (18, 48), "sequence": (3, 288), "call": (1, 864)}[scope]
    assert torch.equal(own.moved.view(rows).sum(-1), matched.moved.view(rows).sum(-1))
    assert not matched.moved[1, :2].any()
    assert torch.equal(matched.values[1, :2], a[1, :2])
    assert torch.equal(matched.values[~matched.moved], a[~matched.moved])


@pytest.mark.parametrize("policy", [Outward(), Outward(write="add"), Outward(proportion=0.3)], ids=repr)
def test_matched_changes_the_variance_of_each_row_as_much(policy):
    a = gate(2, 8, 256).double()
    own, matched = (outcome_of(each, a).values.var(-1, correction=0) for each in (policy, Matched(policy)))
    raised = own > a.var(-1, correction=0)
    assert raised.float().mean() > 0.9
    torch.testing.assert_close(matched[raised], own[raised], rtol=1e-9, atol=0)  # float64, one quadratic equation


@pytest.mark.slow
@given(seed=st.integers(0, 1000))
def test_where_the_variance_falls_matched_falls_as_far_as_its_values_let_it(seed):
    a = gate(1, 4, 128, seed=seed).double()
    before, own, matched = (
        each.var(-1, correction=0)
        for each in (a, outcome_of(Inward(knee=0.8), a).values, outcome_of(Matched(Inward(knee=0.8)), a).values)
    )
    assert (matched <= before * (1 + 1e-9)).all()
    assert (matched >= own * (1 - 1e-9)).all()


def test_matched_places_are_spread_over_all_channels_and_follow_the_seed():
    a = gate(1, 600, 64)
    moved = outcome_of(Matched(Outward(proportion=0.25)), a).moved
    share = moved.float().mean((0, 1))
    # 600 draws of a share of 0.25 have a standard deviation of 0.018: all channels within five of them.
    assert (share - 0.25).abs().max() < 0.09
    assert torch.equal(moved, outcome_of(Matched(Outward(proportion=0.25)), a).moved)
    assert not torch.equal(moved, outcome_of(Matched(Outward(proportion=0.25)), a, noise=Noise(1)).moved)


def test_matched_places_are_not_those_of_the_policy():
    a = gate(1, 100, 64)
    own, matched = (outcome_of(each, a).moved for each in (Outward(), Matched(Outward())))
    overlap = (own & matched).sum() / own.sum()
    assert abs(overlap - own.float().mean()) < 0.05


def test_matched_with_midpoint_noise_has_places_too():
    moved = outcome_of(Matched(Outward(proportion=0.25)), gate(1, 4, 64), noise=Noise.midpoint()).moved
    assert moved.sum(-1).unique().tolist() == [16]


def test_every_placebo_has_a_name_of_its_own():
    assert [placebo(name, Outward()).strength for name in GATE_PLACEBOS] == [0, 1, 1, 1]
    assert len({placebo(name, Outward()).name for name in GATE_PLACEBOS}) == 4


@pytest.mark.parametrize("policy", [Outward(), Outward(proportion=0.3, write="add"), Outward(band=2)], ids=repr)
@pytest.mark.parametrize("scope", ["token", "sequence", "call"])
def test_zeroed_sets_to_0_exactly_the_values_that_its_outward_redraws(policy, scope):
    a = gate(3, 6, 48)
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[1, :2] = False
    redrawn, zeroed = (outcome_of(each, a, scope=scope, mask=mask) for each in (policy, placebo("zeroed", policy)))
    assert torch.equal(redrawn.moved, zeroed.moved)
    assert torch.equal(zeroed.values, a.masked_fill(redrawn.moved, 0))


def test_zeroed_keeps_the_settings_and_the_strength_of_its_treatment():
    policy = Outward(band=0.3, share=(0.1, 0.5), ceiling=0.9, strength=0.5)
    assert placebo("zeroed", policy) == Cut(band=0.3, share=(0.1, 0.5), strength=0.5)


@pytest.mark.parametrize("policy", [Inward(), Transport(), Cut()], ids=repr)
def test_only_outward_has_a_near_zero_set_to_be_zeroed(policy):
    assert "zeroed" in placebo_names(Outward(), first=False)
    assert placebo_names(policy, first=False) == ["matched"]
