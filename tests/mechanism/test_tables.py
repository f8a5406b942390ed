"""The tables show every quantity and class with its interval, and a verdict only where there is an interval."""

import math
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from armlet import Inward, Outward
from armlet.mechanism.measure import CLAIMS, QUANTITIES
from armlet.mechanism.records import NO_TREATMENT
from armlet.mechanism.tables import classes_table, quantities_table
from armlet.presentation.numbers import short_number
from armlet.prompts.fillers import RANDOM_SENTENCE
from armlet.redistribution.errors import ArgumentError
from explanations import explained, explanation_of, setup_of

SETUP = setup_of()
FINDINGS = explained(wanted=(0, 1), setup=SETUP)
EXPLANATION = explanation_of(FINDINGS, SETUP)
CHANGES = [change for change in EXPLANATION.quantities if change.layer == 0]


def shown(*tables, width=80):
    console = Console(file=StringIO(), width=width)
    console.print(*tables)
    return console.file.getvalue()


def shown_quantities(changes, setup=SETUP):
    text = shown(quantities_table(setup, changes, "w7", "title"), width=110)
    return {line.split()[0]: line.rstrip() for line in text.splitlines() if line.split()[0] in QUANTITIES}


def test_every_quantity_has_a_line_with_both_estimates_their_intervals_and_the_papers_claim():
    records = {(change.filler, change.quantity): change for change in CHANGES if change.count == 5}
    lines = shown_quantities(CHANGES)
    assert list(lines) == list(QUANTITIES)
    for name, line in lines.items():
        for kind in ("w7", RANDOM_SENTENCE):
            record = records[kind, name]
            defined = not math.isnan(record.without)
            value = record.change if defined else record.filled
            assert record.low <= value <= record.high
            estimate, low, high = (short_number(n, signed=defined) for n in (value, record.low, record.high))
            assert f"{estimate} [{low}, {high}]" in line
        assert ("rises" in line, "falls" in line) == (CLAIMS.get(name) == 1, CLAIMS.get(name) == -1)


@pytest.mark.parametrize(
    ("low", "high", "name", "verdict"),
    [
        (0.1, 0.2, "l1", "rises: yes"),
        (-0.2, -0.1, "l1", "rises: no"),
        (-0.1, 0.1, "l1", "rises: ?"),
        (math.nan, math.nan, "l1", "rises: ?"),
        (0.1, 0.2, "near_zero", "falls: no"),
        (-0.2, -0.1, "near_zero", "falls: yes"),
    ],
)
def test_a_claim_is_confirmed_or_not_by_the_whole_interval_of_enough_prompts(low, high, name, verdict, monkeypatch):
    changes = [replace(c, low=low, high=high) if c.quantity == name else c for c in CHANGES]
    assert f" {verdict.split()[0]} ? " in shown_quantities(changes)[name]
    monkeypatch.setattr("armlet.mechanism.tables.FEW_PROMPTS", 3)
    assert f" {verdict} " in shown_quantities(changes)[name]


def test_nothing_is_judged_by_a_single_prompt():
    setup = setup_of(questions=["w20 w21 w22"])
    explanation = explanation_of(explained(wanted=(0,), setup=setup), setup)
    lines = shown_quantities(explanation.quantities, setup)
    assert not any("[" in line for line in lines.values())
    changes = {(c.filler, c.quantity): c.change for c in explanation.quantities if c.count == 5}
    for name in CLAIMS:
        numbers = [short_number(changes[kind, name], signed=True) for kind in ("w7", RANDOM_SENTENCE)]
        assert [lines[name].split()[2], lines[name].split()[-1]] == numbers
        assert lines[name].split()[4] == "?"
    text = " ".join(shown(*explanation.tables()).split())
    assert "1 prompt: no intervals, which need 2" in text
    assert "fewer than 2 have none" in text


@pytest.mark.parametrize(("layer", "headings"), [(0, ["confirmed?"]), (1, [])])
def test_classes_are_compared_with_other_words_and_the_papers_claim_is_about_layer_0(layer, headings, monkeypatch):
    monkeypatch.setattr("armlet.mechanism.tables.FEW_PROMPTS", 0)
    shares = [
        replace(share, name="digits" if share.name == "other" else share.name, low=0.001, high=0.002)
        for share in EXPLANATION.classes
        if share.layer == layer
    ]
    shares = [replace(share, against="other", change=0.0015) for share in shares]
    shares += [replace(share, name="other") for share in shares]
    _, heading, _, line = shown(classes_table(SETUP, shares, "title")).splitlines()[1:5]
    assert heading.split() == ["class", "tokens", "prompts", "share", "against", "other", *headings]
    assert line.split()[:2] == ["digits", "9"]
    assert ("higher: yes" in line) == (layer == 0)
    assert "+0.0015 [+0.001, +0.002]" in line


def test_classes_without_other_words_are_compared_with_nothing():
    shares = [replace(share, name="digits") for share in EXPLANATION.classes if share.layer == 0]
    text = shown(classes_table(SETUP, shares, "title"))
    assert "no other words to compare with" in text
    for comparison in ("against", "paper", "higher", "?"):
        assert comparison not in text


def test_a_class_of_one_token_is_shown_with_its_one_prompt_and_is_not_judged(monkeypatch):
    monkeypatch.setattr(
        "armlet.mechanism.layers.classify", lambda words: ["digits" if w == "w20" else "other" for w in words]
    )
    setup = setup_of()
    shares = explanation_of(explained(wanted=(0,), setup=setup), setup).classes
    digits, other = shown(classes_table(setup, shares, "title")).splitlines()[4:6]
    change = next(short_number(share.change, signed=True) for share in shares if share.name == "digits")
    assert [*digits.split()[:3], *digits.split()[4:]] == ["digits", "1", "1", change, "higher:", "?"]
    assert [*other.split()[:3], other.split()[-1]] == ["other", "8", "3", "reference"]


def test_a_long_filler_cuts_no_word_of_the_table():
    kind = "w7 " * 30
    setup = setup_of(kinds=(kind,))
    changes = explanation_of(explained(wanted=(0,), setup=setup), setup).quantities
    text = shown(quantities_table(setup, changes, kind, "title"))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    names = [line.split()[0] for line in text.splitlines() if line and line.split()[0] in QUANTITIES]
    assert names == [*QUANTITIES] * 2  # the control continues below


def test_settings_that_change_nothing_or_are_limited_are_said_of_the_layers_with_tables():
    setup = setup_of(policies=(Outward(proportion=0.3, band=2), Outward(band=50), Inward(strength=0)))
    explanation = explanation_of(explained(wanted=(0, 1), setup=setup), setup)
    unused = [
        "outward: band has no effect, because proportion replaces band and share",
        "inward: strength 0 changes nothing",
    ]
    limits = [f"layer {layer}: band 50 is limited by share: at most 0.25 of the values move" for layer in (0, 1)]
    assert explanation.sentences() == [*unused, *limits]
    assert replace(explanation, selected=False).sentences()[1:] == [*unused, limits[0]]


def titles(explanation):
    return [table.title.plain for table in explanation.tables()]


def test_of_selected_layers_each_has_its_tables_and_of_all_layers_the_first():
    each = [f"a model, layer {layer}: {what}" for layer in (0, 1) for what in ("5 × 'w7'", "classes")]
    assert titles(EXPLANATION) == each
    assert EXPLANATION.sentences() == []
    whole = replace(EXPLANATION, selected=False)
    assert titles(whole) == each[:2]
    assert whole.sentences() == ["tables: layer 0; explain.csv has all 2 measured layers"]
    assert [table.title.plain for table in whole.tables(layer=1)] == each[2:]
    with pytest.raises(ArgumentError, match="layer: expected one of 0, 1, found 2"):
        whole.tables(layer=2)


def test_of_more_than_four_selected_layers_the_first_and_the_last_are_shown():
    findings = [replace(FINDINGS[0], layer=layer) for layer in range(6)]
    several = explanation_of(findings[1:5], SETUP)
    assert [title.split()[3] for title in titles(several)[::2]] == ["1:", "2:", "3:", "4:"]
    many = explanation_of(findings, SETUP)
    assert [title.split()[3] for title in titles(many)[::2]] == ["0:", "5:"]
    assert many.sentences() == ["tables: layer 0 and 5; explain.csv has all 6 measured layers"]
    text = shown(many.table())
    assert text.index("layer 0") < text.index("layer 5")


def test_several_fillers_have_a_table_each_and_random_sentences_alone_have_one():
    setup = setup_of(kinds=("w7", "w8"))
    explanation = explanation_of(explained(wanted=(1,), setup=setup), setup)
    assert titles(explanation)[:2] == ["a model, layer 1: 5 × 'w7'", "a model, layer 1: 5 × 'w8'"]
    setup = setup_of(kinds=(RANDOM_SENTENCE,))
    explanation = explanation_of(explained(wanted=(1,), setup=setup), setup)
    assert titles(explanation)[0] == f"a model, layer 1: 5 × {RANDOM_SENTENCE}"
    assert {share.treatment for share in explanation.classes} > {NO_TREATMENT}
