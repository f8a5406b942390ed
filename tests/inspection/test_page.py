"""Every setting on the page of `inspect` shows what the library computes for it, and the page loads nothing."""

import re
import shlex
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from armlet.inspection.interactive import EMPTY_BIN, TRACES
from armlet.inspection.knob_grids import knob_grid
from armlet.inspection.measure import inspect_gates
from armlet.inspection.records import GateSample
from armlet.inspection.synthetic import synthetic
from armlet.presentation.numbers import three_digits
from armlet.redistribution import Cut, Inward, Transport
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policies import parse_policy
from pages import addresses, content_of, unpacked

SAMPLE = GateSample([synthetic("heavy-tail", tokens=2, width=256)], "a folder/a model", arguments=("MODEL",))
POLICIES = (Inward(limit=2.0), Cut(threshold=0.1), Cut())


def inspected(policies=POLICIES, sample=SAMPLE, **how):
    return inspect_gates(sample, policies, **how)


def page_of(inspection):
    with TemporaryDirectory() as folder:
        return inspection.save_html(Path(folder, "page.html")).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page():
    return page_of(inspected())


@pytest.fixture(scope="module")
def content(page):
    return content_of(page)


def states_of(index, policy):
    """Key and policy of each state of the policy at an index."""
    for place, at_place in knob_grid(policy).states().items():
        yield "|".join(map(str, (index, *place))), at_place


@pytest.mark.slow
def test_there_is_a_state_for_every_combination_of_the_sliders_and_no_other(page, content):
    sliders = re.findall(r'id="knob-(\d+)-\w+" name="\S+" min="0" max="(\d+)"', page)
    expected = set()
    for index in range(len(POLICIES)):
        ranges = [range(int(largest) + 1) for number, largest in sliders if int(number) == index]
        expected |= {"|".join(map(str, (index, *place))) for place in product(*ranges)}
    assert set(content["states"]) == expected


@pytest.mark.parametrize(("index", "policy"), [*enumerate(POLICIES)], ids=repr)
def test_every_state_draws_the_counts_of_inspect_with_its_policy(index, policy, content):
    figure = content["figures"][str(index)]
    bars = figure["data"][TRACES.index("before")]
    centres, width = np.array(bars["x"]), bars["width"]
    for key, at_place in states_of(index, policy):
        panel = inspected([at_place]).effects[0].panel
        after = content["states"][key]["plots"]["plot"][1][str(TRACES.index("after"))]
        nearest = np.abs(panel.after[:, None] - centres).argmin(axis=1)  # of bins, the one whose centre is nearest
        counts = np.bincount(nearest, minlength=len(centres))
        edge = np.abs(np.abs(panel.after[:, None] - centres).min(axis=1) - width / 2) < 1e-4 * width
        assert np.abs(np.array(after["customdata"]) - counts).sum() <= 2 * edge.sum()
        drawn = np.array(after["y"])
        assert (drawn[counts == 0] <= max(EMPTY_BIN, edge.sum())).all()


def test_every_state_says_the_measures_of_inspect_and_the_command_that_gives_it(content):
    for index, policy in enumerate(POLICIES):
        for key, at_place in states_of(index, policy):
            effect, texts = inspected([at_place]).effects[0], content["states"][key]["texts"]
            assert texts["share_moved"] == three_digits(effect.share_moved)
            assert texts["std"] == three_digits(effect.after["std"])
            assert f"→ {three_digits(float(np.abs(effect.panel.after).max()))}" in texts["summary"]
            words = shlex.split(texts["command"])
            assert words[:3] == ["armlet", "inspect", "MODEL"]
            assert parse_policy(words[words.index("--policy") + 1]) == at_place


def test_the_sliders_start_at_the_policys_own_settings(page):
    for index, policy in enumerate(POLICIES):
        starts = re.findall(rf'id="knob-{index}-\w+".*? value="(\d+)"', page)
        assert dict(states_of(index, policy))["|".join([str(index), *starts])] == policy


@pytest.mark.slow
def test_all_states_of_a_policy_are_drawn_on_axes_that_show_them_whole():
    content = content_of(page_of(inspected([Transport()])))
    axes = content["figures"]["0"]["layout"]
    size, after = SAMPLE.gates[0].numel(), TRACES.index("after")
    for state in content["states"].values():
        traces = state["plots"]["plot"][1]
        assert sum(traces[str(after)]["customdata"]) == size
        assert max(traces[str(len(TRACES) + after)]["y"]) <= axes["yaxis3"]["range"][1]
        for first, axis in ((0, "yaxis2"), (len(TRACES), "yaxis4")):
            low, high = axes[axis]["range"]
            ends = [traces[str(first + TRACES.index(name))]["y"] for name in ("low", "high")]
            values = [value for curve in ends for value in curve if value is not None]
            assert low - 1e-3 <= min(values) <= max(values) <= high + 1e-3


def test_the_page_is_small_loads_nothing_and_contains_plotly_whole(page):
    from plotly.offline import get_plotlyjs

    assert len(page.encode()) < 3e6
    assert addresses(page) == []
    assert unpacked(page, "plotly") == get_plotlyjs()


@pytest.mark.parametrize("text", ['<img src="x">', "<a href=x>", "url(x)", "https://x", "@import"])
def test_that_test_can_fail(text):
    assert addresses(text)


@pytest.mark.slow
def test_equal_results_are_the_same_page(page):
    assert page_of(inspected()) == page


def test_a_model_whose_name_is_html_is_text():
    page = page_of(inspected([Cut()], replace(SAMPLE, source="<script>alert(1)", arguments=("<script>",))))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize("site", ["gate", "up", "product"])
def test_title_and_diagram_are_of_the_site_and_the_layer(site):
    page = page_of(inspected([Cut()], replace(SAMPLE, site=site, layer=4)))
    names = {"gate": "activated gate", "up": "output of up", "product": "product (input of down)"}
    assert f"<h1>What ARM does to the {names[site]} of a model, layer 4</h1>" in page
    assert "Layer 5 (layer 4 in code)" in page


def test_settings_without_effect_are_said():
    states = content_of(page_of(inspected([Cut(strength=0.0)])))["states"]
    assert {state["texts"]["remark"] for state in states.values()} == {"cut: strength 0 changes nothing"}


def test_a_policy_of_ones_own_has_no_knobs():
    class Mine(Cut):
        pass

    with pytest.raises(ArgumentError, match="knobs for outward, inward, transport, cut, found Mine"):
        knob_grid(Mine())


@pytest.mark.slow
def test_save_html_writes_the_page_and_save_writes_it_beside_the_figure(page, tmp_path):
    assert inspected().save_html(tmp_path / "deep" / "mine.html").read_text() == page
    paths = inspected().save(tmp_path, html=True)
    assert [path.name for path in paths] == ["inspect.png", "inspect.svg", "inspect.json", "inspect.html"]
    assert (tmp_path / "inspect.html").read_text() == page
