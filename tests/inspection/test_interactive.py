"""The interactive figure draws the library's counts and curves, and leaves the colours of text to the page."""

import builtins

import numpy as np
import pytest

from armlet.inspection.distributions import distributions
from armlet.inspection.interactive import TRACES, density_scale, distribution_figure
from armlet.inspection.measure import inspect_gates
from armlet.inspection.records import GateSample
from armlet.inspection.synthetic import synthetic
from armlet.presentation.page import figure_style
from armlet.presentation.style import COLOURS, OTHER_COLOUR
from armlet.redistribution import Cut, Inward, Outward, Transport
from armlet.redistribution.errors import ArgumentError

POLICIES = (Outward(), Inward(), Transport(), Cut())
PANELS = [e.panel for e in inspect_gates(GateSample([synthetic("heavy-tail", tokens=2, width=512)]), POLICIES).effects]


def drawn(panel=PANELS[0], **how):
    views = distributions(panel)
    figure = distribution_figure(views, panel.name, **how)
    rows = figure.data[: len(TRACES)], figure.data[len(TRACES) :]
    return figure, views, [dict(zip(TRACES, row, strict=True)) for row in rows]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
@pytest.mark.parametrize("logarithmic", [True, False])
def test_upper_row_draws_the_counts_of_all_values(panel, logarithmic):
    figure, (everything, _), (upper, _) = drawn(panel, logarithmic=logarithmic)
    for name, values in (("before", panel.before), ("after", panel.after)):
        counts = np.histogram(values.astype(np.float64), everything.edges)[0]
        np.testing.assert_array_equal(upper[name].customdata, counts)
        np.testing.assert_array_equal(upper[name].y[counts > 0], counts[counts > 0])
    assert figure.layout.yaxis.type == ("log" if logarithmic else "linear")


def test_on_a_logarithmic_axis_an_empty_bin_is_out_of_view():
    figure, (everything, _), (upper, _) = drawn(PANELS[0])
    empty = everything.after == 0
    assert empty.any()
    assert (np.log10(upper["after"].y[empty]) < figure.layout.yaxis.range[0]).all()


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
def test_lower_row_is_the_density_near_zero_and_no_bar_is_higher_than_its_axis(panel):
    figure, views, (_, lower) = drawn(panel)
    edges = views[1].edges
    for name, values in (("before", panel.before), ("after", panel.after)):
        inside = ((values >= edges[0]) & (values <= edges[-1])).mean()
        assert (lower[name].y * np.diff(edges)).sum() == pytest.approx(inside)
        assert lower[name].y.max() < figure.layout.yaxis3.range[1]
    np.testing.assert_allclose(lower["after"].y, views[1].after * density_scale(views))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
def test_both_rows_draw_the_curve_of_their_view_on_the_right_hand_axis_within_its_range(panel):
    figure, views, rows = drawn(panel)
    axes = (("y2", figure.layout.yaxis2), ("y4", figure.layout.yaxis4))
    for view, row, (name, axis) in zip(views, rows, axes, strict=True):
        for kind, curve in (("low", view.low), ("middle", view.middle), ("high", view.high)):
            np.testing.assert_array_equal(row[kind].y, curve)
            assert row[kind].yaxis == name
            assert axis.range[0] <= np.nanmin(curve) <= np.nanmax(curve) <= axis.range[1]
        assert axis.side == "right"


@pytest.mark.parametrize("row", [0, 1])
def test_bars_lie_on_their_bins(row):
    _, views, rows = drawn()
    bars, edges = rows[row]["before"], views[row].edges
    np.testing.assert_allclose(bars.x - bars.width / 2, edges[:-1])
    np.testing.assert_allclose(bars.x + bars.width / 2, edges[1:])


@pytest.mark.parametrize("name", [*COLOURS, "Mine"])
def test_after_has_the_policys_colour_in_both_rows(name):
    figure = distribution_figure(distributions(PANELS[0]), name)
    outlines = [trace.line.color for trace in figure.data if trace.name == f"after {name}"]
    assert outlines == [COLOURS.get(name, OTHER_COLOUR)] * 2


def test_nothing_is_drawn_on_a_background_of_its_own():
    layout = drawn()[0].layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert not layout.template.layout.to_plotly_json()
    assert layout.title.text is None


def test_the_page_names_every_policys_colour_as_a_browser_does():
    style = figure_style()
    for name, colour in COLOURS.items():
        red, green, blue = bytes.fromhex(colour[1:])
        assert f'[style*="stroke: rgb({red}, {green}, {blue})"] {{ stroke: var(--{name.lower()})' in style


def test_every_axis_has_a_title_and_every_kind_of_trace_one_legend_entry():
    figure, *_ = drawn()
    axes = [axis for axis in figure.layout.to_plotly_json() if axis[1:5] == "axis"]
    assert len(axes) == 6
    assert all(figure.layout[axis].title.text for axis in axes)
    entries = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert len(entries) == len(set(entries)) == 4


def test_without_plotly_the_error_says_what_to_install(monkeypatch):
    imported = builtins.__import__

    def refused(name, *arguments, **keywords):
        if name.startswith("plotly"):
            raise ImportError(name)
        return imported(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refused)
    with pytest.raises(ArgumentError, match=r"pip install 'armlet\[page\]'"):
        distribution_figure(distributions(PANELS[0]), "Outward")
