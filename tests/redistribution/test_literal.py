"""The yardstick is the published algorithm: it moves what `Outward` moves at call scope."""

import pytest
import torch

from armlet import Noise, Outward
from armlet.redistribution.literal import literal
from armlet.redistribution.outcome import drawer, outcome
from gates import gate


@pytest.mark.parametrize("shape", [(1, 1536), (7, 333)])
@pytest.mark.parametrize("band", [0.001, 0.13, 5.0])
def test_literal_moves_what_outward_moves_over_the_whole_tensor(shape, band):
    a = gate(*shape)
    policy = Outward(band=band)
    wanted = outcome(a, policy, scope="call", draw=drawer(a, Noise(0), None))
    found = literal(a, band=band)
    assert torch.equal(found[~wanted.moved], a[~wanted.moved])
    assert not torch.equal(found[wanted.moved], a[wanted.moved])
    assert found.max() <= a.max()
    assert found.min() >= a.min()
