"""Where a setting comes from travels in armlet.json, and is refused where it cannot be read."""

import json

import pytest

from armlet import Inward, Outward, attach, load_config
from armlet.attachment.config import ConfigError, load_origin, parse_config
from armlet.attachment.origin import Origin, parse_origin, policy_origin
from armlet.redistribution.errors import ArgumentError
from families import tiny

PRESET = "published:Qwen2.5-Math-7B/AIME24"
TUNED = Origin("tune", "mine", ("sums",), "ab" * 32, ("0123456789abcdef",))


@pytest.mark.parametrize("origin", [TUNED, Origin("published", "Gemma-3-4B-it", ("GPQA-D",))])
def test_an_origin_comes_back_from_a_file_and_is_no_argument_of_attach(tmp_path, origin):
    content = {"policy": "inward", "origin": origin.plain()}
    (tmp_path / "armlet.json").write_text(json.dumps(content))
    assert load_origin(tmp_path) == origin
    assert load_config(tmp_path) == parse_config({"policy": "inward"})


def test_a_file_without_an_origin_has_none(tmp_path):
    (tmp_path / "armlet.json").write_text('{"policy": "outward"}')
    assert load_origin(tmp_path) is None


def test_only_the_text_of_a_published_policy_states_an_origin():
    assert policy_origin("published:org/qwen2.5-math-7b/aime2024") == Origin(
        "published", "Qwen2.5-Math-7B", ("AIME24",)
    )
    assert policy_origin("outward:band=0.2") is policy_origin(Outward()) is None


@pytest.mark.slow
def test_what_was_attached_as_published_is_saved_so_until_it_is_changed(tmp_path):
    with attach(tiny(), PRESET) as attachment:
        assert load_origin(attachment.save(tmp_path)) == policy_origin(PRESET)
        attachment.update(strength=0.5)
        assert load_origin(attachment.save(tmp_path)) is None
        attachment.update("published:Qwen2.5-Math-7B/MATH-500")
        assert load_origin(attachment.save(tmp_path)).tasks == ("MATH-500",)
        attachment.update(Inward())
        assert load_origin(attachment.save(tmp_path)) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has version 2, but this armlet reads up to 1: upgrade it"),
        ({"version": "1"}, "version must be an integer"),
        ({"source": "guess"}, "expected source"),
        ({"name": None}, "expected source"),
        ({"tasks": "sums"}, "expected source"),
        ({"items": [3]}, "expected source"),
        ({"items": ["xyz"]}, "items must be 16 hexadecimal digits each, found 'xyz'"),
        ({"when": "today"}, "unknown when"),
    ],
    ids=str,
)
def test_an_origin_that_cannot_be_read_is_refused_with_its_path(tmp_path, change, message):
    path = tmp_path / "armlet.json"
    path.write_text(json.dumps({"policy": "outward", "origin": TUNED.plain() | change}))
    for read in (load_config, load_origin):
        with pytest.raises(ConfigError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_origin_that_is_no_object_is_refused():
    with pytest.raises(ArgumentError, match=r"^origin: expected an object, found 'tune'$"):
        parse_origin("tune")
