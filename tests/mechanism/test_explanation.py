"""A run through all layers gives for each layer what that layer alone would, and rows that say it."""

from math import isnan

import numpy as np
import pytest
import torch

from armlet import ARM, Layer1, Noise
from armlet.mechanism.measure import (
    ATTENTION_QUANTITIES,
    GATE_QUANTITIES,
    QUANTITIES,
    measure_filler,
    measure_gate,
    near_zero_after,
    view,
)
from armlet.mechanism.records import (
    NO_TREATMENT,
    UNFILLED,
    class_shares,
    quantity_changes,
    summarise,
    treatment_of,
)
from armlet.prompts.fillers import RANDOM_SENTENCE, Filler, make_prompt
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.outward import near_zero_halfwidth
from armlet.statistics.intervals import draw_weights
from explanations import POLICIES, QUESTIONS, SYSTEM, explained, layers_of, setup_of
from families import tiny
from tiny_checkpoints import words


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_findings_are_those_of_each_prompt_filler_and_layer_by_itself(family):
    model, setup = tiny(family), setup_of()
    parts = []
    for findings in explained(model, (1, 2), setup):
        for at, prompt in enumerate(setup.prompts):
            seen = []
            for count, ids in [(0, prompt.ids), *((len(f), prompt.filled(f)) for f in setup.tokens[at])]:
                x = Layer1.from_model(model).embed(ids[None])
                for layer in layers_of(model, findings.layer):
                    with torch.no_grad():
                        x, trace = layer(x, trace=True)
                seen.append(view(trace, prompt, count))
            own = setup.prompt_of_tokens() == at
            halfwidth = near_zero_halfwidth(seen[0].activated)
            for name, values in measure_gate(seen[0], halfwidth).items():
                np.testing.assert_array_equal(findings.without[name][own], values)
            for found, filled in zip(findings.filled, seen[1:], strict=True):
                for name, values in measure_filler(seen[0], filled, halfwidth, 4).items():
                    np.testing.assert_array_equal(found[name][own], values)
            for policy, treated in zip(POLICIES, findings.treated, strict=True):
                arm = ARM(policy, width=48, layer=findings.layer, noise=Noise(0))
                np.testing.assert_array_equal(treated[own], near_zero_after(seen[0], halfwidth, arm, prompt.insert_at))
            if at == 0:
                example = 1 + setup.example()
                assert torch.equal(findings.attention[1], seen[example].attention)
                assert torch.equal(findings.received[1][:-1], seen[example].received[:-1])
        parts.append(findings.layer)
    assert parts == [1, 2]


def test_every_prompt_ticks_once_in_every_layer():
    ticks = []
    explained(wanted=(2,), tick=lambda: ticks.append(None))
    assert len(ticks) == 3 * len(QUESTIONS)


def test_the_figures_show_the_first_filler_at_its_last_count():
    setup = setup_of(counts=(5, 2), kinds=("w7", "w8"))
    assert setup.fillers[setup.example()] == Filler("w7", 5)


def test_a_filler_that_is_no_filler_changes_nothing():
    """A layer that cannot see the filler: attention reaches one token, its own."""
    model = tiny("mistral", sliding_window=1)
    (findings,) = explained(model, (0,))
    for filled in findings.filled:
        np.testing.assert_allclose(filled["mass"], 1)
        np.testing.assert_allclose(filled["lambda"], 1, atol=1e-5)
        np.testing.assert_allclose(filled["shift"], 0, atol=1e-5)
        for name in ("gate_variance", "l1", "l2", "gini"):
            np.testing.assert_allclose(filled[name], findings.without[name], rtol=1e-4)


def test_rows_hold_the_means_and_intervals_that_hold_the_change():
    setup = setup_of()
    (findings,) = explained(wanted=(1,), setup=setup)
    weights = draw_weights(setup.prompt_of_tokens())
    rows = quantity_changes(findings, setup, weights)
    assert [(r.filler, r.count, r.quantity) for r in rows] == [
        (filler.kind, filler.count, name) for filler in setup.fillers for name in QUANTITIES
    ]
    for row in rows:
        filled = findings.filled[setup.fillers.index(Filler(row.filler, row.count))][row.quantity]
        assert row.layer == 1
        assert row.filled == pytest.approx(filled.mean())
        before = findings.without[row.quantity] if row.quantity in GATE_QUANTITIES else UNFILLED.get(row.quantity)
        if before is None:
            assert isnan(row.without)
            assert isnan(row.change)
            assert (row.interval_of, row.to_dict()["without"], row.to_dict()["change"]) == ("value", None, None)
            assert row.low <= row.filled <= row.high
        else:
            assert (row.without, row.interval_of) == (pytest.approx(np.mean(before)), "change")
            assert row.change == pytest.approx((filled - before).mean())
            assert row.low <= row.change <= row.high
            means = weights @ (filled - before) / weights.sum(1)
            assert (row.low, row.high) == tuple(pytest.approx(x) for x in np.quantile(means, (0.025, 0.975)))
    assert UNFILLED.keys() <= ATTENTION_QUANTITIES.keys()


def test_classes_are_compared_with_other_words_and_before_with_after_each_treatment(monkeypatch):
    kinds = {"w20": "digits", "w21": "other", "w24": "digits", "w27": "operators"}
    monkeypatch.setattr("armlet.mechanism.layers.classify", lambda words: [kinds.get(w, "other") for w in words])
    setup = setup_of(counts=(4,))
    (findings,) = explained(wanted=(0,), setup=setup)
    classes, before = setup.classes(), findings.without["near_zero"]
    assert classes.tolist() == ["digits", *["other"] * 3, "digits", *["other"] * 2, "operators", "other"]
    rows = class_shares(findings, setup, draw_weights(setup.prompt_of_tokens()))
    treatments = ["4 × 'w7'", f"4 × {RANDOM_SENTENCE}", *map(treatment_of, POLICIES)]
    assert treatments[2:] == ["Outward, ceiling 0.995, proportion 0.3", "Inward, knee 0.8, curve log"]
    assert [(r.name, r.treatment) for r in rows] == [
        (name, treatment) for name in ("digits", "operators", "other") for treatment in (NO_TREATMENT, *treatments)
    ]
    after = dict(zip(treatments, [f["near_zero"] for f in findings.filled] + findings.treated, strict=True))
    for row in rows:
        own = classes == row.name
        assert row.tokens == own.sum()
        if row.treatment == NO_TREATMENT:
            share, against, reference = before[own], "other", before[classes == "other"]
        else:
            share, against, reference = after[row.treatment][own], NO_TREATMENT, before[own]
        assert (row.share, row.against) == (pytest.approx(share.mean()), against)
        assert row.reference == pytest.approx(reference.mean())
        assert row.change == pytest.approx(share.mean() - reference.mean())
        if not isnan(row.share_low):
            assert row.share_low <= row.share <= row.share_high
        if not isnan(row.low):
            assert row.low <= row.change <= row.high
    assert findings.treated[0].mean() < before.mean()  # Outward empties the neighbourhood of zero


def test_words_of_the_template_have_no_class_and_question_words_have():
    tokenizer = words()
    tokenizer.chat_template = "{% for t in messages %}w1 {{ t['content'] }} w2 {% endfor %}w3"
    prompt = make_prompt(tokenizer, QUESTIONS[0], system=SYSTEM)
    setup = setup_of(prompts=[prompt], tokens=[[torch.tensor([7, 7])] * 4])
    assert setup.classes().tolist() == ["other"] * 3 + [""] * 2


def test_a_summary_has_the_rows_of_every_layer_from_one_draw():
    setup = setup_of()
    findings = explained(setup=setup)
    weights = draw_weights(setup.prompt_of_tokens(), seed=setup.seed)
    quantities, classes = summarise(findings, setup)
    changes = [row.to_dict() for found in findings for row in quantity_changes(found, setup, weights)]
    shares = [row.to_dict() for found in findings for row in class_shares(found, setup, weights)]
    assert [row.to_dict() for row in quantities] == changes
    assert [row.to_dict() for row in classes] == shares
    assert {row.layer for row in quantities} == {0, 2}


def test_a_single_prompt_has_values_and_no_interval():
    """Its tokens differ, and so would resamples of them, which would say nothing about another prompt."""
    setup = setup_of(questions=["w20 w21 w22 w23 w24"])
    quantities, classes = summarise(explained(wanted=(0,), setup=setup), setup)
    assert not any(isnan(row.filled) for row in quantities)
    assert all(isnan(bound) for row in quantities for bound in (row.low, row.high))
    assert all(row.to_dict()["low"] is None for row in quantities)
    bounds = ("low", "high", "share_low", "share_high")
    assert {row.to_dict()[name] for row in classes for name in bounds} == {None}


def test_a_class_whose_tokens_are_from_one_prompt_has_no_interval_and_one_from_two_prompts_has(monkeypatch):
    kinds = {"w20": "digits", "w21": "digits", "w22": "operators", "w24": "operators"}
    monkeypatch.setattr("armlet.mechanism.layers.classify", lambda words: [kinds.get(w, "other") for w in words])
    setup = setup_of(counts=(4,))
    _, classes = summarise(explained(wanted=(0,), setup=setup), setup)
    for row in classes:
        assert isnan(row.share_low) == isnan(row.share_high) == (row.name == "digits")
        compared = row.name == "operators" or (row.name == "other" and row.treatment != NO_TREATMENT)
        if compared and not row.treatment.startswith("Inward"):  # Inward may leave every share as it is
            assert row.low < row.high
        if row.name == "digits":
            assert (isnan(row.low), isnan(row.high)) == (True, True)
            assert not isnan(row.change)


def test_layers_may_have_any_dtype():
    model = tiny().bfloat16()
    (findings,) = explained(model, (0,))
    assert np.isfinite(findings.without["l1"]).all()


def test_classes_without_other_words_are_still_compared_with_their_treatments(monkeypatch):
    monkeypatch.setattr("armlet.mechanism.layers.classify", lambda words: ["digits"] * len(words))
    setup = setup_of(counts=(4,))
    (findings,) = explained(wanted=(0,), setup=setup)
    rows = class_shares(findings, setup, draw_weights(setup.prompt_of_tokens()))
    assert rows[0].treatment == NO_TREATMENT
    assert isnan(rows[0].reference)
    assert isnan(rows[0].low)
    assert rows[0].share == pytest.approx(findings.without["near_zero"].mean())
    assert rows[0].share_low < rows[0].share_high
    assert len(rows) == 5


def test_a_layer_that_overflows_is_named_with_a_way_out():
    model = tiny()
    with torch.no_grad():
        model.model.layers[1].mlp.gate_proj.weight.fill_(1e38)
    with pytest.raises(ArgumentError, match="layer 1 returned NaN or Inf; try another dtype"):
        explained(model, (0, 1))
