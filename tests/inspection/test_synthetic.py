"""The two samples have the shapes that their names promise, for every seed."""

import pytest
import torch

from armlet.inspection.synthetic import CENTRES, MODE_WEIGHTS, synthetic
from armlet.redistribution import Inward, Transport, redistribute
from armlet.redistribution.errors import ArgumentError
from armlet.statistics.shape import count_modes

SEEDS = range(8)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tokens", [1, 64])
def test_modes_has_its_five_modes(seed, tokens):
    assert count_modes(synthetic("modes", seed=seed, tokens=tokens).double().flatten().numpy()) == len(CENTRES) == 5


@pytest.mark.parametrize("seed", SEEDS)
def test_modes_lies_within_the_axis_before_and_after_transport(seed):
    before = synthetic("modes", seed=seed)
    assert before.abs().max() < 4
    assert redistribute(before, Transport()).abs().max() < 4


@pytest.mark.parametrize("seed", SEEDS)
def test_heavy_tail_has_one_mode_and_tails_that_inward_halves(seed):
    before = synthetic("heavy-tail", seed=seed)
    assert count_modes(before.double().flatten().numpy()) == 1
    assert before.abs().max() > 20 * before.abs().median()
    assert redistribute(before, Inward()).abs().max() < 0.6 * before.abs().max()


def test_weights_are_shares():
    assert sum(MODE_WEIGHTS) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["modes", "heavy-tail"])
def test_a_seed_gives_the_same_sample_and_leaves_the_global_generator_alone(kind):
    state = torch.get_rng_state()
    first, again, other = (synthetic(kind, seed=seed, tokens=3, width=50) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (3, 50)
    assert first.dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_sample_is_refused_with_the_choices():
    with pytest.raises(ArgumentError, match=r"modes or heavy-tail, found 'mode'"):
        synthetic("mode")
