"""What the tables and sentences say of results that no tiny model has, and that they fit."""

import io

import pytest
from rich.console import Console

from armlet.bounds.limits_measure import Limit, describe_gate
from armlet.bounds.limits_rows import LayerHeadroom, LimitRow, LimitSet, TokenPeak
from armlet.bounds.limits_tables import headroom_table, limits_sentences, limits_tables, rows_table, values_table
from armlet.statistics.perplexity import PerplexityRatio

SAME, DEAR = PerplexityRatio(1.0, 0.999, 1.001), PerplexityRatio(9.0, 8.0, 10.0)
CLIP = {layer: Limit(layer, "product", "clip", 448.0) for layer in (11, 28)}


def headroom(layer=0, value=3065.0, **changes):
    peaks = {
        name: TokenPeak(value, value / 2, 7, 500, "<|im_start|>") for name in ("gate", "up", "product", "residual")
    }
    return LayerHeadroom(layer, peaks | changes, 0.25, 0.5)


def row(layer, share, *, recommended=False, within=True):
    cost = DEAR if share > 0.5 else SAME
    return LimitRow(CLIP[layer], cost.ratio, 3065.0, 448.0, within, cost, SAME, cost, share, recommended)


def limited(layers, cost, over=()):
    largest = {layer: 3065.0 if layer in over else 448.0 for layer in (11, 28)}
    return LimitSet(tuple(CLIP[layer] for layer in layers), cost, 30.0, largest, tuple(over))


def said(everything, recommended, rows=(), max_cost=0.01):
    return limits_sentences(rows, everything, recommended, 448.0, max_cost)


@pytest.mark.parametrize(("value", "bits"), [(448 / 8, 3), (448, 0), (448 * 4, -2)])
def test_bits_of_headroom_are_powers_of_two_of_its_factor(value, bits):
    assert headroom(value=value).to_dict()["product"]["headroom"]["e4m3"] == {"factor": 2.0**bits, "bits": bits}


def test_a_layer_whose_limit_costs_too_much_is_named_with_what_it_needs():
    rows = [row(11, 0.97), row(28, 0.03, recommended=True)]
    lines = said(limited((11, 28), DEAR), limited((28,), SAME, over=(11,)), rows)
    assert lines[0] == (
        "all limits, layers 11, 28: perplexity 30, 9.0000 [8.0000, 10.0000] times that without limits; "
        "every product is within 448"
    )
    assert lines[1].endswith("layer 11 97.0 %, layer 28 3.0 %")
    assert lines[2].startswith("recommended, layer 28: ")
    assert lines[2].endswith("over 448 stays layer 11: 3,060")
    assert lines[3].startswith("left out, layer 11: needs a scale or a wider type, as its limit costs more than 1 %")
    assert len(lines) == 4


def test_nothing_is_recommended_where_everything_costs_too_much():
    lines = said(limited((11,), DEAR), limited((), SAME, over=(11,)))
    assert lines[1].startswith("recommended: none; ")
    assert "left out, layer 11" in lines[2]


def test_a_layer_that_only_held_out_text_takes_over_the_bound_is_named():
    (line,) = said(limited((), SAME, over=(11,)), limited((), SAME, over=(11,)))
    assert line.endswith("exceeds 448; layer 11: 3,060 does on held-out text")


def test_an_interrupted_run_says_nothing_of_what_it_did_not_measure():
    assert said(None, None) == []
    assert len(said(limited((11,), DEAR), None)) == 1


@pytest.mark.parametrize("width", [80, 120])
def test_tables_break_no_word_and_cut_none(width):
    rows = [row(11, 0.97, within=False), row(28, 0.03, recommended=True)]
    shown = io.StringIO()
    console = Console(file=shown, width=width)
    for table in limits_tables([headroom(layer) for layer in (0, 11)], rows, 448.0):
        console.print(table)
    text = shown.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for word in ("'<|im_start|>' 7:500", "clip at 448, product", "448 over", "9.0000 [8.0000, 10.0000]", "25.0"):
        assert word in text


def test_a_quantity_that_cannot_be_read_is_a_dash():
    layer = LayerHeadroom(0, {"product": TokenPeak(0.0, 0.0, 0, 0, "x")}, None, None)
    shown = io.StringIO()
    for table in (values_table([layer]), headroom_table([layer])):
        Console(file=shown, width=120).print(table)
    assert shown.getvalue().count("–") == 3 + 7 + 2


def test_a_headroom_that_rounds_to_zero_has_no_sign():
    shown = io.StringIO()
    Console(file=shown, width=120).print(headroom_table([headroom(value=448.001)]))
    assert " 0.0" in shown.getvalue()
    assert "-0.0" not in shown.getvalue()


def test_headroom_is_the_formats_maximum_over_the_value_and_int8s_that_of_calibration():
    factors = headroom(value=100.0, **{"q8_1 sum": TokenPeak(50.0, 50.0, 0, 0, "x")}).headroom()
    assert factors["e4m3"] == 4.48
    assert factors["int8 static"] == 0.5
    assert factors["nvfp4"] == 26.88
    assert factors["q8_1 sum"] == 65504 / 50
    assert {"nvfp4", "q8_1 sum"}.isdisjoint(headroom().headroom("gate"))


def test_a_clamp_of_the_gate_is_listed_by_layer_and_explained():
    limits = [Limit(1, "gate", "clip", 2.5), Limit(2, "gate", "log", 2.0), Limit(3, "product", "clip", 9.0)]
    assert describe_gate(limits, 5) == [0, 2.5, 0, 0, 0]
    gate = LimitRow(limits[0], 1.0, 9.0, 2.0, True, SAME, SAME, SAME, None, True)
    assert "swiglu_limits" in str(rows_table([gate], 2.0).caption)
    assert "swiglu_limits" not in str(rows_table([row(11, 0.97)], 2.0).caption)
