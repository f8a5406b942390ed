"""`explain` is what its command calls: the same numbers from a path and from a loaded model, and errors in one line."""

import json
import re

import numpy as np
import pytest
import torch

from armlet import Inward
from armlet.checkpoints.pretrained import load
from armlet.mechanism import explain
from armlet.mechanism.run import parse_counts
from armlet.redistribution.errors import ArgumentError
from command_line import result
from fresh_interpreter import loaded_beyond_torch
from tiny_checkpoints import save

ASKED = {"prompt": ["w20 w21 w22", "w23 w24"], "system": "w10 w11", "filler": "w7", "count": (0, 2, 4)}
QUESTIONS = ("--prompt", "w20 w21 w22", "--prompt", "w23 w24")
COMMAND = (*QUESTIONS, "--system", "w10 w11", "--filler", "w7", "--count", "0,2,4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def explanation(folder):
    return explain(folder, layers="0,2", **ASKED)


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr("armlet.mechanism.result.Explanation.figure", lambda *_: None)
    monkeypatch.setattr("armlet.presentation.style.save", lambda *_: [])


def as_json(content):
    return json.loads(json.dumps(content))


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_function_gives_what_the_command_prints_and_save_writes_it(folder, explanation, tmp_path):
    printed = result("explain", folder, *COMMAND, "--layers", "0,2", "--out", tmp_path / "command")
    paths = explanation.save(tmp_path / "function")
    written = json.loads((tmp_path / "function/explain.json").read_text())
    assert written.pop("figures") == [str(path) for path in paths if path.suffix in (".png", ".svg")]
    del printed["figures"]
    assert as_json(explanation.to_dict()) == written == printed
    for name in ("explain.csv", "explain-classes.csv"):
        assert (tmp_path / "function" / name).read_text() == (tmp_path / "command" / name).read_text()


@pytest.mark.slow
def test_a_loaded_model_gives_the_numbers_of_its_path(folder, explanation):
    model, tokenizer = load(str(folder))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loaded = explain(model, tokenizer, layers=[2, 0], **ASKED)
    assert as_json(loaded.to_dict()) == as_json(explanation.to_dict())
    assert all((before[name] == tensor).all() for name, tensor in model.state_dict().items())
    with pytest.raises(ArgumentError, match="tokenizer: expected the model's tokenizer"):
        explain(model, layers=0, **ASKED)


@pytest.mark.slow
def test_arguments_may_be_one_thing_several_or_text(folder):
    single = explain(folder, layers=1, **ASKED | {"count": 4, "prompt": "w20 w21"}, policy=Inward(knee=0.9))
    several = {"count": [4], "prompt": ["w20 w21"], "filler": ["w7"]}
    same = explain(str(folder), layers=(1,), **ASKED | several, policy=["inward:knee=0.9"])
    assert as_json(single.to_dict()) == as_json(same.to_dict())
    assert single.layers == [1]


@pytest.mark.slow
def test_a_dtype_of_torch_is_stored_by_its_name(folder):
    for dtype in (torch.float64, "float64"):
        assert as_json(explain(folder, layers=0, dtype=dtype, **ASKED).to_dict())["dtype"] == "float64"


@pytest.mark.slow
def test_every_layer_is_measured_by_default_and_the_first_is_shown(folder):
    explanation = explain(folder, **ASKED)
    assert explanation.layers == [0, 1, 2]
    assert ["layer 0" in table.title.plain for table in explanation.tables()] == [True, True]
    assert explanation.sentences() == ["tables: layer 0; explain.csv has all 3 measured layers"]


@pytest.mark.slow
def test_a_notebook_shows_the_tables_and_one_figure(explanation):
    html = explanation._repr_html_()
    assert html.count("<img") == 1
    text = re.sub("<[^>]+>", "", html)
    assert text.index("layer 0") < text.index("layer 2")
    assert {"layer 0", "layer 2"} <= set(re.findall(r"layer \d", repr(explanation)))


@pytest.mark.slow
def test_a_figure_is_chosen_by_its_name(explanation):
    assert "by number of tokens" in explanation.figure().get_suptitle()
    assert "Attention that a token receives" in explanation.figure("attention").get_suptitle()
    for name in explanation.figures:
        assert explanation.figure(name).axes
    with pytest.raises(ArgumentError, match="figure: expected one of attention, affine, counts, layers, classes"):
        explanation.figure("counter")


@pytest.mark.slow
def test_ctrl_c_keeps_the_finished_layers_or_says_that_there_is_none(folder, monkeypatch):
    from armlet.mechanism.layers import measure_layers

    finished = 1

    def interrupted(*args):
        for index, findings in enumerate(measure_layers(*args)):
            if index == finished:
                raise KeyboardInterrupt
            yield findings

    monkeypatch.setattr("armlet.mechanism.run.measure_layers", interrupted)
    explanation = explain(folder, **ASKED)
    assert (explanation.interrupted, explanation.layers) == (True, [0])
    finished = 0
    with pytest.raises(KeyboardInterrupt):
        explain(folder, **ASKED)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count: expected a number other than 0, which is always run, found 0"),
        ({"count": (1.5,)}, r"count: expected whole numbers .* found \(1.5,\)"),
        ({"filler": ()}, "filler: expected one or several texts, found none"),
        ({"layers": "0-9"}, "^layers: llama has layers 0 to 2, found 9$"),
        ({"layers": ()}, "layers: expected at least one layer, found none"),
        ({"layers": -1}, "layers: expected an integer of at least 0, found -1"),
        ({"layers": [0.5]}, "layers: expected an integer of at least 0, found 0.5"),
        ({"layers": "last"}, "layers: expected indices"),
        ({"layers": 3}, "has layers 0 to 2, found 3"),
        ({"seed": -1}, r"seed: expected an integer from 0 to 2\*\*63 - 1, found -1"),
        ({"system": None}, "system: expected text, found None"),
        ({"filler": [1]}, "filler: expected text, found 1"),
        ({"prompt": 5}, "prompt: expected text, found 5"),
        ({"tokenizer": "gpt2"}, "tokenizer: expected the model's tokenizer after the model, it is a str"),
        ({"policy": "outwards"}, "policy: expected one of"),
        ({"position": "middle"}, "position: expected one of before, between, end, random, answer, found 'middle'"),
        ({"dtype": "float7"}, "dtype: expected auto"),
    ],
    ids=repr,
)
def test_what_is_out_of_range_is_refused(folder, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        explain(folder, **ASKED | arguments)


@pytest.mark.parametrize("text", ["", ",", "1,", "1.5", "٣x", "1 2", -5, 100000, True, [], [1, None]])
def test_what_is_no_count_is_refused(text):
    with pytest.raises(ArgumentError, match="count: expected "):
        parse_counts(text)


def test_counts_in_every_form():
    for count in ("0,10,25", (0, 10, 25), np.array([0, 10, 25])):
        assert parse_counts(count) == [0, 10, 25]
    assert parse_counts(10) == parse_counts(np.int64(10)) == parse_counts(torch.tensor(10)) == [10]


@pytest.mark.slow
def test_importing_the_room_loads_no_plotting_and_no_models():
    loaded = loaded_beyond_torch("import armlet.mechanism")
    assert not {"matplotlib", "transformers", "scipy"} & set(loaded)
