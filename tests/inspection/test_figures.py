"""The figure crops nothing, shares its axes, follows the data, and has the same bytes every time."""

from dataclasses import replace
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import StepPatch
from matplotlib.text import Annotation

from armlet.inspection.figures import draw_inspection
from armlet.inspection.records import Panel
from armlet.inspection.synthetic import synthetic
from armlet.layer.diagram import PARTS
from armlet.presentation.style import COLOURS, save
from armlet.redistribution import Inward, Outward, Transport, redistribute
from axis_labels import unlabelled

POLICIES = {"Outward": Outward(), "Inward": Inward(), "Transport": Transport()}
GATE = synthetic("modes", tokens=4, width=1024)
SPIKED = synthetic("heavy-tail", tokens=4, width=1024).clamp(-0.28, 8)
SPIKED[0, 0] = 48


def panels(gate=GATE, names=tuple(POLICIES)):
    before = gate.flatten().numpy()
    after = {name: redistribute(gate, POLICIES[name]).flatten().numpy() for name in names}
    return [Panel(name, "as it comes", before, after[name], after[name] != before) for name in names]


def draw(shown, **arguments):
    return draw_inspection(shown, **{"title": "Five modes", "layer": 0, **arguments})


def rows(figure):
    """The axes of the upper row and of the lower one, left to right; the first axes hold the layer."""
    histograms = figure.axes[1:]
    return histograms[: len(histograms) // 2], histograms[len(histograms) // 2 :]


def histograms(axes):
    """Before, what of it stays, and after: (heights, edges, colour) of each."""
    steps = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    return [(*patch.get_data()[:2], to_hex(patch.get_edgecolor())) for patch in steps]


def before_and_after(axes):
    before, _, after = histograms(axes)
    return before, after


def arrows(axes):
    """(start, end) of each arrow."""
    notes = [text for text in axes.texts if isinstance(text, Annotation) and text.arrow_patch]
    return [(note.xyann[0], note.xy[0]) for note in notes]


@pytest.mark.slow
@pytest.mark.parametrize("gate", [GATE, SPIKED], ids=["modes", "spiked"])
@pytest.mark.parametrize("axis", [None, (-4, 4), (-0.1, 0.1)])
def test_upper_row_shows_every_value_before_and_after(gate, axis):
    shown = panels(gate)
    for axes, panel in zip(rows(draw(shown, axis=axis))[0], shown, strict=True):
        low, high = axes.get_xlim()
        for values, (heights, *_) in zip((panel.before, panel.after), before_and_after(axes), strict=True):
            assert low <= values.min()
            assert values.max() <= high
            assert heights.sum() == values.size


@pytest.mark.slow
@pytest.mark.parametrize("gate", [GATE, SPIKED], ids=["modes", "spiked"])
def test_no_bar_is_higher_than_its_axes(gate):
    for row in rows(draw(panels(gate))):
        for axes in row:
            for heights, *_ in before_and_after(axes):
                assert heights.max() < axes.get_ylim()[1]


@pytest.mark.parametrize("row", [0, 1])
def test_all_panels_of_a_row_share_their_axes(row):
    first, *others = rows(draw(panels(SPIKED)))[row]
    for axes in others:
        assert first.get_shared_x_axes().joined(first, axes)
        assert first.get_shared_y_axes().joined(first, axes)
        assert (axes.get_xlim(), axes.get_ylim()) == (first.get_xlim(), first.get_ylim())


def test_lower_row_zooms_where_an_outlier_hides_the_bulk_and_says_so():
    figure = draw(panels(SPIKED))
    upper, lower = rows(figure)
    assert upper[0].get_xlim()[1] > 48
    assert lower[0].get_xlim()[1] < 8
    assert "shaded range above" in lower[1].get_xlabel()


def test_given_axis_is_the_range_of_both_rows_where_nothing_lies_outside():
    upper, lower = rows(draw(panels(), axis=(-4, 4)))
    assert upper[0].get_xlim() == lower[0].get_xlim() == (-4, 4)


def test_lower_row_is_a_density():
    for axes in rows(draw(panels(), axis=(-4, 4)))[1]:
        for heights, edges, _ in before_and_after(axes):
            assert (heights * np.diff(edges)).sum() == pytest.approx(1)


def test_before_is_the_same_histogram_in_every_panel_and_after_has_the_policys_colour():
    shown = panels()
    for row in rows(draw(shown)):
        (first, *_), _ = before_and_after(row[0])
        for axes, panel in zip(row, shown, strict=True):
            (before, *_), (_, _, colour) = before_and_after(axes)
            np.testing.assert_array_equal(before, first)
            assert colour == COLOURS[panel.name].lower()


def test_what_stays_is_where_before_and_after_overlap():
    shown = panels(names=["Transport"])
    for row in rows(draw(shown, axis=(-4, 4))):
        (before, edges, _), (stays, *_), _ = histograms(row[0])
        after = np.histogram(shown[0].after, edges)[0] * before.sum() / shown[0].before.size
        np.testing.assert_allclose(stays, np.minimum(before, after), rtol=1e-12)
        assert 0 < stays.sum() < before.sum()


@pytest.mark.slow
def test_a_policy_has_the_same_colour_alone_and_among_others():
    alone = rows(draw(panels(names=["Transport"])))[0][0]
    among = rows(draw(panels()))[0][2]
    assert before_and_after(alone)[1][2] == before_and_after(among)[1][2]


@pytest.mark.slow
@pytest.mark.parametrize("row", [0, 1])
def test_arrows_lead_out_of_the_middle_for_outward_and_into_it_for_transport(row):
    outward, _, transport = rows(draw(panels()))[row]
    assert [abs(start) < abs(end) for start, end in arrows(outward)] == [True, True]
    assert [abs(start) > abs(end) for start, end in arrows(transport)] == [True, True]


@pytest.mark.slow
def test_arrows_follow_the_data_and_not_the_name():
    shown = panels()
    swapped = [replace(panel, before=panel.after, after=panel.before) for panel in shown]
    for name, panel in zip(POLICIES, shown, strict=True):
        there = arrows(rows(draw([panel], axis=(-4, 4)))[0][0])
        back = arrows(rows(draw([swapped[list(POLICIES).index(name)]], axis=(-4, 4)))[0][0])
        assert [(end, start) for start, end in back] == there


@pytest.mark.parametrize(("count", "drawn"), [(5, 0), (50, 1)])
def test_lower_row_has_no_arrow_for_fewer_values_than_one_can_see(count, drawn):
    before = np.linspace(-1, 1, 1001)
    moved = np.arange(1001) >= 1001 - count
    upper, lower = rows(draw([Panel("Inward", "", before, np.where(moved, 0.5, before), moved)]))
    assert (len(arrows(upper[0])), len(arrows(lower[0]))) == (1, drawn)


def test_a_panel_without_an_arrow_says_what_share_moved():
    still = Panel("Inward", "", np.linspace(-1, 1, 50), np.linspace(-1, 1, 50), np.zeros(50, dtype=bool))
    for row in rows(draw([still])):
        assert "share moved in view 0" in [text.get_text() for text in row[0].texts]


def test_the_layer_is_drawn_with_all_its_labels():
    written = [text.get_text() for text in draw(panels(), layer=3, activation="GELU").axes[0].texts]
    assert {part.label for part in PARTS} - {"SiLU"} | {"GELU", "Layer 4 (layer 3 in code)"} <= set(written)


LONG_DETAIL = "band 0.13, ceiling 0.995, share 0.02 to 0.25, replaced, ceiling of magnitudes, strength 0.5"


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("gate", [GATE, SPIKED], ids=["modes", "spiked"])
@pytest.mark.parametrize("title", ["Five modes", "A model with a very long name, " * 5], ids=["short", "long"])
def test_no_text_is_clipped_or_lies_on_another(count, gate, title):
    figure = draw([replace(panel, detail=LONG_DETAIL) for panel in panels(gate)[:count]], title=title)
    FigureCanvasAgg(figure).draw()
    boxes = {text: text.get_window_extent() for text in written(figure)}
    assert len(boxes) > 40
    for text, box in boxes.items():
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, text
    for (one, one_box), (other, other_box) in combinations(boxes.items(), 2):
        assert not one_box.overlaps(other_box), (one, other)


@pytest.mark.slow
@pytest.mark.parametrize("title", ["Five modes", "A model with a very long name, " * 5], ids=["short", "long"])
def test_the_diagrams_labels_fit_their_boxes(title):
    figure = draw(panels(), title=title, activation="GELU")
    FigureCanvasAgg(figure).draw()
    (diagram, *_) = figure.axes
    labels = {text.get_position(): text.get_window_extent() for text in diagram.texts}
    boxed = [part for part in PARTS if part.label not in "⊕⊗xy"]
    for part in boxed:
        (left, _), (right, _) = diagram.transData.transform([(part.left, part.y), (part.right, part.y)])
        assert left < labels[part.x, part.y].x0 < labels[part.x, part.y].x1 < right, part.label
    assert len(boxed) > 10


def written(figure):
    """Every text that is drawn. An axis keeps labels for ticks beyond its ends too; those are not."""
    for part in (figure, *figure.subfigs):
        yield from part.texts
        yield from (text for legend in part.legends for text in legend.get_texts())
    for axes in figure.axes:
        yield from (text for text in axes.texts if text.get_text())
    for axes in figure.axes[1:]:
        for axis, ends in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            ticks = [tick for tick in axis.get_major_ticks() if ends[0] <= tick.get_loc() <= ends[1]]
            yield from (tick.label1 for tick in ticks if tick.label1.get_visible())
            yield from [axis.label] * bool(axis.label.get_text())


@pytest.mark.slow
def test_a_title_with_dollar_signs_is_no_formula(tmp_path):
    save(draw(panels(), title=r"models/$x_{^$"), tmp_path, "dollars")


@pytest.mark.slow
def test_one_value_can_be_drawn(tmp_path):
    one = np.array([0.3])
    save(draw([Panel("Inward", "", one, one, np.array([False]))]), tmp_path, "one")


@pytest.mark.slow
def test_a_policy_that_moves_everything_to_zero_can_be_drawn(tmp_path):
    before = np.linspace(-1, 1, 99)
    save(draw([Panel("Mine", "", before, before * 0, before != 0)]), tmp_path, "zero")


@pytest.mark.slow
def test_two_saves_give_identical_bytes(tmp_path):
    first = save(draw(panels()), tmp_path / "first", "figure")
    figure = draw(panels())
    for folder in ("second", "third"):
        again = save(figure, tmp_path / folder, "figure")
        assert [path.read_bytes() for path in again] == [path.read_bytes() for path in first]


@pytest.mark.slow
def test_save_names_what_it_wrote(tmp_path):
    paths = save(draw(panels()), str(tmp_path / "a" / "b"), "inspect.layer0")
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "a/b/inspect.layer0.png",
        "a/b/inspect.layer0.svg",
    ]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in paths[1].read_bytes()
    assert b"<dc:date>" not in paths[1].read_bytes()


@pytest.mark.slow
def test_the_readers_settings_neither_change_the_figure_nor_are_changed(tmp_path):
    plain = save(draw(panels()), tmp_path / "plain", "figure")
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "svg.hashsalt": "theirs"}):
        theirs = dict(matplotlib.rcParams)
        styled = save(draw(panels()), tmp_path / "styled", "figure")
        assert dict(matplotlib.rcParams) == theirs
    assert [path.read_bytes() for path in styled] == [path.read_bytes() for path in plain]


@pytest.mark.slow
def test_drawing_touches_no_pyplot_state():
    import matplotlib.pyplot

    draw(panels())
    assert matplotlib.pyplot.get_fignums() == []


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_axis_has_a_label(count):
    assert unlabelled(draw(panels(names=list(POLICIES)[:count]))) == []


def test_a_label_that_is_missing_is_found():
    figure = draw(panels(names=["Inward"]))
    figure.axes[1].set_ylabel("")
    assert unlabelled(figure) == [("y", "")]


@pytest.mark.parametrize(("layer", "named"), [(4, ["Layer 5 (layer 4 in code)"]), (None, [])])
def test_values_of_no_layer_are_drawn_without_its_number(layer, named):
    texts = [text.get_text() for text in draw(panels(), layer=layer).axes[0].texts]
    assert [text for text in texts if "layer " in text.lower() and any(map(str.isdigit, text))] == named
