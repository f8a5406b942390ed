"""What a vLLM engine is told of ARM, without vLLM."""

import json

import pytest

from armlet import Cut, Inward, Noise, Outward
from armlet.attachment.sites import SITES
from armlet.evaluation.conditions.conditions import Treatment, conditions
from armlet.evaluation.conditions.placebos import placebo
from armlet.integrations.vllm.engine import settings_of
from armlet.integrations.vllm.settings import OFF, ON, Served, full_entry, resolve, served
from armlet.redistribution.errors import ArgumentError


def test_a_setting_is_written_out_in_full_and_read_back():
    config = resolve({"armlet": {"policy": "inward", "knee": 0.9, "layers": "all", "seed": 5}, "other": 1}, "")
    assert config["other"] == 1
    assert {"curve", "strength", "scope", "noise", "stream"} <= set(config["armlet"])
    inward = {"policy": Inward(knee=0.9), "layers": "all", "scope": "token", "noise": Noise(5)}
    assert served(config) == Served({ON: [inward]}, ON)
    assert resolve(config, "") == config


def test_several_placements_are_written_out_in_full_and_read_back():
    gate, up = {"policy": "inward", "limit": 7.0}, {"policy": "inward", "limit": 6.0, "site": "up", "layers": [1, 2]}
    config = resolve({"armlet": {"version": 2, "placements": [gate, up]}}, "")
    shared = {"scope": "token", "noise": Noise(0)}
    assert served(config).settings[ON] == [
        {"policy": Inward(limit=7.0), "layers": [0], **shared},
        {"policy": Inward(limit=6.0), "layers": [1, 2], "site": "up", **shared},
    ]
    assert resolve(config, "") == config
    with pytest.raises(ArgumentError, match="use scope 'token'"):
        resolve({"armlet": {"version": 2, "placements": [gate, up | {"scope": "call"}]}}, "")


@pytest.mark.parametrize("without", [{}, {"armlet": False}, {"armlet": None}])
def test_without_a_setting_there_is_none(without, tmp_path):
    assert served(resolve(without, str(tmp_path))) is None


def test_false_stays_false_when_it_is_read_again(tmp_path):
    (tmp_path / "armlet.json").write_text('{"policy": "cut"}')
    once = resolve({"armlet": False}, str(tmp_path))
    assert served(once) is served(resolve(once, str(tmp_path))) is None


def test_a_file_that_changes_changes_what_is_hashed(tmp_path):
    file = tmp_path / "armlet.json"
    written = []
    for band in (0.1, 0.2):
        file.write_text(f'{{"policy": "outward", "band": {band}}}')
        written += [
            resolve({"armlet": str(file)}, ""),
            resolve({"armlet": str(tmp_path)}, ""),
            resolve({}, str(tmp_path)),
        ]
    assert [config["armlet"]["band"] for config in written] == [0.1] * 3 + [0.2] * 3


@pytest.mark.parametrize("site", SITES)
def test_a_site_is_the_same_for_the_engine_and_for_an_evaluation_through_it(site, tmp_path):
    entry = {"policy": "outward", "site": site}
    (tmp_path / "armlet.json").write_text(json.dumps(entry))
    settings = [resolve({"armlet": entry}, ""), resolve({"armlet": str(tmp_path)}, ""), resolve({}, str(tmp_path))]
    assert [served(config).placements[0].get("site", "gate") for config in settings] == [site] * 3
    treatment = Treatment(Outward(), site=site)
    (content,) = settings_of(conditions([treatment], [], placebos=False)).values()
    assert content == settings[0]["armlet"]


SEVERAL = {"calm": {"policy": "inward"}, "loud": {"policy": "outward", "layers": [1]}}


def test_several_settings_are_written_out_in_full_and_read_back(tmp_path):
    (tmp_path / "armlet.json").write_text('{"policy": "cut"}')
    config = resolve({"armlet": {"settings": SEVERAL | {"cut": str(tmp_path)}, "default": "calm"}}, "")
    engine = served(config)
    policies = {name: placements[0]["policy"] for name, placements in engine.settings.items()}
    assert policies == {"calm": Inward(), "loud": Outward(), "cut": Cut()}
    assert [placement["layers"] for placement in engine.placements] == [[0], [1], [0]]
    assert engine.default == "calm"
    assert resolve(config, "") == config
    assert served(resolve({"armlet": {"settings": SEVERAL}}, "")).default == OFF


def test_a_setting_may_be_a_placebo_of_its_policy():
    entry = {"settings": {"control": {"policy": "outward", "placebo": "matched"}}}
    (placement,) = served(resolve({"armlet": entry}, "")).placements
    assert placement["policy"] == placebo("matched", Outward())


@pytest.mark.parametrize(
    ("policy", "name", "names"),
    [
        ("outward", "sugar", "draw-only, matched, zeroed"),
        ("outward", "identity", "draw-only, matched, zeroed"),
        ("inward", "zeroed", "draw-only, matched"),
    ],
)
def test_a_placebo_that_a_policy_does_not_have_is_refused(policy, name, names):
    with pytest.raises(
        ArgumentError, match=f"setting 'a': placebo must be one of {names} for {policy}, found '{name}'"
    ):
        full_entry({"settings": {"a": {"policy": policy, "placebo": name}}})


def test_a_misspelled_settings_is_found():
    with pytest.raises(ArgumentError, match="'setting' means nothing here; did you mean 'settings'"):
        resolve({"armlet": {"setting": SEVERAL}}, "")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"settings": {}}, "with several settings must be"),
        ({"settings": [SEVERAL]}, "with several settings must be"),
        ({"settings": SEVERAL, "policy": "outward"}, "with several settings must be"),
        ({"settings": SEVERAL, "default": "quiet"}, "default must be one of off, calm, loud, found 'quiet'"),
        ({"settings": {"Off": {"policy": "cut"}}}, "a setting's name must be"),
        ({"settings": {"0.5": {"policy": "cut"}}}, "a setting's name must be"),
        ({"settings": {"a:b": {"policy": "cut"}}}, "a setting's name must be"),
        ({"settings": {"calm": {"policy": "cut", "scope": "call"}}}, "setting 'calm': .*use scope 'token'"),
        ({"settings": {"calm": {"policy": "nonsense"}}}, "setting 'calm': policy"),
    ],
)
def test_several_settings_that_mean_nothing_are_refused(entry, message):
    with pytest.raises(ArgumentError, match=message):
        resolve({"armlet": entry}, "")


def test_conditions_have_a_setting_each_whose_name_depends_on_its_content_alone():
    compared = conditions([Treatment(Outward()), Treatment(Inward())], [])
    settings = settings_of(compared)
    placebos = [content.get("placebo") for content in settings.values()]
    assert placebos == [None, None, "draw-only", "matched", "zeroed", "matched"]  # identity is a request at strength 0
    assert settings_of(compared[::-1]) == settings
