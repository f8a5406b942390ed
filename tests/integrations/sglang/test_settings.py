"""What an SGLang engine is told of ARM, without SGLang."""

import json
from types import SimpleNamespace

import pytest

from armlet import Inward, Noise
from armlet.integrations.sglang.settings import (
    REFUSED,
    SIZES,
    check_custom_params,
    check_options,
    full_overrides,
    served_with,
)
from armlet.redistribution.errors import ArgumentError

INWARD = json.dumps({"armlet": {"policy": "inward", "knee": 0.9}, "max_position_embeddings": 64})
OPTIONS = {name: 1 if name in SIZES else None for names in REFUSED.values() for name in names}


def test_the_model_s_other_overrides_stay_and_the_setting_is_written_out_in_full():
    full = full_overrides(INWARD, "")
    assert json.loads(full)["max_position_embeddings"] == 64
    assert json.loads(full)["armlet"]["seed"] == 0
    assert full_overrides(full, "") == full
    assert served_with(full, "").placements == [
        {"policy": Inward(knee=0.9), "layers": [0], "scope": "token", "noise": Noise(0)}
    ]


def test_overrides_without_arm_are_left_to_the_letter():
    assert full_overrides('{ "a":1 }', "") == '{ "a":1 }'
    assert served_with('{ "a":1 }', "") is None


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"armlett": {}}, "json_model_override_args: 'armlett' means nothing here"),
        ({"armlet": 3}, "json_model_override_args: armlet must be an object"),
        ({"armlet": {"policy": "inward", "scope": "sequence"}}, "SGLang runs the tokens of many requests as one batch"),
    ],
)
def test_a_refusal_names_what_sglang_s_users_call_it(entry, message):
    with pytest.raises(ArgumentError, match=message) as refusal:
        full_overrides(json.dumps(entry), "")
    assert "vLLM" not in str(refusal.value)


@pytest.mark.parametrize(("name", "value"), [(name, 2 if name in SIZES else True) for name in OPTIONS])
def test_an_engine_with_an_option_that_arm_cannot_have_is_refused_by_its_name(name, value):
    check_options(SimpleNamespace(**OPTIONS))
    with pytest.raises(ArgumentError, match=f"{name}={value!r}"):
        check_options(SimpleNamespace(**OPTIONS | {name: value}))


@pytest.mark.parametrize(("value", "refused"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_a_server_whose_requests_are_not_checked_is_refused(monkeypatch, value, refused):
    monkeypatch.setenv("SGLANG_RUST_SERVER", value)
    if refused:
        with pytest.raises(ArgumentError, match="SGLANG_RUST_SERVER"):
            check_options(SimpleNamespace(**OPTIONS))
    else:
        check_options(SimpleNamespace(**OPTIONS))


@pytest.mark.parametrize(
    ("params", "session", "message"),
    [
        ({"custom_params": {"armlet": 2}}, False, r"custom_params: armlet must be 'on', 'off' or a strength"),
        ({"custom_params": {"armlett": 1}}, False, "custom_params: 'armlett'"),
        ({"beam_width": 4}, False, "beam_width"),
        ({}, True, "session_params"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_and_others_are_not(params, session, message):
    check_custom_params({"custom_params": {"armlet": 0.5, "other": 1}}, served_with(INWARD, ""), INWARD, session=False)
    check_custom_params({"beam_width": 4}, None, "{}", session=True)
    with pytest.raises(ArgumentError, match=message):
        check_custom_params(params, served_with(INWARD, ""), INWARD, session=session)


def test_an_engine_without_arm_says_how_to_start_it():
    with pytest.raises(ArgumentError, match=r"this engine runs without ARM; start it with --json-model-override-args"):
        check_custom_params({"custom_params": {"armlet": 1}}, None, "{}", session=False)
