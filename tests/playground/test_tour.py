"""Each stop of the tour shows what its text says, on SmolLM2."""

from pathlib import Path

import numpy as np
import pytest

from armlet.checkpoints.given import NamedModel
from armlet.inspection.distributions import distributions
from armlet.playground.effect import effect_of
from armlet.playground.filler import explain_filler
from armlet.playground.reading import Reader
from armlet.playground.tour import TOUR

pytestmark = pytest.mark.slow
OUTWARD, INWARD, TRANSPORT, MODES, FILLER = TOUR


@pytest.fixture(scope="module")
def reader(smollm2):
    return Reader(NamedModel("SmolLM2", *smollm2))


def shown(reader, stop):
    effect = effect_of(reader.read(stop.setting), stop.setting)
    return effect, distributions(effect.panel)


def middle(view):
    """The bin that holds 0."""
    return int(np.searchsorted(view.edges, 0.0, side="right")) - 1


def test_outward_makes_a_hole_at_zero(reader):
    _, (_, near_zero) = shown(reader, OUTWARD)
    at = middle(near_zero)
    assert near_zero.after[at] < 0.2 * near_zero.before[at]
    assert near_zero.after[at] < 0.5 * near_zero.after[[at - 12, at + 12]].min()  # the hole has edges
    spread = near_zero.high[at] - near_zero.low[at]
    assert spread > 10 * (near_zero.edges[1] - near_zero.edges[0])  # where its values went


def test_inwards_tail_ends_earlier_and_its_line_is_lower_far_out(reader):
    effect, (everything, _) = shown(reader, INWARD)
    assert effect.panel.after.max() < 0.8 * effect.panel.before.max()
    middle_values = ~effect.panel.moved
    assert np.array_equal(effect.panel.after[middle_values], effect.panel.before[middle_values])
    known = everything.before > 0
    centres = ((everything.edges[:-1] + everything.edges[1:]) / 2)[known]
    goes, half_bin = everything.middle[known], (everything.edges[1] - everything.edges[0]) / 2
    far = centres > 0.6 * centres[-1]
    assert (goes[far] < 0.95 * centres[far]).all()
    near = abs(centres) < 0.1 * centres[-1]
    assert np.allclose(goes[near], centres[near], atol=half_bin)


def test_transport_moves_every_value_and_keeps_their_order(reader):
    effect, _ = shown(reader, TRANSPORT)
    assert effect.share_moved > 0.99
    reading = reader.read(TRANSPORT.setting)
    for before, after in zip(reading.values.numpy(), effect.after.numpy(), strict=True):
        assert (np.diff(after[np.argsort(before, kind="stable")]) >= -1e-6).all()
    assert effect.measures_after["modes"] == 1


def test_five_peaks_become_one(reader):
    effect, _ = shown(reader, MODES)
    assert (effect.measures_before["modes"], effect.measures_after["modes"]) == (5, 1)


def test_filler_takes_attention_and_so_does_a_random_sentence(reader):
    explanation = explain_filler(reader, FILLER.setting, "/", 40, "between")
    mass = {record.filler: record.filled for record in explanation.quantities if record.quantity == "mass"}
    assert mass["/"] < 0.95
    assert mass["random sentence"] < 0.95


def test_the_docs_tell_the_same_tour():
    text = (Path(__file__).parents[2] / "docs" / "howto" / "explore.md").read_text()
    for stop in TOUR:
        assert stop.name.partition(" ")[2] in text
        assert stop.text in " ".join(text.split())
