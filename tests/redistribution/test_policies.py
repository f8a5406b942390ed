"""Every setting of every policy is listed as it is checked, and text is one way to write a policy."""

from dataclasses import fields

import pytest

from armlet import Inward, Outward, Transport
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policies import (
    BUILT_IN_POLICIES,
    as_policy,
    changed_policy,
    knobs,
    make_policy,
    parse_policy,
    policy_text,
    without_effect,
)


def test_every_setting_of_every_policy_is_listed_with_its_default():
    listed = [(knob.policy, knob.name, knob.default) for knob in knobs()]
    declared = [(policy.name, field.name, field.default) for policy in BUILT_IN_POLICIES for field in fields(policy)]
    assert listed == declared
    assert all(knob.meaning for knob in knobs())


def test_the_settings_of_the_paper_have_its_names():
    names = {knob.name: knob.paper for knob in knobs() if knob.paper}
    assert names == {"band": "c", "ceiling": "p₁", "share": "p_min, p_max", "proportion": "p"}


@pytest.mark.parametrize("knob", knobs(), ids=lambda knob: f"{knob.policy} {knob.name}")
def test_what_a_setting_refuses_is_refused_with_the_words_that_are_listed(knob):
    with pytest.raises(ArgumentError) as caught:
        make_policy(knob.policy, {knob.name: object})
    assert f"{knob.name} must be {knob.allowed}, found" in str(caught.value)
    assert getattr(make_policy(knob.policy, {knob.name: knob.default}), knob.name) == knob.default


@pytest.mark.parametrize(
    ("name", "words", "accepted", "refused"),
    [
        ("band", "a number in (0, inf)", (1e-9, 5, 1e300), (0, -1, True, float("nan"), float("inf"), None, "1")),
        ("ceiling", "a number in [0, 1]", (0, 1, 0.5), (-0.1, 1.1, True, float("nan"), None)),
        ("proportion", "a number in [0, 1], or None", (None, 0, 1), (1.1, "0.5", False)),
        ("share", "(low, high) with 0 <= low <= high <= 1", ((0, 0), (0, 1), [0.1, 0.2]), ((1, 0), (0,), 0.1, (0, 2))),
        ("write", "'replace' or 'add'", ("replace", "add"), ("sum", 1, None)),
    ],
)
def test_the_listed_range_is_what_is_accepted(name, words, accepted, refused):
    assert next(knob for knob in knobs() if knob.name == name).allowed == words
    for value in accepted:
        Outward(**{name: value})
    for value in refused:
        with pytest.raises(ArgumentError, match=f"Outward: {name} must be"):
            Outward(**{name: value})


def test_text_is_parsed_and_a_policy_stays_as_it_is():
    policy = Inward(knee=0.5)
    assert as_policy("inward:knee=0.5") == policy
    assert as_policy(policy) is policy


@pytest.mark.parametrize("knob", knobs(), ids=lambda knob: f"{knob.policy} {knob.name}")
def test_the_text_of_a_policy_is_read_as_the_policy(knob):
    plain = make_policy(knob.policy, {})
    others = plain.choices.get(
        knob.name, ((0.1, 0.30000000000000004),) if knob.name == "share" else (0.1234, 1.0, 1e-05)
    )
    assert policy_text(plain) == knob.policy
    for value in others:
        policy = changed_policy(plain, {knob.name: value})
        assert parse_policy(policy_text(policy)) == policy


def test_the_text_of_a_policy_names_what_differs_from_the_defaults():
    policy = Outward(band=1.0, share=(0.1, 0.25), write="add")
    assert policy_text(policy) == "outward:band=1,share=0.1/0.25,write=add"


def test_changed_settings_are_checked_and_the_others_kept():
    policy = Outward(band=0.2, write="add")
    assert changed_policy(policy, {"strength": 0.5}) == Outward(band=0.2, write="add", strength=0.5)
    assert changed_policy(policy, {}) is policy
    with pytest.raises(ArgumentError, match=r"transport: unknown band; expected target, spread, strength$"):
        changed_policy(Transport(), {"band": 1})


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("outward", []),
        ("published:Gemma-3-4B-it/GPQA-D", []),
        ("inward:strength=0.1", []),
        (
            "cut:threshold=0.1,share=0/0.5,proportion=0.2",
            [
                "cut: share has no effect, because threshold replaces band, share and proportion",
                "cut: proportion has no effect, because threshold replaces band, share and proportion",
            ],
        ),
        ("cut:proportion=0.2,band=1", ["cut: band has no effect, because proportion replaces band and share"]),
        ("cut:threshold=0", []),
        ("inward:limit=2,knee=0.5", ["inward: knee has no effect, because limit replaces knee"]),
        ("inward:limit=2,side=above,curve=tanh", []),
        ("transport:strength=0", ["transport: strength 0 changes nothing"]),
        ("outward:proportion=0.3,band=0.5,strength=0", ["outward: strength 0 changes nothing"]),
        (
            "outward:proportion=0.3,band=0.5,share=0.1/0.2",
            [
                "outward: band has no effect, because proportion replaces band and share",
                "outward: share has no effect, because proportion replaces band and share",
            ],
        ),
        (
            "outward:proportion=0,share=0/1",
            ["outward: share has no effect, because proportion replaces band and share"],
        ),
    ],
)
def test_settings_that_change_nothing_are_said_and_kept(text, sentences):
    assert without_effect(as_policy(text)) == sentences
