"""The tables show every number, whatever the terminal's width."""

import math
from dataclasses import replace
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from armlet import Inward, Outward, Transport
from armlet.inspection.measure import inspect_gates
from armlet.inspection.records import Effect, GateSample
from armlet.inspection.result import Inspection
from armlet.inspection.synthetic import synthetic
from armlet.inspection.tables import inspection_table
from armlet.statistics.shape import MEASURES, difference

POLICIES = [Outward(), Inward(), Transport()]
REAL = inspect_gates(GateSample([synthetic("modes", tokens=2, width=300)]), POLICIES)

# What float32 gates can give: tails of 1e30 as well as rounding noise of 1e-30.
SPECIAL = st.sampled_from([0.0, -0.000471, 0.000999, 123456.0, math.nan, math.inf, -math.inf])
NUMBERS = st.one_of(SPECIAL, st.floats(-(2.0**100), 2.0**100, width=32))


def shown(table, width=80):
    console = Console(file=StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


def rows(text):
    """Cells of each row of an inspection's table, by the name of its measure."""
    cells = [line.split() for line in text.splitlines()]
    return {row[0]: row[1:] for row in cells if row and row[0] in {"share_moved", "measure", *MEASURES}}


def measured(policies, before, after, share=0.5):
    """An inspection that found these numbers."""
    ends = dict.fromkeys(MEASURES, before), dict.fromkeys(MEASURES, after)
    effects = [
        Effect(policy, replace(REAL.effects[0].panel, name=type(policy).__name__), share, ends[1], difference(*ends))
        for policy in policies
    ]
    return Inspection(REAL.sample, "token", 0, 2, 300, 0, ends[0], effects, False)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_measure_has_a_row_with_before_after_and_change_of_each_policy(count):
    inspection = replace(REAL, effects=REAL.effects[:count])
    found = rows(shown(inspection.table()))
    names = [type(policy).__name__ for policy in POLICIES[:count]]
    assert found["measure"] == ["before", *(heading for name in names for heading in (name, "change"))]
    assert list(found) == ["measure", "share_moved", *MEASURES]
    for name in MEASURES:
        expected = [inspection.before[name]]
        for effect in inspection.effects:
            expected += [effect.after[name], difference(inspection.before, effect.after)[name]]
        # Two digits at least.
        assert [float(cell) for cell in found[name]] == pytest.approx(expected, rel=0.05)
    shares = [effect.share_moved for effect in inspection.effects]
    assert [float(cell) for cell in found["share_moved"]] == pytest.approx(shares, rel=0.05)


@given(st.sampled_from([POLICIES, [Outward()] * 3, [Outward(), Transport(), Transport()]]), NUMBERS, NUMBERS)
def test_no_number_is_cut_on_80_columns(policies, before, after):
    text = shown(measured(policies, before, after, share=1.2345e-5).table())
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
    for cells in rows(text).values():
        assert len(cells) in (3, 7)


@given(NUMBERS, NUMBERS)
def test_numbers_are_rounded_to_two_digits_at_least(before, after):
    found = rows(shown(measured([Outward()], before, after).table()))["std"]
    expected = (before, after, after - before)
    for cell, number in zip(found, expected, strict=True):
        assert (cell == "-") if math.isnan(number) else (float(cell) == pytest.approx(number, rel=0.05))


@pytest.mark.parametrize(("after", "change"), [(1.5, "+0.5"), (0.5, "-0.5"), (1.0, "0")])
def test_a_change_has_its_sign(after, change):
    assert rows(shown(measured([Outward()], 1.0, after).table()))["l1"][2] == change


def test_what_has_no_value_is_a_dash():
    assert rows(shown(measured([Outward()], math.nan, 1.0).table()))["kurtosis"] == ["-", "1", "-"]


def test_three_digits_where_there_is_room():
    found = rows(shown(measured([Outward()], 12.3456, 0.98765).table()))["l2"]
    assert found == ["12.3", "0.988", "-11.4"]


def test_a_title_is_no_markup():
    assert "of [bold]x[/bold]" in shown(inspection_table(REAL.before, REAL.effects, "of [bold]x[/bold]"))


def test_the_settings_of_each_policy_stand_below_the_table():
    lines = shown(inspection_table(REAL.before, REAL.effects, "title")).splitlines()
    details = [f"{effect.panel.name}: {effect.panel.detail}" for effect in REAL.effects]
    assert [line.strip() for line in lines[-3:]] == details


def test_a_policy_that_stands_there_twice_is_numbered():
    values = [synthetic("modes", tokens=2, width=300)]
    inspection = inspect_gates(GateSample(values), [Outward(band=0.1), Inward(), Outward(band=0.3)])
    lines = shown(inspection_table(inspection.before, inspection.effects, "title")).splitlines()
    heading = next(index for index, line in enumerate(lines) if line.startswith("measure"))
    assert lines[heading - 1].split() == ["Outward", "Outward"]
    assert lines[heading].split() == ["measure", "before", "1", "change", "Inward", "change", "2", "change"]
    assert [line.split(",")[0] for line in lines[-3:]] == [
        "Outward 1: band 0.1",
        "Inward: knee 0.99",
        "Outward 2: band 0.3",
    ]
