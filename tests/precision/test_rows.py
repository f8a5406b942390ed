"""From outcomes of trials to rows: intervals, shares of the gap, and the effect of a contraction in one layer."""

import math

import pytest

from armlet import Inward
from armlet.precision.choice import ROUNDED, Chosen, LayerGain
from armlet.precision.measure import Contraction, RoundingTrial, TrialOutcome
from armlet.precision.rows import layer_rows, method_rows
from armlet.precision.schemes import REFERENCES
from armlet.prompts.texts import CALIBRATION


def test_a_gap_that_is_not_resolved_has_no_share():
    chosen = Chosen(
        {scheme: dict.fromkeys((ROUNDED, "compand"), RoundingTrial(CALIBRATION)) for scheme in REFERENCES}, {}, {}, None
    )
    for floor, told in (([1.5] * 20, True), ([1.0 + 0.1 * (-1) ** at for at in range(20)], False)):

        def run(trial, floor=floor):
            return TrialOutcome(floor if trial.scheme else [1.0 + 1e-3 * at for at in range(20)], {})

        rows = method_rows(run, chosen, REFERENCES[0], 0)
        assert [row.recovered is not None for row in rows] == [told, told]


def test_a_layers_contraction_has_intervals_from_held_out_windows_of_that_layer_alone():
    contraction = Contraction(Inward(knee=0.99, curve="clip"), "product", "token", (2,))
    damage = {scheme: {1: 0.1, 2: 0.2} for scheme in REFERENCES}
    chosen = Chosen({}, damage, {1: None, 2: LayerGain(contraction, 9.0, 9.0)}, None)
    base = [1.0 + 0.1 * (at % 3) for at in range(20)]

    def run(trial):
        assert trial.text == "held-out"
        assert trial.layers == ((2,) if trial.scheme else None)
        assert trial.contraction in (None, contraction)
        rise = (0.2 if trial.contraction else 0.5) if trial.scheme else (0.01 if trial.contraction else 0)
        return TrialOutcome([loss + rise * (1 + 0.01 * (at % 5)) for at, loss in enumerate(base)], {})

    first, second = layer_rows(run, chosen, 0)
    assert (first.tried, first.setting) == (True, None)
    assert second.setting == "clip, knee 0.99, product, token"
    # exp of the mean rise, 1.02 times 0.01 and 0.2 − 0.5.
    for ratio, expected in ((second.cost, math.exp(0.0102)), (second.gain, math.exp(-0.306))):
        assert ratio.ratio == pytest.approx(expected)
        assert ratio.low < ratio.ratio < ratio.high
    assert second.to_dict()["damage int8 tensor"] == math.exp(0.2)
