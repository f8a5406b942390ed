"""A setting becomes a link, knobs, armlet.json and Python, and comes back from each as it was."""

import json
import re
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from armlet import Noise, attach, load_config
from armlet.evaluation.conditions.placebos import GATE_PLACEBOS
from armlet.playground.glossary import GLOSSARY, KNOB_HELP, MAIN_KNOBS
from armlet.playground.knobs import RANGES, knobs_of_policy, page_knobs, policy_of_knobs
from armlet.playground.setting import DEFAULT, SAMPLE_NAMES, Setting, from_link
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policies import POLICIES, knobs, parse_policy
from families import tiny

DEFAULTS = {knob.key: knob.value for knob in page_knobs()}
POLICY_TEXTS = (
    "outward:band=0.2,ceiling=0.95,share=0.05/0.3,write=add,ceiling_of=magnitude,strength=0.5",
    "outward:proportion=0.25",
    "inward:limit=448,side=above,curve=clip",
    "inward:knee=0.9,curve=tanh",
    "transport:spread=0.5,strength=0.25",
    "cut:threshold=0.05",
    "cut:band=0.3,share=0.01/0.5",
)

settings = st.builds(
    Setting,
    sample=st.sampled_from(SAMPLE_NAMES),
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    layer=st.integers(0, 99),
    everywhere=st.booleans(),
    expert=st.integers(-1, 99),
    policy=st.sampled_from(POLICY_TEXTS),
    placebo=st.sampled_from(["", "identity", "draw-only", "matched"]),
    seed=st.integers(0, 2**53 - 1),
)


@given(settings)
def test_a_link_restores_the_setting(setting):
    assert from_link(setting.link()) == setting


def test_the_default_setting_has_an_empty_link():
    assert DEFAULT.link() == "?"
    assert from_link("") == DEFAULT


@pytest.mark.parametrize("text", POLICY_TEXTS)
def test_the_knobs_restore_a_policy(text):
    name = text.partition(":")[0]
    assert parse_policy(policy_of_knobs(name, DEFAULTS | knobs_of_policy(text))) == parse_policy(text)


@pytest.mark.parametrize("name", POLICIES)
def test_the_knobs_start_at_the_defaults(name):
    assert policy_of_knobs(name, DEFAULTS) == name


def test_every_setting_of_every_policy_has_a_knob_but_the_one_without_a_choice():
    shown = {(knob.policy, knob.name.removesuffix("_low").removesuffix("_high")) for knob in page_knobs()}
    expected = {("" if knob.name == "strength" else knob.policy, knob.name) for knob in knobs()}
    assert shown == expected - {("transport", "target")}
    names = {knob.name for knob in page_knobs()}
    assert set(KNOB_HELP) == names
    assert set(MAIN_KNOBS) <= names
    assert set(RANGES) == {knob.name for knob in page_knobs() if not knob.choices}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?colour=red", "unknown 'colour'"),
        ("?layer=1&layer=2", "layer is in it twice"),
        ("?layer=1.5", "layer: expected a whole number in a link, found '1.5'"),
        ("?layer=-1", "layer: expected an integer of at least 0"),
        ("?everywhere=2", "everywhere: expected an integer from 0 to 1"),
        ("?policy=outward%3Aband", "expected settings as name=value"),
        ("?placebo=zeroed&policy=inward", "zeroed is the control of outward alone"),
        ("?placebo=sugar", "placebo: expected one of"),
        ("?sample=noise", "sample: expected one of text, modes, heavy-tail"),
        ("?seed=99999999999999999999999", "seed: expected a whole number"),
        ("?seed=9007199254740993", "seed: expected an integer from 0 to 9007199254740991"),
    ],
)
def test_a_wrong_link_is_refused_with_the_reason(query, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        from_link(query)


def test_a_text_too_long_for_a_link_is_refused():
    with pytest.raises(ArgumentError, match="a link stores 4,000 characters, and the text has 4,001"):
        Setting(text="a" * 4001).link()


@pytest.mark.parametrize("everywhere", [False, True])
def test_armlet_json_and_python_attach_the_same(tmp_path, everywhere):
    setting = Setting(policy="outward:band=0.4", layer=1, everywhere=everywhere, seed=5)
    (tmp_path / "armlet.json").write_text(setting.armlet_json())
    model = tiny()
    with attach(model, **load_config(tmp_path)) as arm:
        from_file = arm.placements
    names = {"attach": attach, "Noise": Noise, "model": model, "placements": []}
    exec(setting.python().replace("...", "placements += arm.placements"), names)
    assert names["placements"] == from_file


@pytest.mark.parametrize("name", GATE_PLACEBOS)
def test_a_placebo_is_no_setting_to_take_along(name):
    setting = Setting(placebo=name)
    assert setting.acting() != setting.chosen()
    assert json.loads(setting.armlet_json())["policy"] == "outward"


def test_the_docs_have_the_pages_glossary():
    text = (Path(__file__).parents[2] / "docs" / "howto" / "explore.md").read_text()
    for word, meaning in GLOSSARY.items():
        assert f"| {word} | {meaning} |" in text
