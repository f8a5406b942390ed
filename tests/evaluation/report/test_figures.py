"""The forest plot and the map show each number once, in its place, and nothing is cut off."""

import re
from dataclasses import replace

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from armlet.evaluation.conditions.placebos import COMPARED_PLACEBOS
from armlet.evaluation.report.figures import NARROW, UNDETECTABLE, WIDE, draw_forest
from armlet.evaluation.report.findings import PairedComparison, Side
from armlet.evaluation.report.tables import grouped, identical
from armlet.evaluation.search.figures import DARK, draw_map
from armlet.evaluation.search.trials import SearchMap, TrialResult
from armlet.presentation.numbers import difference_text
from armlet.presentation.style import COLOURS, GREY, svg_text
from armlet.redistribution.errors import ArgumentError
from armlet.statistics.comparison import compare
from axis_labels import unlabelled
from evaluations import choices, found, sums


@pytest.fixture(scope="module")
def tasks():
    return found(sums(60), choices(40), fillings=()).tasks


def against_baseline(task):
    return [pair for group, pairs in grouped(task).items() if group not in COMPARED_PLACEBOS for pair in pairs]


def made(name="outward", judged=True, interval=(-0.01, 0.03), unseen=0.02, difference=0.01):
    """A comparison with the baseline."""
    low, high = (sign * float("inf") if end is None else end for sign, end in zip((-1, 1), interval, strict=True))
    comparison = replace(
        compare([0, 1], [1, 1]), interval=(low, high), smallest_detectable=unseen, difference=difference
    )
    return PairedComparison(Side(name), Side("baseline"), judged, comparison)


def forest(tasks, *pairs, title="t", layout=WIDE):
    """The forest plot of one task with these comparisons."""
    return draw_forest([replace(tasks[0], comparisons=pairs)], title=title, layout=layout)


def cell(band, ceiling, difference=0.01, low=-0.01, high=0.03, items=100):
    return TrialResult(0, {"band": band, "ceiling": ceiling}, "0", items, 0.5, difference, low, high)


def drawn(*cells):
    return draw_map(SearchMap(cells, "band", "ceiling", "a map"))


def lines(axes):
    """(low, high) of each interval, from the top down; the first line is that of zero."""
    return [tuple(line.get_xdata()) for line in axes.lines[1:] if len(line.get_xdata()) == 2]


def texts(axes):
    """Of a forest plot: the heading, and then name and numbers of each row."""
    return [text.get_text().replace("\n", " ") for text in axes.texts]


def patches(axes, filled=True):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_fill() is filled]


def outside(figure):
    """Texts that are not wholly inside the figure."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    words = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in words}
    wide, tall = figure.bbox.size
    return [text for text, box in boxes.items() if min(box.x0, box.y0) < 0 or box.x1 > wide or box.y1 > tall]


@pytest.mark.slow
def test_every_comparison_has_its_line_and_its_numbers(tasks):
    figure = draw_forest(tasks, title="differences")
    for axes, task in zip(figure.axes, tasks, strict=True):
        pairs = against_baseline(task)
        assert pairs
        told = [pair for pair in pairs if identical(task, pair) is None]
        assert lines(axes) == [tuple(100 * end for end in pair.interval) for pair in told]
        numbers = [
            identical(task, pair) or difference_text(pair.comparison.difference, *pair.interval) for pair in pairs
        ]
        assert texts(axes)[2::2] == numbers
        assert texts(axes)[1::2] == [str(pair.treated) for pair in pairs]


@pytest.mark.slow
def test_what_is_judged_is_bold_and_above_the_grey_placebos(tasks):
    figure = forest(tasks, made("identity", judged=False), made("inward"))
    _, first, _, second, _ = figure.axes[0].texts
    assert [each.get_text() for each in (first, second)] == ["inward", "identity"]
    assert [each.get_weight() for each in (first, second)] == ["bold", "normal"]
    assert [each.get_color() for each in (first, second)] == [DARK, GREY]
    assert first.xy[1] > second.xy[1]


@pytest.mark.parametrize("name", COLOURS)
def test_a_policy_keeps_its_colour(tasks, name):
    one, other = (forest(tasks, made(f"{name.lower()}{more}")) for more in ("", " band=0.2 + filler"))
    assert [figure.axes[0].lines[1].get_color() for figure in (one, other)] == [COLOURS[name]] * 2


def test_the_band_is_what_could_have_gone_unseen(tasks):
    axes = forest(tasks, made(unseen=0.02), made("inward", unseen=None)).axes[0]
    known, unknown = patches(axes)
    assert (known.get_x(), known.get_width()) == (-2.0, 4.0)
    assert (unknown.get_x(), unknown.get_x() + unknown.get_width()) == pytest.approx(axes.get_xlim())
    assert to_hex(known.get_facecolor()) == UNDETECTABLE


def test_an_infinite_bound_is_an_arrow_at_the_edge(tasks):
    axes = forest(tasks, made(interval=(None, 0.03))).axes[0]
    low, _ = axes.get_xlim()
    assert lines(axes) == [(low, 3.0)]
    assert [line.get_marker() for line in axes.lines if line.get_xdata()[0] == low] == ["None", "<"]
    assert "[−∞, +3.0]" in texts(axes)[2]


def test_nothing_is_cropped(tasks):
    for axes in draw_forest(tasks, title="t").axes:
        low, high = axes.get_xlim()
        assert all(low <= bound <= high for line in lines(axes) for bound in line)
        assert low < 0 < high


def test_intervals_of_zero_width_still_have_an_axis(tasks):
    low, high = forest(tasks, made(interval=(0, 0), unseen=None, difference=0)).axes[0].get_xlim()
    assert (low, high) == (-1.0, 1.0)


def test_the_figure_grows_with_its_rows(tasks):
    pairs = against_baseline(tasks[0])
    heights = [forest(tasks, *pairs[:count]).get_figheight() for count in (1, 2, 3)]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1])
    assert heights[1] > heights[0]


@pytest.mark.slow
def test_no_name_leaves_the_figure_or_meets_the_panel(tasks):
    long = made("outward " + "band=0.2 " * 40, interval=(-1, 1))
    unbroken = made("M" * 500)
    first = replace(tasks[0], name="a task " * 40, comparisons=[*tasks[0].comparisons, long, unbroken])
    figure = draw_forest([first, *tasks[1:]], title="a title " * 40)
    figure.set_dpi(300)  # coarse pixels widen small letters
    assert outside(figure) == []
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axes in figure.axes:
        left, right = axes.bbox.x0, axes.bbox.x1
        assert all(text.get_window_extent(renderer).x1 < left for text in axes.texts[1::2])
        assert all(text.get_window_extent(renderer).x0 > right for text in axes.texts[2::2])


def test_names_are_text_and_no_formula(tasks):
    figure = forest(tasks, made("$\\frac{ <script>--> 😀\n|"), title="$x <b>")
    assert "<script" not in svg_text(figure)
    assert texts(figure.axes[0])[1] == "$\\frac{ <script>--> 😀 |"


@pytest.mark.slow
def test_the_same_findings_give_the_same_picture(tasks):
    assert svg_text(draw_forest(tasks, title="t")) == svg_text(draw_forest(tasks, title="t"))


@pytest.mark.parametrize("layout", [WIDE, NARROW])
def test_an_exact_placebo_is_drawn_as_identical_without_an_interval(tasks, layout):
    axes = draw_forest(tasks[:1], title="t", layout=layout).axes[0]
    told = [pair for pair in against_baseline(tasks[0]) if pair.treated.condition not in ("identity", "draw-only")]
    assert lines(axes) == [tuple(100 * end for end in pair.interval) for pair in told]
    assert " ".join(texts(axes)).count("identical, 60 of 60") == 2


@pytest.mark.slow
def test_a_narrow_forest_has_the_same_numbers_and_no_text_leaves_it(tasks):
    figure = draw_forest(tasks, title="a title " * 40, layout=NARROW)
    figure.set_dpi(300)
    assert outside(figure) == []
    assert figure.get_figwidth() < 4
    for axes, task in zip(figure.axes, tasks, strict=True):
        words = " ".join(texts(axes))
        for pair in against_baseline(task):
            assert str(pair.treated) in words
            if pair.treated.condition not in ("identity", "draw-only"):
                assert difference_text(pair.comparison.difference, *pair.interval) in words


def test_in_a_narrow_forest_an_interval_is_nearer_to_its_own_numbers_than_to_the_next_name(tasks):
    figure = forest(tasks, made("a"), made("b " * 40), made("c"), layout=NARROW)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    axes = figure.axes[0]
    names = [text.get_window_extent(renderer) for text in axes.texts[1:]]
    intervals = [
        axes.transData.transform((0, line.get_ydata()[0]))[1] for line in axes.lines if len(line.get_xdata()) == 2
    ]
    for own, interval, following in zip(names, intervals[1:], names[1:], strict=False):
        assert 0 < own.y0 - interval < interval - following.y1


def test_a_forest_without_rows_is_refused(tasks):
    with pytest.raises(ArgumentError, match="nothing was compared"):
        forest(tasks)


def test_a_cell_stands_where_its_settings_are_and_missing_ones_are_blank():
    axes = drawn(cell(0.2, 0.99, 0.02), cell(0.1, 1.0, -0.03), cell(0.1, 0.99, 0.0)).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.1", "0.2"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.99", "1"]
    assert sorted(tuple(map(int, patch.get_xy())) for patch in patches(axes)) == [(0, 0), (0, 1), (1, 0)]
    assert {text.get_text(): text.get_position()[0] for text in axes.texts if "[" not in text.get_text()} == {
        "+2.0": 1.5,
        "−3.0": 0.5,
        "0.0": 0.5,
    }


def test_a_cell_is_outlined_where_its_interval_excludes_zero():
    inside = [cell(0.1, 1, low=-0.01, high=0.01), cell(0.2, 1, low=None, high=0.01), cell(0.3, 1, low=0.0, high=0.01)]
    apart = [cell(0.4, 1, low=0.001, high=None), cell(0.5, 1, low=None, high=-0.001)]
    axes = drawn(*inside, *apart).axes[0]
    assert [int(patch.get_x()) for patch in patches(axes, filled=False)] == [3, 4]
    assert {patch.get_linewidth() for patch in patches(axes)} == {0}  # a cell has no outline of its own


@pytest.mark.parametrize("difference", [-0.05, -0.001, 0.05])
def test_an_outline_is_seen_on_its_cell(difference):
    low, high = sorted((difference / 2, difference * 2))
    axes = drawn(cell(1, 1, difference, low, high), cell(2, 1, 0.05)).axes[0]
    (frame,), (filled, _) = patches(axes, filled=False), patches(axes)
    light, dark = sorted(sum(colour[:3]) for colour in (frame.get_edgecolor(), filled.get_facecolor()))
    assert dark - light > 1


def test_the_colours_are_centred_on_zero():
    axes = drawn(cell(1, 1, 0.0), cell(2, 1, 0.04), cell(3, 1, -0.01)).axes[0]
    none, up, down = (patch.get_facecolor()[:3] for patch in patches(axes))
    assert min(up) > 0.6  # pale, because its interval includes 0
    assert max(none) - min(none) < 0.01
    assert up[2] > up[0]
    assert down[0] > down[2]
    assert max(down) - min(down) < max(up) - min(up)


def test_equal_differences_of_nothing_can_be_drawn():
    assert len(patches(drawn(cell(1, 1, 0.0)).axes[0])) == 1


def test_unlike_numbers_of_items_are_told_in_the_cells():
    assert not any("items" in text for text in texts(drawn(cell(1, 1), cell(2, 1)).axes[0]))
    unlike = texts(drawn(cell(1, 1), cell(2, 1, items=1200)).axes[0])
    assert [text.split("] ")[1] for text in unlike if "items" in text] == ["100 items", "1,200 items"]


@pytest.mark.parametrize(("count", "narrow"), [(1, False), (3, False), (12, False), (5, True)])
def test_no_text_of_a_map_leaves_it_or_its_cell(count, narrow):
    cells = [cell(at, 1, -0.123, -0.456, 0.999) for at in range(count)]
    figure = draw_map(SearchMap(cells, "band", "ceiling", "a map"), narrow=narrow)
    assert outside(figure) == []
    renderer = FigureCanvasAgg(figure).get_renderer()
    wide = figure.axes[0].bbox.width / count
    assert all(text.get_window_extent(renderer).width < wide for text in figure.axes[0].texts)


@pytest.mark.parametrize("cells", [[], [cell(1, 1), cell(1, 1)]], ids=["none", "twice"])
def test_a_map_without_cells_or_with_one_twice_is_refused(cells):
    with pytest.raises(ArgumentError, match="rows"):
        drawn(*cells)


def test_a_map_holds_no_picture_and_is_the_same_each_time():
    one, other = (svg_text(drawn(cell(0.1, 1), cell(0.2, 1, -0.02))) for _ in range(2))
    assert one == other
    assert not re.search(r"<image|data:", one)


def test_every_axis_has_a_label(tasks):
    assert {axis for axis, _ in unlabelled(draw_forest(tasks, title="t"))} == {"y"}  # each row has its name beside it
    assert unlabelled(drawn(cell(0.1, 1), cell(0.2, 1, -0.02))) == []
