"""A grid contains the policy's own setting, is ascending, and changes its knobs only."""

import pytest

from armlet.inspection.knob_grids import knob_grid
from armlet.redistribution import Cut, Inward, Outward, Transport
from armlet.redistribution.policies import settings

KNOBS = {
    Outward(): ["band", "ceiling"],
    Outward(band=0.33, write="add"): ["band", "ceiling"],
    Outward(proportion=0.3): ["proportion", "ceiling"],
    Inward(): ["knee"],
    Inward(limit=3.0, side="above"): ["limit"],
    Transport(spread=1.1): ["spread", "strength"],
    Cut(): ["band"],
    Cut(proportion=0.11): ["proportion"],
    Cut(threshold=0.02): ["threshold"],
}
each_policy = pytest.mark.parametrize("policy", KNOBS, ids=repr)


@each_policy
def test_knobs_are_the_settings_that_decide(policy):
    assert list(knob_grid(policy).knobs) == KNOBS[policy]


@each_policy
def test_the_grid_contains_the_policy_and_starts_there(policy):
    grid = knob_grid(policy)
    assert grid.states()[grid.start()] == policy


@each_policy
def test_values_ascend_and_every_state_has_its_own_policy(policy):
    grid = knob_grid(policy)
    for values in grid.knobs.values():
        assert list(values) == sorted(set(values))
    assert len(set(grid.states().values())) == len(grid.states())


@each_policy
def test_other_settings_stay(policy):
    kept = {name: value for name, value in settings(policy).items() if name not in KNOBS[policy]}
    for other in knob_grid(policy).states().values():
        assert kept.items() <= settings(other).items()
