"""Noise is a function of seed, stream, layer, position and channel, and of nothing else."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracle
from armlet.redistribution import Noise
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import source

SEEDS = st.integers(-(2**63), 2**64)


def draw(noise, positions, width, layer=0):
    return noise.uniforms(torch.Size((*positions.shape, width)), positions, noise.keys(width, layer))


@given(SEEDS, st.integers(0, 2**32), st.integers(0, 200), st.lists(st.integers(0, 2**40), min_size=1, max_size=3))
def test_keyed_noise_is_its_formula(seed, stream, layer, positions):
    fast = draw(Noise(seed, stream), torch.tensor(positions), 3, layer)
    slow = [[oracle.uniform(t, j, seed, stream, layer) for j in range(3)] for t in positions]
    np.testing.assert_array_equal(fast.double().numpy(), slow)


@given(SEEDS, st.permutations(range(8)))
def test_keyed_noise_does_not_depend_on_the_order_of_tokens(seed, order):
    positions = torch.arange(8)
    together = draw(Noise(seed), positions, 5)
    assert torch.equal(draw(Noise(seed), positions[list(order)], 5), together[list(order)])
    assert torch.equal(torch.cat([draw(Noise(seed), positions[t : t + 1], 5) for t in range(8)]), together)


def test_a_shard_of_the_width_has_the_same_keys():
    assert torch.equal(Noise(7).keys(64)[:, 16:32], Noise(7).keys(32)[:, 16:])


def test_steps_and_strides_are_odd_words():
    keys = Noise(3).keys(4096)
    assert int(keys.min()) >= 0
    assert int(keys.max()) < 2**32
    assert (keys[1:] % 2 == 1).all()


@pytest.mark.parametrize("other", [Noise(1), Noise(0, stream=1)])
def test_seed_stream_and_layer_each_give_other_draws(other):
    positions = torch.arange(4)
    first = draw(Noise(0), positions, 512)
    assert (draw(other, positions, 512) != first).float().mean() > 0.99
    assert (draw(Noise(0), positions, 512, layer=1) != first).float().mean() > 0.99


def test_keyed_noise_is_uniform_along_channels_and_along_positions():
    grid = draw(Noise(0), torch.arange(2048), 512).double()
    assert grid.min() >= 0
    assert grid.max() < 1
    # Means of n uniforms deviate by 1/√(12 n); five of those would be chance once in a million.
    assert abs(grid.mean() - 0.5) < 5 / (12 * grid.numel()) ** 0.5
    assert (grid.mean(1) - 0.5).abs().max() < 5 / (12 * 512) ** 0.5
    shares = torch.histc(grid.float(), 16, 0, 1) / grid.numel()
    assert (shares - 1 / 16).abs().max() < 0.001


def test_keyed_noise_of_neighbouring_channels_and_layers_is_uncorrelated():
    one, two = (draw(Noise(0), torch.arange(64), 4096, layer).double() for layer in (0, 1))
    for x, y in ((one[:, 1:], one[:, :-1]), (one, two)):
        correlation = torch.corrcoef(torch.stack((x.flatten(), y.flatten())))[0, 1]
        assert abs(correlation) < 5 / x.numel() ** 0.5


def test_keyed_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    draw(Noise(5), torch.arange(9), 7)
    assert torch.equal(torch.get_rng_state(), before)


def test_fresh_noise_follows_its_generator():
    shape, positions = torch.Size((2, 3)), torch.arange(2)
    once = Noise.fresh(torch.Generator().manual_seed(4)).uniforms(shape, positions)
    again = Noise.fresh(torch.Generator().manual_seed(4)).uniforms(shape, positions)
    assert torch.equal(once, again)
    torch.manual_seed(11)
    assert not torch.equal(Noise.fresh().uniforms(shape, positions), Noise.fresh().uniforms(shape, positions))


def test_midpoint_is_one_half_everywhere():
    assert torch.equal(Noise.midpoint().uniforms(torch.Size((2, 3)), torch.arange(2)), torch.full((2, 3), 0.5))


@pytest.mark.parametrize("wrong", [0, "keyed", None, Noise])
def test_what_is_no_noise_is_refused(wrong):
    with pytest.raises(ArgumentError, match="noise: expected"):
        source(wrong)


@pytest.mark.parametrize("wrong", [1.5, "1", True, None])
def test_a_seed_is_an_integer(wrong):
    with pytest.raises(ArgumentError, match="seed must be an integer"):
        Noise(wrong)


def test_a_generator_is_torchs_own():
    for wrong in (3, "x", torch.zeros(3)):
        with pytest.raises(ArgumentError, match=r"Noise.fresh: expected a torch.Generator, .*, found"):
            Noise.fresh(wrong)
