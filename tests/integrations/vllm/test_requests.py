"""What a request to vLLM asks of ARM, without vLLM."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armlet.evaluation.engines.chat import SWITCH_REFUSAL
from armlet.integrations.vllm.requests import CONFIGURED, NOTHING, check_request, read_request, request_salt
from armlet.integrations.vllm.settings import ON, Served, resolve, served
from armlet.redistribution.errors import ArgumentError, ArmletError
from doc_blocks import ROOT, blocks
from doc_commands import commands


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


@pytest.mark.parametrize(("asked", "strength"), [("on", CONFIGURED), ("off", 0.0), (1, 1.0), (0, 0.0)])
def test_words_and_numbers(asked, strength):
    engine = served(WITH_ARM)
    assert read_request({"armlet": asked}, engine) == (NOTHING if strength == 0 else (ON, strength))
    assert read_request({}, engine) == read_request(None, engine) == (ON, CONFIGURED)


CALM, LOUD = {"policy": "inward"}, {"policy": "outward"}


@pytest.mark.parametrize(
    ("default", "asked", "expected"),
    [
        ("off", {}, NOTHING),
        ("calm", {}, ("calm", CONFIGURED)),
        ("calm", {"armlet": "on"}, ("calm", CONFIGURED)),
        ("calm", {"armlet": 0.5}, ("calm", 0.5)),
        ("calm", {"armlet": "off"}, NOTHING),
        ("off", {"armlet": 0}, NOTHING),
        ("off", {"armlet": "loud"}, ("loud", CONFIGURED)),
        ("calm", {"armlet": "loud:0.25"}, ("loud", 0.25)),
        ("calm", {"armlet": "loud:1e-2"}, ("loud", 0.01)),
        ("calm", {"armlet": "loud:1e-46"}, NOTHING),
        ("calm", {"armlet": "loud:0"}, NOTHING),
    ],
)
def test_a_request_names_a_setting_or_a_strength_of_it(default, asked, expected):
    assert read_request(asked, Served({"calm": SETTINGS["calm"], "loud": SETTINGS["loud"]}, default)) == expected


SETTINGS = served(resolve({"armlet": {"settings": {"calm": CALM, "loud": LOUD}}}, "")).settings


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("on", "is for the engine's default, which is 'off'; name a setting, 'calm', 'loud', or its strength"),
        (0.5, "is for the engine's default, which is 'off'; name a setting, 'calm', 'loud', or its strength"),
        (
            "quiet",
            r"must be 'off' or one of this engine's settings, 'calm', 'loud', also with a strength, found 'quiet'",
        ),
        ("calm:2", "found 'calm:2'"),
        ("calm:nan", "found 'calm:nan'"),
        ("calm: 0.5", "found 'calm: 0.5'"),
        ("calm:٠", "found 'calm:٠'"),
        ("calm:", "found 'calm:'"),
        ("calm:0.5:1", "found 'calm:0.5:1'"),
        (["calm", 0.5], "found .'calm', 0.5."),
        (True, "found True"),
    ],
)
def test_what_an_engine_with_several_settings_cannot_know_is_refused(asked, message):
    with pytest.raises(ArgumentError, match=message):
        read_request({"armlet": asked}, Served(SETTINGS, "off"))


def test_an_evaluation_recognises_a_server_whose_arm_it_can_switch_by_its_refusal():
    for engine in (served(WITH_ARM), Served(SETTINGS, "calm")):
        with pytest.raises(ArgumentError, match=SWITCH_REFUSAL):
            read_request({"armlet": "neither"}, engine)
    with pytest.raises(ArgumentError) as refusal:  # "on" would be refused
        read_request({"armlet": "neither"}, Served(SETTINGS, "off"))
    assert SWITCH_REFUSAL not in str(refusal.value)


def test_a_setting_of_strength_0_is_refused_unless_a_strength_is_asked_for():
    still = served(resolve({"armlet": {"settings": {"calm": CALM | {"strength": 0}}}}, ""))
    with pytest.raises(
        ArgumentError, match=r"which is strength 0; ask for a strength, such as \{\"armlet\": \"calm:1\"\}"
    ):
        read_request({"armlet": "calm"}, still)
    assert read_request({"armlet": "calm:0.5"}, still) == ("calm", 0.5)


@pytest.mark.slow
@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32), st.none() | st.text())
def test_requests_share_cached_prefixes_where_their_strength_is_the_same_alone(this, other, salt):
    first, second = (request_salt(salt, {"armlet": strength}) for strength in (this, other))
    assert (first == second) == (this == other)
    assert request_salt(salt, {}) != first


@given(
    st.lists(st.sampled_from(["calm", "loud", "calm:0.5", "loud:0.5", "on", "off", 0.5, 1]), min_size=2, max_size=2),
    st.lists(st.none() | st.text(max_size=3), min_size=2, max_size=2),
)
def test_requests_share_cached_prefixes_only_with_the_same_words_and_the_same_salt(asked, salts):
    first, second = (request_salt(salt, {"armlet": value}) for value, salt in zip(asked, salts, strict=True))
    assert (first == second) == (asked[0] == asked[1] and salts[0] == salts[1])


def test_a_session_shares_cached_prefixes_with_nobody():
    salts = [request_salt(None, asked, session) for asked in (None, {"armlet": "calm"}) for session in (None, "a", "b")]
    assert len({*salts}) == 6


def test_no_salt_of_a_requests_own_is_that_of_another_strength():
    off = request_salt(None, {"armlet": "off"})
    assert request_salt(off, {}) != off
    assert request_salt(off, {"armlet": "on"}) != off
    assert request_salt(None, {}) is None


def test_the_page_about_serving_says_what_a_request_to_several_settings_runs_with():
    page = ROOT / "docs/howto/serve.md"
    (several,) = (commands(block.text)[0] for block in blocks(page) if '"settings"' in block.text)
    engine = served(resolve(json.loads(several[several.index("--additional-config") + 1]), ""))
    assert (list(engine.settings), engine.default) == (["calm", "loud", "control"], "off")
    table = page.read_text("utf-8").partition("Requests choose")[2].partition("## Check")[0]
    rows = {asked: json.loads(asked) for asked in re.findall(r'`(\{"armlet": .+?\})`', table)}
    assert len(rows) == 5
    for asked, request in rows.items():
        if asked in ('{"armlet": "on"}', '{"armlet": 0.5}'):
            with pytest.raises(ArgumentError, match="which is 'off'"):
                read_request(request, engine)
        else:
            assert read_request(request, engine).name == (None if "off" in asked else "calm")
