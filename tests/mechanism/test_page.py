"""The page of `explain` shows the records of the result, for every quantity, layer and filler, and loads nothing."""

import re
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from armlet.mechanism.interactive import attention_figure
from armlet.mechanism.measure import QUANTITIES
from armlet.presentation.numbers import short_number
from armlet.prompts.fillers import RANDOM_SENTENCE, Filler
from explanations import explained, explanation_of, setup_of
from pages import addresses, content_of

SETUP = setup_of(kinds=("w7", "<b>w8</b>"))
EXPLANATION = explanation_of(explained(setup=SETUP), SETUP)
KINDS = ("w7", "<b>w8</b>", RANDOM_SENTENCE)
STATES = [*product(QUANTITIES, EXPLANATION.layers, range(len(KINDS)))]


def page_of(explanation):
    with TemporaryDirectory() as folder:
        return explanation.save_html(Path(folder, "page.html")).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page():
    return page_of(EXPLANATION)


@pytest.fixture(scope="module")
def content(page):
    return content_of(page)


def records(quantity, layer, kind):
    return [c for c in EXPLANATION.quantities if (c.quantity, c.layer, c.filler) == (quantity, layer, kind)]


def test_there_is_a_state_for_every_choice_of_the_form_and_no_other(page, content):
    form = page[page.index("<form") : page.index("</form>")]
    quantities, layers, fillers = (re.findall('<option value="([^"]*)"', text) for text in form.split("<select")[1:])
    assert set(content["states"]) == {"|".join(choice) for choice in product(quantities, layers, fillers)}
    assert len(content["states"]) == len(STATES)


@pytest.mark.parametrize(("quantity", "layer", "index"), STATES)
def test_every_state_draws_the_values_and_intervals_of_its_records(quantity, layer, index, content):
    traces = content["states"][f"{quantity}|{layer}|{index}"]["plots"]["counts"][1]
    shown = {} if KINDS[index] == RANDOM_SENTENCE else {0: KINDS[index]}
    for start, kind in (shown | {3: RANDOM_SENTENCE}).items():
        low, high, line = (traces[str(start + offset)] for offset in range(3))
        drawn = dict(zip(line["x"], zip(low["y"], line["y"], high["y"], strict=True), strict=True))
        for record in records(quantity, layer, kind):
            if record.interval_of == "change":
                expected = [record.low + record.without, record.filled, record.high + record.without]
                assert drawn[0] == pytest.approx([record.without] * 3, rel=1e-3)
            else:
                expected = [record.low, record.filled, record.high]
                assert 0 not in drawn
            assert drawn[record.count] == pytest.approx(expected, rel=1e-3, abs=1e-9)
    if not shown:
        assert not any(traces[str(at)]["visible"] for at in range(3))


def test_the_summary_says_filler_control_and_interval_at_the_highest_count(content):
    text = content["states"]["mass|2|0"]["texts"]["summary"]
    for kind in ("w7", RANDOM_SENTENCE):
        record = records("mass", 2, kind)[-1]
        assert short_number(record.filled) in text
        assert f"{short_number(record.low, signed=True)} to {short_number(record.high, signed=True)}" in text


def test_every_cell_shows_its_value_and_is_shaded_by_the_sign_of_its_change(page, content):
    cells = re.findall(r'data-set="layer=(\d+)&amp;quantity=(\w+)"', page)
    for index, kind in enumerate(KINDS):
        shown = content["shades"][str(index)]
        assert len(shown) == len(cells)
        for (layer, quantity), (text, shade) in zip(cells, shown, strict=True):
            record = records(quantity, int(layer), kind)[-1]
            assert float(text) == pytest.approx(record.filled, rel=1e-2)
            if record.interval_of == "change" and (record.low > 0 or record.high < 0):
                largest = max(abs(c.change) for c in EXPLANATION.quantities if c.quantity == quantity)
                assert shade == pytest.approx(record.change / largest, abs=1e-3)
            else:
                assert shade == 0


def test_attention_is_drawn_for_each_token_with_and_without_the_fillers_own():
    first, filler = EXPLANATION.findings[0], SETUP.fillers[SETUP.example()]
    without, own, whole = attention_figure(SETUP.prompts[0], filler, first.received)["data"]
    size, start = len(SETUP.prompts[0].ids), SETUP.prompts[0].insert_at
    assert [len(trace["y"]) for trace in (without, own, whole)] == [size, size, size + filler.count]
    assert own["y"] == whole["y"][:start] + whole["y"][start + filler.count :]
    assert without["y"][:-1] == pytest.approx(first.received[0][:-1].tolist(), rel=1e-3)
    assert whole["y"][:-1] == pytest.approx(first.received[1][:-1].tolist(), rel=1e-3)


def test_texts_of_prompts_and_fillers_are_no_html_in_figures_or_page(page):
    drawn = attention_figure(
        SETUP.prompts[0], Filler("<b>", SETUP.fillers[SETUP.example()].count), EXPLANATION.findings[0].received
    )
    assert "<b>" not in str(drawn)
    assert "<b>w8" not in page
    assert "<b>w8" not in str(content_of(page)["states"]["mass|0|1"]["plots"])


def test_the_parts_that_are_buttons_are_those_with_quantities(page, content):
    buttons = re.findall(r'data-part="(\w+)" tabindex="0" role="button"', page)
    values = content["parts"]["values"]
    assert buttons == list(values)
    assert sorted(name for names in values.values() for name in names) == sorted(QUANTITIES)


def test_the_page_is_small_loads_nothing_and_is_the_same_twice(page):
    assert len(page.encode()) < 3e6
    assert addresses(page) == []
    assert page_of(EXPLANATION) == page


@pytest.mark.slow
def test_save_writes_the_page_beside_the_figures(page, tmp_path):
    assert EXPLANATION.save(tmp_path, html=True)[-1] == tmp_path / "explain.html"
    assert (tmp_path / "explain.html").read_text() == page
