"""A command and its function share what an option is; a result is printed and saved."""

import inspect
import json
from typing import get_args

import pytest

from armlet import bounds, cost, precision
from armlet.answers import generate
from armlet.cli import QUESTIONS
from armlet.commands.flattening import flattened
from armlet.commands.options import show
from armlet.cost.plan import MODEL_DTYPE
from armlet.redistribution.errors import ArgumentError

COMMANDS = {name: word.command for words in QUESTIONS.values() for name, word in words.items()}


@pytest.mark.parametrize(
    ("name", "function", "apart"),
    [
        ("quantize", precision.quantize, {}),
        ("limits", bounds.limits, {}),
        ("bench", cost.bench, {"dtype": MODEL_DTYPE}),  # a loaded model has its own
    ],
)
def test_every_option_has_the_functions_default(name, function, apart):
    options = inspect.signature(flattened(COMMANDS[name])).parameters
    defaults = {word: parameter.default for word, parameter in inspect.signature(function).parameters.items()}
    shared = options.keys() & defaults.keys()
    assert options.keys() - shared <= {"out", "as_json"}
    assert {word: options[word].default for word in shared} == {word: defaults[word] for word in shared} | apart


@pytest.mark.parametrize("name", COMMANDS)
def test_every_seed_has_the_same_range(name):
    seed = flattened(COMMANDS[name]).__annotations__.get("seed")
    assert seed is None or [(option.min, option.max) for option in get_args(seed)[1:]] == [(0, 2**63 - 1)]


@pytest.mark.slow
def test_a_result_that_cannot_be_saved_is_printed_before_the_error(tmp_path, capsys):
    (tmp_path / "armlet.json").write_text("{}")
    answers = generate("abacus", "1+1", max_new_tokens=2)
    for as_json in (False, True):
        with pytest.raises(ArgumentError, match="exists and is not this result's setting"):
            show(answers, tmp_path, as_json)
        out = capsys.readouterr().out
        assert answers.baseline.text.strip() in out
        assert "written" not in out
    assert json.loads(out)["prompt"] == "1+1"
