"""`--policy help` explains every setting, in every command that takes a policy."""

import inspect

import pytest

from armlet.cli import QUESTIONS
from armlet.commands.flattening import flattened
from armlet.redistribution.policies import knobs
from armlet.redistribution.presets import PUBLISHED_SETTINGS
from command_line import run, shown

WITH_POLICY = [
    name
    for words in QUESTIONS.values()
    for name, word in words.items()
    if {"policy", "treatments"} & inspect.signature(flattened(word.command)).parameters.keys()
]


@pytest.mark.parametrize("width", ["80", "200"])
def test_policy_help_lists_every_setting_with_default_range_and_the_papers_name(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", width)
    text = shown("inspect", "--policy", "help")
    words = " ".join(text.split())
    assert all(knob.name in text and (knob.paper or "") in text for knob in knobs())
    assert "ceiling 0.995 a number in [0, 1] p₁" in words
    assert "0.02/0.25" in text
    assert "published:Qwen2.5-Math-7B/AIME24" in text
    assert "Qwen2.5-32B-Instruct GPQA-D, AIME24, AIME25, HumanEval, LiveCodeBench" in words
    assert all(model in text for model in PUBLISHED_SETTINGS)
    assert all(len(line) <= int(width) for line in text.splitlines())


@pytest.mark.parametrize("name", WITH_POLICY)
def test_every_command_with_a_policy_explains_it(name):
    assert len(WITH_POLICY) == 8
    code, out, err = run(name, "--policy", "help")
    assert (code, err) == (0, "")
    assert "p_min, p_max" in out


def test_help_among_several_policies_is_help_and_other_words_are_refused():
    assert "p_min, p_max" in shown("evaluate", "--policy", "inward", "--policy", "help")
    code, out, err = run("inspect", "--policy", "helper", "--synthetic", "modes")
    assert (code, out) == (2, "")
    assert "found 'helper'" in err
