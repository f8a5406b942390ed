"""What fits into 80 columns, and figures of extreme results."""

import io

import pytest
from rich.console import Console

from armlet.precision.choice import CONTRACTIONS, ROUNDED
from armlet.precision.figures import draw_precision
from armlet.precision.measure import TrialOutcome
from armlet.precision.rows import LayerRow, MethodRow
from armlet.precision.schemes import REFERENCES, QuantScheme
from armlet.precision.tables import SHORT_NAMES, layers_table, methods_table, short_perplexity
from armlet.statistics.perplexity import PerplexityRatio
from axis_labels import unlabelled


def test_the_longest_contraction_fits_into_80_letters():
    ratio = PerplexityRatio(1.0, 0.999, 1.001)
    setting = max(map(str, CONTRACTIONS), key=len)
    row = LayerRow(28, dict.fromkeys(REFERENCES, 1.1), True, setting, ratio, ratio, False)
    shown = io.StringIO()
    Console(file=shown, width=80).print(layers_table([row]))
    assert f"1.000 [0.999, 1.001] {setting}" in shown.getvalue()
    assert "…" not in shown.getvalue()


def test_all_methods_and_the_longest_scheme_fit_into_80_characters_in_whole_words():
    outcome, same = TrialOutcome([1.6], {}), PerplexityRatio(1.0, 1.0, 1.0)
    rows = [MethodRow(QuantScheme("int8", "static"), name, "", 99_998.4, same, None, outcome) for name in SHORT_NAMES]
    shown = io.StringIO()
    Console(file=shown, width=80).print(methods_table(rows))
    _title, *headings, _line, row = shown.getvalue().splitlines()[:5]
    assert row.split() == ["int8", "static", *["99,998"] * len(SHORT_NAMES)]  # no column continues below
    words = " ".join(headings).split()
    assert sorted(words) == sorted(["scheme", *" ".join(SHORT_NAMES.values()).split()])
    assert not any(word.endswith("-") for word in words)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.00609, "1.0061"), (2.0, "2.00"), (999.99, "999.99"), (1804.3, "1,804"), (99998.4, "99,998"), (1e5, "1.0e5")],
)
def test_a_perplexity_takes_six_characters(value, shown):
    assert short_perplexity(value) == shown
    assert len(shown) <= 6


@pytest.mark.slow
@pytest.mark.parametrize("schemes", [(), REFERENCES[:1], REFERENCES], ids=len)
def test_a_figure_of_rounding_that_changes_nothing_labels_its_axes_and_is_drawn_without_a_warning(schemes):
    names = ("sqnr", "saturated", "max_over_median", "kurtosis")
    stats = [dict(zip(names, values, strict=True)) for values in ((None, 0.0, None, None), (9.0, 0.0, 2.0, 1.0))]
    outcome = TrialOutcome([1.6], dict(enumerate(stats)))
    same = PerplexityRatio(1.0, 1.0, 1.0)
    rows = [MethodRow(scheme, ROUNDED, "", 5.0, same, None, outcome) for scheme in (None, *schemes)]
    layers = [LayerRow(at, dict.fromkeys(REFERENCES, 1.0), False, None, None, None, False) for at in (0, 1)]
    figure = draw_precision(rows, layers)
    figure.draw_without_rendering()
    assert unlabelled(figure) == []


@pytest.mark.slow
@pytest.mark.parametrize("rise", [1.5e-4, 0.5])
def test_the_ticks_of_rises_are_round_numbers_also_where_all_rises_are_small(rise):
    row = MethodRow(None, ROUNDED, "", 5.0, PerplexityRatio(1.0, 1.0, 1.0), None, TrialOutcome([1.6], {}))
    layers = [
        LayerRow(at, dict.fromkeys(REFERENCES, damage), False, None, None, None, False)
        for at, damage in enumerate((1.0, 1 + rise))
    ]
    figure = draw_precision([row], layers)
    figure.draw_without_rendering()
    axes = next(axes for axes in figure.subfigs[1].axes if axes.get_ylabel() == "rise of perplexity")
    ticks = [tick.get_loc() for tick in axes.yaxis.get_major_ticks() if 0 < tick.get_loc() <= axes.get_ylim()[1]]
    assert ticks
    assert ticks == pytest.approx([float(f"{tick:.1e}") for tick in ticks])
