"""The figures of `explain` show the numbers that they are given, all of them."""

from dataclasses import replace
from math import isnan

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from armlet.mechanism.figures import (
    DRAWN_QUANTITIES,
    QUANTITY_NAMES,
    draw_affine,
    draw_attention,
    draw_classes,
    draw_counts,
    draw_layers,
)
from armlet.mechanism.measure import QUANTITIES, fit_affine
from armlet.mechanism.records import NO_TREATMENT, treatment_of
from armlet.prompts.fillers import RANDOM_SENTENCE
from axis_labels import unlabelled
from explanations import explained, explanation_of, setup_of

SETUP = setup_of(counts=(2, 5), kinds=("w7", "$w8"))
FINDINGS = explained(wanted=(0, 1, 2), setup=SETUP)
EXPLANATION = explanation_of(FINDINGS, SETUP)
TREATED = treatment_of(SETUP.policies[0])
FILLER = SETUP.fillers[SETUP.example()]


def text_of(figure):
    figure.canvas.draw()
    found = [text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title, *axes.get_xticklabels())]
    return found + [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def drawn_segments(lines):
    return [segment for segment in lines.get_segments() if np.isfinite(segment).all()]


def test_attention_is_drawn_without_and_with_filler_and_the_fillers_own_apart():
    prompt, received = SETUP.prompts[0], FINDINGS[0].received
    figure = draw_attention(prompt, FILLER, received, layer=0)
    upper, lower = figure.axes
    plain, filled = upper.lines[0].get_ydata(), upper.lines[1].get_ydata()
    np.testing.assert_array_equal(plain, received[0])
    inside = np.arange(prompt.insert_at, prompt.insert_at + FILLER.count)
    np.testing.assert_array_equal(filled, np.delete(received[1].numpy(), inside))
    np.testing.assert_array_equal(lower.lines[0].get_ydata(), received[1])
    assert [label.get_text() for label in upper.get_xticklabels()] == list(prompt.words)
    box = lower.patches[0].get_extents().transformed(lower.transData.inverted())
    assert (box.x0, box.x1) == pytest.approx((inside[0] - 0.5, inside[-1] + 0.5))


def test_the_affine_figure_shows_every_token_before_and_after_and_the_fits_numbers():
    attention = FINDINGS[0].attention
    figure = draw_affine(FILLER, attention, layer=0, heads=4)
    (axes,) = figure.axes
    without, with_filler, predicted = (points.get_offsets() for points in axes.collections[1:])
    assert len(without) == len(with_filler) == len(predicted) == len(attention[0])
    fit = fit_affine(*attention, 4)
    assert f"λ = {fit.scale:.2f}, ‖Σ‖/‖A‖ = {fit.relative:.2f}, R² = {fit.r2:.2f}" in axes.get_title()
    # Principal components of both together: their common middle is 0, and the first varies most.
    both = np.concatenate([without, with_filler])
    np.testing.assert_allclose(both.mean(0), 0, atol=1e-9)
    assert both[:, 0].std() >= both[:, 1].std()
    # An exact map is met by its prediction.
    exact = draw_affine(FILLER, (attention[0], 0.5 * attention[0] + 1), layer=0, heads=1).axes[0].collections
    np.testing.assert_allclose(exact[2].get_offsets(), exact[3].get_offsets(), atol=1e-9)


def test_two_tokens_and_one_token_can_be_drawn():
    for count in (1, 2):
        attention = torch.randn(2, count, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert draw_affine(FILLER, (attention[0], attention[1]), layer=0, heads=2).axes


def test_counts_begin_at_the_baseline_and_have_a_line_for_each_filler_and_the_control():
    figure = draw_counts(EXPLANATION.quantities, layer=1)
    assert [axes.get_ylabel() for axes in figure.axes] == [QUANTITY_NAMES[name] for name in DRAWN_QUANTITIES]
    for name, axes in zip(DRAWN_QUANTITIES, figure.axes, strict=True):
        for kind, line in zip(("w7", "$w8", RANDOM_SENTENCE), axes.lines, strict=True):
            own = [r for r in EXPLANATION.quantities if (r.layer, r.filler, r.quantity) == (1, kind, name)]
            base = [] if isnan(own[0].without) else [own[0].without]
            assert list(line.get_xdata()) == [0] * len(base) + [2, 5]
            assert list(line.get_ydata()) == base + [row.filled for row in own]
    assert text_of(figure)[-3:] == ["filler 'w7'", r"filler '\$w8'", "a random sentence"]


def test_counts_of_a_single_prompt_are_drawn_without_intervals():
    setup = setup_of(questions=["w20 w21 w22"])
    changes = explanation_of(explained(wanted=(0,), setup=setup), setup).quantities
    for name, axes in zip(DRAWN_QUANTITIES, draw_counts(changes, layer=0).axes, strict=True):
        drawn = axes.lines[0].get_ydata()[-2:]
        assert list(drawn) == [r.filled for r in changes if (r.filler, r.quantity) == ("w7", name)]


def test_every_layer_has_a_cell_for_every_quantity_of_filler_and_control():
    figure = draw_layers(EXPLANATION.quantities)
    for kind, axes in zip(("w7", "$w8", RANDOM_SENTENCE), figure.axes, strict=True):
        cells = [r for r in EXPLANATION.quantities if (r.filler, r.count) == (kind, 5)]
        shown = [text.get_text() for text in axes.texts]
        assert shown == ["-" if isnan(r.filled) else f"{r.filled:.3g}" for r in cells]
        assert [label.get_text() for label in axes.get_xticklabels()] == [QUANTITY_NAMES[name] for name in QUANTITIES]
        shades = axes.images[0].get_array()
        for shade, row in zip(np.ravel(shades), cells, strict=True):
            undecided = isnan(row.change) or isnan(row.low) or row.low <= 0 <= row.high
            assert (shade == 0) == undecided
            assert undecided or np.sign(shade) == np.sign(row.change)
            assert abs(shade) <= 1


def test_classes_have_a_bar_for_each_treatment_and_the_interval_of_its_change():
    treatments = ["5 × 'w7'", TREATED]
    figure = draw_classes(EXPLANATION.classes, treatments, layer=1)
    (axes,) = figure.axes
    own = [row for row in EXPLANATION.classes if row.layer == 1 and row.treatment in (NO_TREATMENT, *treatments)]
    names = list(dict.fromkeys(row.name for row in own))
    assert [label.get_text().split("\n")[0] for label in axes.get_xticklabels()] == names
    cells = {(row.name, row.treatment): row for row in own}
    for treatment, bars in zip((NO_TREATMENT, *treatments), axes.containers, strict=True):
        assert [bar.get_height() for bar in bars] == [cells[name, treatment].share for name in names]
    spans = {tuple(segment[:, 1]) for lines in axes.collections for segment in drawn_segments(lines)}
    assert spans == {(row.share_low, row.share_high) for row in own if not isnan(row.share_low)}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [NO_TREATMENT, *treatments]


@pytest.mark.slow
@pytest.mark.parametrize(
    "figure",
    [
        lambda: draw_attention(SETUP.prompts[0], FILLER, FINDINGS[0].received, layer=0),
        lambda: draw_affine(FILLER, FINDINGS[0].attention, layer=0, heads=4),
        lambda: draw_counts(EXPLANATION.quantities, layer=0),
        lambda: draw_layers(EXPLANATION.quantities),
        lambda: draw_classes(EXPLANATION.classes, ["5 × 'w7'"], layer=0),
    ],
    ids=["attention", "affine", "counts", "layers", "classes"],
)
def test_figures_label_every_axis_and_have_the_same_pixels_every_time(figure):
    pictures = []
    for _ in range(2):
        canvas = FigureCanvasAgg(figure())
        canvas.draw()
        pictures.append(bytes(canvas.buffer_rgba()))
        assert unlabelled(canvas.figure) == []
    assert pictures[0] == pictures[1]
    assert len(set(pictures[0])) > 10


def test_fillers_have_colours_of_their_own():
    figure = draw_counts(EXPLANATION.quantities, layer=0)
    assert len({to_hex(line.get_color()) for line in figure.axes[0].lines}) == 3


def test_several_fillers_and_policies_have_colours_of_their_own_among_the_classes():
    treatments = ["5 × 'w7'", "5 × 'w8'", "5 × random sentence", "Outward, band 0.13", "Outward, band 0.5"]
    rows = [row for row in EXPLANATION.classes if row.layer == 0 and row.treatment == NO_TREATMENT]
    shares = rows + [replace(row, treatment=treatment) for row in rows for treatment in treatments]
    (axes,) = draw_classes(shares, treatments, layer=0).axes
    assert len({to_hex(bars[0].get_facecolor()) for bars in axes.containers}) == 6
