"""What vLLM is told of ARM, without vLLM."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armlet import Inward, Noise, Outward
from armlet.attachment.sites import SITES
from armlet.evaluation.conditions.conditions import Treatment, conditions
from armlet.integrations.vllm.engine import single_treatment
from armlet.integrations.vllm.settings import (
    check_request,
    configured,
    request_salt,
    request_strength,
    resolve,
)
from armlet.redistribution.errors import ArgumentError, ArmletError


def test_a_setting_is_written_out_in_full_and_read_back():
    config = resolve({"armlet": {"policy": "inward", "knee": 0.9, "layers": "all", "seed": 5}, "other": 1}, "")
    assert config["other"] == 1
    assert {"curve", "strength", "scope", "noise", "stream"} <= set(config["armlet"])
    inward = {"policy": Inward(knee=0.9), "layers": "all", "scope": "token", "noise": Noise(5)}
    assert configured(config) == [inward]
    assert resolve(config, "") == config


def test_several_placements_are_written_out_in_full_and_read_back():
    gate, up = {"policy": "inward", "limit": 7.0}, {"policy": "inward", "limit": 6.0, "site": "up", "layers": [1, 2]}
    config = resolve({"armlet": {"version": 2, "placements": [gate, up]}}, "")
    shared = {"scope": "token", "noise": Noise(0)}
    assert configured(config) == [
        {"policy": Inward(limit=7.0), "layers": [0], **shared},
        {"policy": Inward(limit=6.0), "layers": [1, 2], "site": "up", **shared},
    ]
    assert resolve(config, "") == config
    with pytest.raises(ArgumentError, match="use scope 'token'"):
        resolve({"armlet": {"version": 2, "placements": [gate, up | {"scope": "call"}]}}, "")


@pytest.mark.parametrize("without", [{}, {"armlet": False}, {"armlet": None}])
def test_without_a_setting_there_is_none(without, tmp_path):
    assert resolve(without, str(tmp_path)) == {}
    assert configured({}) == []


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
    assert [configured(config)[0].get("site", "gate") for config in settings] == [site] * 3
    treatment = Treatment(Outward(), site=site)
    assert single_treatment(conditions([treatment], [], placebos=False), []) == treatment


@pytest.mark.parametrize("asked", ["", "ON", 2, -1, None, [0.5], float("nan"), float("inf")])
def test_a_request_that_means_nothing_is_refused(asked):
    with pytest.raises(ArgumentError, match="must be 'on', 'off' or a strength"):
        check_request({"armlet": asked}, {"armlet": {"policy": "outward"}})


WITH_ARM = {"armlet": {"policy": "outward"}}


@pytest.mark.parametrize("asked", ["on", 0.5, 1, "neither", None])
def test_an_engine_without_arm_refuses_a_request_that_wants_it(asked):
    check_request({"other": 1}, {})
    check_request(None, {})
    with pytest.raises(ArmletError, match=r"over HTTP: vllm_xargs.*runs without ARM"):
        check_request({"armlet": asked}, {})


@pytest.mark.parametrize("asked", ["off", 0, 0.0])
def test_off_is_what_an_engine_without_arm_does(asked):
    check_request({"armlet": asked}, {})


def test_on_is_refused_where_the_engines_own_strength_is_0():
    still = {"armlet": {"policy": "outward", "strength": 0}}
    with pytest.raises(ArgumentError, match="which is strength 0; ask for a strength"):
        check_request({"armlet": "on"}, still)
    for asked in ({"armlet": 1}, {"armlet": "off"}, {}):
        check_request(asked, still)
    check_request({"armlet": "on"}, WITH_ARM)


@pytest.mark.parametrize("key", ["armlett", "Armlet", "ARM", "armelt", "amrlet", "arm_let"])
@pytest.mark.parametrize("config", [{}, WITH_ARM], ids=["without", "with"])
def test_a_misspelled_key_is_refused(key, config):
    for request in ({key: "off"}, {key: "off", "armlet": "off"}):
        with pytest.raises(ArgumentError, match=f"vllm_xargs.: '{key}' means nothing here; did you mean 'armlet'"):
            check_request(request, config)
    with pytest.raises(ArgumentError, match=f"additional_config: '{key}' means nothing here"):
        resolve({key: {"policy": "outward"}}, "")


@pytest.mark.parametrize("key", ["alert", "session_id", "kv_transfer_params", "gdn_prefill_backend", "format", "a"])
def test_keys_of_others_are_left_alone(key):
    check_request({key: 1}, WITH_ARM)
    assert resolve({key: 1}, "") == {key: 1}


def test_a_strength_in_quotes_is_refused_with_the_right_example():
    with pytest.raises(ArgumentError, match=r"found '0\.5'; for example \{\"armlet\": 0\.5\}"):
        check_request({"armlet": "0.5"}, WITH_ARM)


@pytest.mark.parametrize(("asked", "strength"), [("on", None), ("off", 0.0), (1, 1.0), (0, 0.0)])
def test_words_and_numbers(asked, strength):
    assert request_strength({"armlet": asked}) == strength
    assert request_strength({}) is request_strength(None) is None


@pytest.mark.slow
@given(st.floats(0, 1), st.floats(0, 1), st.none() | st.text())
def test_requests_share_cached_prefixes_where_their_strength_is_the_same_alone(this, other, salt):
    first, second = (request_salt(salt, {"armlet": strength}) for strength in (this, other))
    assert (first == second) == (this == other)
    assert request_salt(salt, {}) != first


def test_no_salt_of_a_requests_own_is_that_of_another_strength():
    off = request_salt(None, {"armlet": "off"})
    assert request_salt(off, {}) != off
    assert request_salt(off, {"armlet": "on"}) != off
    assert request_salt(None, {}) is None
