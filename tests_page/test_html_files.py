"""The pages of `inspect` and `explain` work from a file without a network, at every width, by mouse and by keyboard."""

import re

import pytest

from armlet.inspection.interactive import TRACES
from armlet.inspection.measure import inspect_gates
from armlet.inspection.records import GateSample
from armlet.inspection.synthetic import synthetic
from armlet.presentation.style import COLOURS, DARK_COLOURS
from armlet.redistribution import Cut, Inward, Outward
from explanations import explained, explanation_of, setup_of
from pages import WIDTHS, content_of

SAMPLE = GateSample([synthetic("heavy-tail", tokens=4, width=512)], "a model", arguments=("MODEL",))
PAGES = ("inspect", "explain")
each_page = pytest.mark.parametrize("name", PAGES)
each_scheme = pytest.mark.parametrize("scheme", ["light", "dark"])


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """The text of each page."""
    file = tmp_path_factory.mktemp("pages") / "page.html"
    setup = setup_of(kinds=("w7", "w8"))
    explanation = explanation_of(explained(wanted=(0, 1, 2), setup=setup), setup)
    inspection = inspect_gates(SAMPLE, [Outward(), Inward(), Cut()])
    results = {"inspect": inspection, "explain": explanation}
    return {name: result.save_html(file).read_text(encoding="utf-8") for name, result in results.items()}


@pytest.fixture
def opened(texts, tab, tmp_path):
    """Opens a page as a file, without a network, and waits until its figures are drawn."""

    def open_file(name, width=WIDTHS["desktop"], scheme="light"):
        file = tmp_path / f"{name}.html"
        file.write_text(texts[name], encoding="utf-8")
        window = tab(width, color_scheme=scheme, offline=True)
        window.page.goto(file.as_uri())
        window.page.wait_for_selector("body[data-ready]")
        return window

    return open_file


@each_page
@each_scheme
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_a_page_draws_its_figures_without_an_error_or_a_request_and_fits_the_window(name, scheme, width, opened):
    window = opened(name, width, scheme)
    for plot in window.page.query_selector_all(".plot"):
        assert plot.query_selector(".scatterlayer .trace path")
    assert window.errors == []
    assert window.hosts == {"a file"}
    assert window.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert not window.page.is_visible("#problem")


@each_page
@each_scheme
@pytest.mark.parametrize("width", [WIDTHS["telephone"], WIDTHS["desktop"]])
def test_axe_finds_no_serious_violation(name, scheme, width, opened):
    assert opened(name, width, scheme).serious_violations() == []


def test_axe_finds_what_is_wrong(tab, tmp_path):
    (tmp_path / "page.html").write_text("<html lang=en><title>t</title><main><h1>h</h1><input></main>")
    window = tab()
    window.page.goto((tmp_path / "page.html").as_uri())
    assert [rule for rule, _ in window.serious_violations()] == ["label"]


def drawn_counts(page):
    return page.evaluate(f"[...document.getElementById('plot').data[{TRACES.index('after')}].customdata]")


def state(texts, key):
    return content_of(texts["inspect"])["states"][key]


def test_a_slider_moved_by_the_keyboard_draws_and_says_its_state(texts, opened):
    page = opened("inspect").page
    knob = page.locator("#knob-0-band")
    start = int(knob.input_value())
    knob.focus()
    page.keyboard.press("ArrowRight")
    ceiling = page.locator("#knob-0-ceiling").input_value()
    expected = state(texts, f"0|{start + 1}|{ceiling}")
    assert drawn_counts(page) == expected["plots"]["plot"][1][str(TRACES.index("after"))]["customdata"]
    assert page.inner_text(".command") == expected["texts"]["command"]
    assert page.inner_text("[role=status]") == expected["texts"]["summary"]
    assert page.get_attribute("#plot", "aria-label") == expected["texts"]["plot"]
    label = page.inner_text('output[for="knob-0-band"]')
    assert knob.get_attribute("aria-valuetext") == label
    assert f"band={label}" in page.inner_text(".command")


def test_a_policy_chosen_by_the_keyboard_shows_its_own_knobs(texts, opened):
    page = opened("inspect").page
    page.locator("input[name=policy]").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.is_visible("#knob-1-knee")
    assert not page.is_visible("#knob-0-band")
    expected = state(texts, f"1|{page.input_value('#knob-1-knee')}")
    assert drawn_counts(page) == expected["plots"]["plot"][1][str(TRACES.index("after"))]["customdata"]
    assert page.inner_text(".command").startswith("armlet inspect MODEL --policy inward")


@pytest.mark.parametrize(("scheme", "colours"), [("light", COLOURS), ("dark", DARK_COLOURS)])
def test_the_outline_has_the_policys_colour_of_the_scheme(scheme, colours, opened):
    page = opened("inspect", scheme=scheme).page
    red, green, blue = bytes.fromhex(colours["Outward"][1:])
    strokes = "[...document.querySelectorAll('.plot .scatterlayer path.js-line')].map(p => getComputedStyle(p).stroke)"
    assert f"rgb({red}, {green}, {blue})" in page.evaluate(strokes)


@each_page
@each_scheme
def test_text_in_figures_contrasts_with_the_page(name, scheme, opened):
    page = opened(name, scheme=scheme).page
    fills = page.evaluate("[...document.querySelectorAll('.plot text')].map(t => getComputedStyle(t).fill)")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert fills
    assert min(contrast(fill, background) for fill in fills) >= 4.5


def contrast(first, second):
    """The contrast ratio of WCAG 2 of two colours "rgb(r, g, b)"."""
    light, dark = sorted((luminance(colour) for colour in (first, second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    channels = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def chosen(page):
    return {name: page.input_value(f"[name={name}]") for name in ("quantity", "layer", "filler")}


def test_a_cell_clicked_chooses_its_layer_and_quantity(texts, opened):
    page = opened("explain").page
    page.click('[data-set="layer=1&quantity=gini"]')
    assert chosen(page) == {"quantity": "gini", "layer": "1", "filler": "0"}
    assert page.inner_text("[role=status]") == content_of(texts["explain"])["states"]["gini|1|0"]["texts"]["summary"]
    assert page.locator(".cells [aria-pressed=true]").count() == 1


def test_arrow_keys_move_through_the_cells_and_stop_at_the_edge(opened):
    page = opened("explain").page
    page.locator(".cells [tabindex='0']").focus()
    for key in ("ArrowUp", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    assert chosen(page) == {"quantity": "lambda", "layer": "1", "filler": "0"}
    assert page.evaluate("document.activeElement.dataset.set") == "layer=1&quantity=lambda"


@pytest.mark.parametrize(("part", "quantity"), [("Attention", "mass"), ("gate", "gate_variance")])
def test_a_part_of_the_diagram_chosen_by_the_keyboard_shows_its_first_quantity(part, quantity, opened):
    page = opened("explain").page
    page.select_option("#quantity", "gini")
    page.locator(f"[data-part={part}]").focus()
    page.keyboard.press("Enter")
    assert chosen(page)["quantity"] == quantity
    assert page.get_attribute(f"[data-part={part}]", "aria-pressed") == "true"


def test_another_filler_changes_the_cells_and_the_figure(texts, opened):
    page = opened("explain").page
    page.select_option("#filler", "1")
    content = content_of(texts["explain"])
    assert page.locator(".cells button").all_inner_texts() == [text for text, _ in content["shades"]["1"]]
    line = page.evaluate("[...document.getElementById('counts').data[2].y]")
    assert line == content["states"]["mass|0|1"]["plots"]["counts"][1]["2"]["y"]


@each_page
def test_where_a_browser_cannot_unpack_the_page_says_so(name, texts, tab, tmp_path):
    (tmp_path / "page.html").write_text(
        texts[name].replace("<main>", "<main><script>delete window.DecompressionStream</script>")
    )
    page = tab().page
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_selector("#problem", state="visible")
    assert "needs a browser of 2023 or later" in page.inner_text("#problem")
