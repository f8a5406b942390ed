"""A command and its function share what an option is."""

import inspect
from typing import get_args

import pytest

from armlet import cost, precision
from armlet.cli import QUESTIONS
from armlet.commands.flattening import flattened
from armlet.cost.plan import MODEL_DTYPE

COMMANDS = {name: word.command for words in QUESTIONS.values() for name, word in words.items()}


@pytest.mark.parametrize(
    ("name", "function", "apart"),
    [("quantize", precision.quantize, {}), ("bench", cost.bench, {"dtype": MODEL_DTYPE})],  # a loaded model has its own
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
