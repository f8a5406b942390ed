"""What a filler does to a layer, against loops over single tokens and heads, and against cases with a known answer."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from armlet import ARM, Inward, Layer1, Noise, Outward, redistribute
from armlet.mechanism.measure import (
    ATTENTION_QUANTITIES,
    CLAIMS,
    GATE_QUANTITIES,
    QUANTITIES,
    fit_affine,
    measure_filler,
    measure_gate,
    near_zero_after,
    view,
)
from armlet.prompts.fillers import Prompt
from armlet.redistribution.outward import near_zero_halfwidth
from families import prompt as random_ids
from families import tiny

AT, COUNT = 3, 4
PROMPT = Prompt(random_ids(8)[0], AT, (3, 6), tuple("abcdefgh"))
FILLER = torch.tensor([40, 41, 40, 41])


def traces(layer=0, family="llama"):
    """The prompt's trace in a layer without and with the filler."""
    model = tiny(family)
    found = []
    for ids in (PROMPT.ids, PROMPT.filled(FILLER)):
        x = Layer1.from_model(model).embed(ids[None])
        for at in range(layer + 1):
            x, trace = Layer1.from_model(model, at)(x, trace=True)
        found.append(trace)
    return found


def views(layer=0, family="llama"):
    return [view(trace, PROMPT, count) for trace, count in zip(traces(layer, family), (0, COUNT), strict=True)]


@pytest.mark.parametrize(("layer", "family"), [(0, "llama"), (2, "gemma2")])
def test_attention_received_from_own_tokens_and_mass_are_sums_over_the_weights_of_each_head(layer, family):
    _, trace = traces(layer, family)
    weights, seen = trace["Attention_weights"][0].double(), views(layer, family)[1]
    heads, size = weights.shape[0], weights.shape[1]
    for column in range(size - 1):
        rows = [row for row in range(column + 1, size) if row not in range(AT, AT + COUNT)]
        later = [weights[h, row, column].item() for h in range(heads) for row in rows]
        assert seen.received[column].item() == pytest.approx(np.mean(later), rel=1e-12)
    assert math.isnan(seen.received[-1])
    filler = range(AT, AT + COUNT)
    for at, row in enumerate(range(AT + COUNT, size)):
        kept = [weights[h, row, c].item() for h in range(heads) for c in range(size) if c not in filler]
        assert seen.mass[at].item() == pytest.approx(sum(kept) / heads, rel=1e-12)


def test_without_filler_no_attention_is_lost():
    torch.testing.assert_close(views()[0].mass, torch.ones(5, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_same_tokens_are_compared_and_those_before_the_filler_cannot_see_it():
    plain, filled = traces(2)
    for name in ("gate", "activation", "Attention"):
        torch.testing.assert_close(plain[name][:, :AT], filled[name][:, :AT], atol=1e-5, rtol=1e-5)
    without, with_filler = views(2)
    for seen, trace, first in ((without, plain, AT), (with_filler, filled, AT + COUNT)):
        assert torch.equal(seen.gate, trace["gate"][0, first:].double())
        assert torch.equal(seen.activated, trace["activation"][0, first:].double())
        assert torch.equal(seen.attention, trace["Attention"][0, first:].double())
    assert not torch.allclose(without.gate, with_filler.gate)


@given(st.floats(-2, 2), st.integers(2, 30), st.integers(1, 3), st.integers(0, 99))
def test_an_affine_map_is_found_exactly(scale, tokens, heads, seed):
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(tokens, 4 * heads, generator=generator, dtype=torch.float64)
    shift = torch.randn(4 * heads, generator=generator, dtype=torch.float64)
    fit = fit_affine(before, scale * before + shift, heads)
    assert fit.scale == pytest.approx(scale, abs=1e-9)
    torch.testing.assert_close(fit.shift, shift, atol=1e-9, rtol=0)
    assert fit.relative == pytest.approx((shift.norm() / before.norm(dim=1).mean()).item())
    assert fit.consistency == pytest.approx(1)
    if abs(scale) > 1e-6:  # else A′ does not vary, and there is nothing to explain
        assert (fit.r2, fit.r2_heads) == (pytest.approx(1), pytest.approx(1))


def test_a_scale_of_each_head_is_found_where_one_for_all_does_not_fit():
    before = torch.randn(20, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    after = (before * torch.tensor([0.2, 1.0, 2.0])[:, None]).flatten(1)
    fit = fit_affine(before.flatten(1), after, heads=3)
    assert fit.r2_heads == pytest.approx(1)
    assert fit.r2 < 0.9


@given(st.integers(0, 99))
def test_the_fit_is_the_least_squares_one(seed):
    generator = torch.Generator().manual_seed(seed)
    before, after = torch.randn(2, 9, 6, generator=generator, dtype=torch.float64)
    # One unknown λ and six of Σ: a row of the system for each number of A′.
    system = np.concatenate([before.reshape(-1, 1).numpy(), np.tile(np.eye(6), (9, 1))], axis=1)
    solution, residual, *_ = np.linalg.lstsq(system, after.reshape(-1).numpy(), rcond=None)
    fit = fit_affine(before, after)
    np.testing.assert_allclose([fit.scale, *fit.shift.tolist()], solution, atol=1e-10)
    assert fit.r2 == pytest.approx(1 - residual[0] / (after - after.mean(0)).square().sum().item())
    own = after - fit.scale * before
    cosines = [torch.cosine_similarity(row, fit.shift, dim=0).item() for row in own]
    assert fit.consistency == pytest.approx(np.mean(cosines))


def test_a_single_token_has_no_affine_fit():
    fit = fit_affine(torch.ones(1, 4), torch.ones(1, 4))
    assert all(map(math.isnan, (fit.scale, fit.relative, fit.consistency, fit.r2, fit.r2_heads)))


def test_every_quantity_has_a_value_for_every_token():
    without, filled = views()
    halfwidth = near_zero_halfwidth(without.activated)
    measured = measure_filler(without, filled, halfwidth, heads=4)
    assert list(measured) == list(QUANTITIES) == [*ATTENTION_QUANTITIES, *GATE_QUANTITIES]
    assert {values.shape for values in measured.values()} == {(5,)}
    assert list(measure_gate(without, halfwidth)) == list(GATE_QUANTITIES)
    assert CLAIMS.keys() <= QUANTITIES.keys()


def test_measures_of_the_gate_are_those_of_each_token_alone_by_the_halfwidth_without_filler():
    without, filled = views(1)
    halfwidth = near_zero_halfwidth(without.activated)
    measured = measure_gate(filled, halfwidth)
    a, z = filled.activated.numpy(), filled.gate.numpy()
    for token in range(5):
        magnitudes = np.abs(a[token])
        assert measured["near_zero"][token] == (magnitudes < halfwidth[token].item()).mean()
        assert measured["l1"][token] == pytest.approx(magnitudes.sum())
        assert measured["l2"][token] == pytest.approx(np.sqrt((magnitudes**2).sum()))
        gini = np.abs(magnitudes[:, None] - magnitudes).mean() / (2 * magnitudes.mean())
        assert measured["gini"][token] == pytest.approx(gini)
    variance = np.mean([np.var(z[:, channel]) for channel in range(z.shape[1])])
    assert measured["gate_variance"].mean() == pytest.approx(variance)


@pytest.mark.parametrize("policy", [Outward(proportion=0.3), Inward(knee=0.5)], ids=lambda policy: policy.name)
def test_near_zero_after_arm_is_that_of_redistribute_at_the_tokens_own_positions(policy):
    without, _ = views(1)
    halfwidth = near_zero_halfwidth(without.activated)
    arm = ARM(policy, width=48, layer=1, noise=Noise(7))
    found = near_zero_after(without, halfwidth, arm, AT)
    whole = torch.cat([torch.zeros(AT, 48), without.activated.float()])
    uniforms = Noise(7).uniforms(whole.shape, torch.arange(8), Noise(7).keys(48, 1))
    after = redistribute(whole, policy, noise=uniforms)[AT:]
    np.testing.assert_array_equal(found, (after.abs() < halfwidth).double().mean(1).numpy())
