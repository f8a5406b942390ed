"""Ranges hold what they promise, and arrows follow the data, whichever policy it came from."""

from dataclasses import replace

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from armlet.inspection.distributions import full_range, near_zero_window
from armlet.inspection.figures import flow
from armlet.inspection.records import Panel

EVERYTHING = (-1e9, 1e9)
VALUES = hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-50, 50, width=32))
PAIRS = st.integers(1, 30).flatmap(
    lambda n: st.tuples(*(hnp.arrays(np.float64, n, elements=st.floats(-50, 50)) for _ in range(2)))
)


def panel(before, after, moved=None):
    before, after = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    return Panel("Outward", "band 0.13", before, after, before != after if moved is None else np.asarray(moved))


def swapped(shown):
    return replace(shown, before=shown.after, after=shown.before)


@given(PAIRS, st.one_of(st.none(), st.tuples(st.floats(-60, 0), st.floats(0, 60))))
@example((np.zeros(1), np.zeros(1)), (0.0, 0.0))
@example((np.ones(1), np.ones(1)), (0.0, 0.0))
def test_full_range_holds_every_value_and_the_axis(pair, axis):
    low, high = full_range([panel(*pair)], axis)
    assert low < high
    for values in (*pair, axis or ()):
        assert all(low <= value <= high for value in values)


def test_an_axis_that_holds_every_value_is_kept():
    assert full_range([panel([-1, 2], [0, 3.9])], (-4, 4)) == (-4, 4)


def test_full_range_looks_at_every_panel():
    low, high = full_range([panel([0, 1], [0, 1]), panel([0, 1], [-7, 1]), panel([0, 1], [0, 9])])
    assert (low < -7, high > 9) == (True, True)


@given(VALUES)
def test_near_zero_lies_within_the_full_range(values):
    everything = full_range([panel(values, values)])
    low, high = near_zero_window(values, everything)
    assert everything[0] <= low < high <= everything[1]


def test_near_zero_leaves_far_outliers_to_the_upper_row():
    values = np.append(np.linspace(-0.3, 1, 1001), 48)
    everything = full_range([panel(values, values)])
    low, high = near_zero_window(values, everything)
    assert low == everything[0]
    assert 1 < high < 3


def test_a_window_on_nearly_everything_is_everything():
    values = np.linspace(-1, 1, 1001)
    everything = full_range([panel(values, values)])
    assert near_zero_window(values, everything) == everything


def test_outward_motion_gives_an_arrow_away_from_zero_on_either_side():
    before = np.linspace(-0.1, 0.1, 101)
    (left_start, left_end), (right_start, right_end) = flow(panel(before, before * 30), (-4, 4))
    assert left_end < left_start < 0 < right_start < right_end


def test_inward_motion_gives_an_arrow_towards_zero_on_either_side():
    before = np.linspace(-3, 3, 101)
    (left_start, left_end), (right_start, right_end) = flow(panel(before, before / 30), (-4, 4))
    assert left_start < left_end < 0 < right_end < right_start


@given(PAIRS)
def test_arrows_turn_round_when_before_and_after_are_swapped(pair):
    window = (-51.0, 51.0)
    there, back = flow(panel(*pair), window), flow(swapped(panel(*pair)), window)
    assert [(end, start) for start, end in back] == there


@given(PAIRS)
def test_an_arrow_starts_and_ends_among_the_values_that_moved(pair):
    shown = panel(*pair)
    for start, end in flow(shown, (-51.0, 51.0)):
        # A mean of equal values may round past them.
        assert shown.before[shown.moved].min() - 1e-9 <= start <= shown.before[shown.moved].max() + 1e-9
        assert shown.after[shown.moved].min() - 1e-9 <= end <= shown.after[shown.moved].max() + 1e-9


def test_values_that_did_not_move_draw_no_arrow():
    before, after = [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]
    assert flow(panel(before, after), (-4, 4))
    assert flow(panel(before, after, moved=[False] * 3), (-4, 4)) == []


def test_values_outside_the_window_draw_no_arrow():
    assert flow(panel([10.0], [1.0]), (-4, 4)) == []
    assert flow(panel([1.0], [10.0]), (-4, 4)) == []


def test_a_move_too_short_to_see_draws_no_arrow():
    assert flow(panel([1.0], [1.1]), (-4, 4)) == []
    assert flow(panel([1.0], [1.1]), (0, 2)) == [(1.0, 1.1)]


def test_the_farthest_values_decide_the_arrow():
    before = np.append(np.full(99, 1.0), 40.0)
    shown = panel(before, np.append(np.full(99, 1.2), 10.0))
    assert flow(shown, (0, 50), 0.01) == [(40.0, 10.0)]
