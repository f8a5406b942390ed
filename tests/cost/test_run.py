"""`bench` from end to end: what is timed and refused, from a path and from a loaded model, and what Ctrl-C keeps."""

import json
from dataclasses import replace

import pytest
import torch

from armlet import Outward, attach
from armlet.cost import Cost, bench, timing
from armlet.cost.findings import FunctionRow, ModelTimes, WorkRow
from armlet.cost.measure import Shapes
from armlet.cost.plan import parse_shapes
from armlet.cost.tables import cost_tables
from armlet.cost.timing import Spread
from armlet.errors import AlreadyAttachedError
from armlet.redistribution.errors import ArgumentError
from axis_labels import unlabelled
from families import tiny
from fresh_interpreter import loaded_beyond_torch
from tiny_checkpoints import save

FUNCTION = {"widths": "8", "tokens": (1, 2), "dtypes": ["float32"], "turns": 2}
SMALL = FUNCTION | {"model_turns": 2}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(timing, "MIN_SECONDS", 0.0)


@pytest.fixture(scope="module")
def model():
    return tiny(max_position_embeddings=1024)


def shape_of(value):
    """A JSON value with its keys and texts, and without the measured numbers."""
    if isinstance(value, dict):
        return {key: shape_of(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape_of(part) for part in value]
    return 0.0 if isinstance(value, float) else value


def test_only_the_function_is_timed_if_only_it_is_wanted(monkeypatch):
    monkeypatch.setattr("armlet.cost.run.load_or_use", lambda *_, **__: pytest.fail("a model was loaded"))
    cost = bench(**FUNCTION, only="function")
    assert [row.tokens for row in cost.function] == [1, 2]
    assert (cost.turns, cost.model, cost.interrupted) == (2, None, False)
    assert cost.to_dict()["policy"]["name"] == "outward"
    assert cost.sentences() == []
    assert replace(cost, policy=Outward(strength=0)).sentences() == ["outward: strength 0 changes nothing"]


@pytest.mark.slow
def test_a_path_and_a_loaded_model_give_the_same_rows(tmp_path, model):
    folder = save(tmp_path / "tiny", max_position_embeddings=1024)
    from_path, from_model = (json.loads(json.dumps(bench(given, **SMALL).to_dict())) for given in (folder, model))
    # A model that was built in memory has no folder to name.
    assert (from_path["model"].pop("name"), from_model["model"].pop("name")) == (str(folder), "LlamaForCausalLM")
    assert shape_of(from_path) == shape_of(from_model)


@pytest.mark.slow
def test_a_loaded_model_keeps_its_dtype_and_its_logits():
    model = tiny(max_position_embeddings=1024).to(torch.bfloat16)
    before = model(torch.arange(5)[None]).logits
    cost = bench(model, model_turns=2, only="model")
    assert (cost.model.dtype, cost.function, cost.turns) == ("bfloat16", [], None)
    assert torch.equal(model(torch.arange(5)[None]).logits, before)


def test_threads_are_set_for_the_measurement_alone(monkeypatch):
    before = torch.get_num_threads()
    assert bench(**FUNCTION, only="function", threads=before + 1).machine["threads"] == before + 1
    assert torch.get_num_threads() == before
    monkeypatch.setattr("armlet.cost.run.measure_cost", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bench(**FUNCTION, only="function", threads=before + 1)
    assert torch.get_num_threads() == before


def test_a_model_with_arm_is_refused(model):
    with attach(model, Outward(), site="product"), pytest.raises(AlreadyAttachedError, match="bench"):
        bench(model, **SMALL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": "0"}, "widths: expected whole numbers from 1"),
        ({"widths": [8, -1]}, "widths: expected whole numbers from 1"),
        ({"widths": []}, "widths: expected whole numbers from 1"),
        ({"tokens": "a,2"}, "tokens: expected whole numbers from 1"),
        ({"dtypes": ["auto"]}, "dtypes: expected one or several of float32"),
        ({"dtypes": "int8"}, "dtypes: expected one or several of .*, found 'int8'"),
        ({"dtypes": torch.int8}, "dtypes: expected one or several of .*, found torch.int8"),
        ({"widths": "1" * 5000}, "widths: expected .*, found a value of type str$"),
        ({"widths": {8: 1}}, r"widths: expected .*, found \{8: 1\}$"),
        ({"policy": ["outward", "inward"]}, "policy: expected one"),
        ({"turns": 1}, "turns: expected an integer of at least 2"),
        ({"model_turns": 2.5}, "model_turns: expected an integer"),
        ({"threads": 0}, "threads: expected an integer of at least 1"),
        ({"seed": -1}, "seed: expected an integer from 0 to"),
        ({"seed": 2**70}, "seed: expected an integer from 0 to"),
        ({"turns": True}, "turns: expected an integer of at least 2, found True"),
        ({"tokens": 1.0}, "tokens: expected whole numbers from 1"),
        ({"dtypes": 5}, "dtypes: expected one or several of .*, found 5"),
        ({"only": "function", "dtype": "bfloat16"}, "dtype: has no effect with only='function'"),
        ({"only": "function", "model_turns": 3}, "model_turns: has no effect with only='function'"),
        ({"only": "model", "widths": 8}, "widths: has no effect with only='model'"),
        ({"only": "model", "turns": 3}, "turns: has no effect with only='model'"),
        ({"model": ""}, "model: expected a folder"),
        ({"only": "half"}, "only: expected one of function, model, found 'half'"),
        ({"only": "function", "model": "a/model"}, "model: has no effect with only='function'"),
        ({"device": "nonsense"}, "cannot be used here"),
        ({"model": 3}, "model: expected a folder"),
    ],
    ids=str,
)
def test_what_cannot_be_timed_is_refused_before_anything_slow(monkeypatch, arguments, message):
    monkeypatch.setattr("armlet.cost.run.measure_cost", lambda _: pytest.fail("it was measured"))
    with pytest.raises(ArgumentError, match=message):
        bench(**arguments)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype: the model is loaded and keeps its own, float32; leave it out"),
        ({"dtype": "float32"}, "dtype: the model is loaded and keeps its own, float32; leave it out"),
        ({"device": "cpu"}, "model: it is loaded, so it has its dtype and device"),
    ],
    ids=str,
)
def test_a_loaded_model_has_its_dtype_and_device(model, how, message):
    with pytest.raises(ArgumentError, match=f"^{message}"):
        bench(model, **how)


def test_ctrl_c_keeps_complete_rows_and_times_no_model(monkeypatch, capsys):
    rows = list(bench(**FUNCTION, only="function").function)

    def interrupted(*_, **__):
        yield rows[0]
        raise KeyboardInterrupt

    monkeypatch.setattr("armlet.cost.run.time_function", interrupted)
    monkeypatch.setattr("armlet.cost.run.load_or_use", lambda *_, **__: pytest.fail("a model was loaded"))
    cost = bench("some/model", **SMALL)
    assert (cost.function, cost.model, cost.interrupted) == (rows[:1], None, True)
    assert capsys.readouterr().err == "interrupted: this is what there is\n"


def test_ctrl_c_before_the_first_row_leaves_nothing_to_return(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("armlet.cost.run.time_function", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench(**FUNCTION, only="function")


@pytest.mark.parametrize("parts", ["function", "model", "both"])
def test_a_figure_json_and_a_notebook_show_what_was_timed(parts):
    ratios = {f"{label} / without": Spread(1.1, (1.0, 1.2)) for label in ("layer 0", "all layers")}
    calls = {label: Spread(1e-5, (1e-5, 1e-5)) for label in ("layer 0", "all layers")}
    seconds = {"without": 0.5}
    work = [WorkRow("generate", 48, seconds, ratios, calls), WorkRow("prefill", 48, seconds, ratios, None)]
    times = dict.fromkeys(("literal", "arm", "silu", "copy"), 1e-3)
    compared = dict.fromkeys(("literal / arm", "arm / silu", "arm / copy"), Spread(1.5, (1.4, 1.6)))
    rows = [FunctionRow(8, 1, dtype, times, compared) for dtype in ("float32", "bfloat16")]
    model = ModelTimes("a/model", "float32", 2, True, work)
    about = ({"threads": 1, "processor": "a processor"}, "2", "cpu", "cpu", 0, Outward())
    cost = Cost(*about, () if parts == "model" else rows, None if parts == "function" else model, False, 2)
    written = json.loads(json.dumps(cost.to_dict()))
    assert (written["model"] is None) == (parts == "function")
    if parts != "function":
        spread = {"median": 1.1, "quartiles": [1.0, 1.2]}
        assert written["model"]["work"][0]["ratios"]["all layers / without"] == spread
        assert ["calls" in row for row in written["model"]["work"]] == [True, False]
    figure = cost.figure()
    figure.draw_without_rendering()
    assert unlabelled(figure) == []
    panels = [axes.get_title() for part in figure.subfigs for axes in part.axes]
    function = ["float32", "bfloat16"]
    assert panels == {"function": function, "model": ["model, float32"], "both": [*function, "model, float32"]}[parts]
    assert "1 thread of a processor" in figure.get_suptitle()
    html = cost._repr_html_()
    assert html.count("<img") == 1
    assert ("1.100 [1.000, 1.200]" in html) == (parts != "function")


@pytest.mark.parametrize(
    ("ratio", "cell"), [(2.5, "2.5 × faster"), (0.8, "1.25 × slower"), (1.001, "as fast"), (1234, "1,230 × faster")]
)
def test_a_table_never_calls_a_slower_function_faster(ratio, cell):
    """`ratio`: the other operation's time divided by ARM's."""
    spread, inverse = Spread(ratio, (ratio, ratio)), Spread(1 / ratio, (1 / ratio, 1 / ratio))
    ratios = {"literal / arm": spread, "arm / silu": inverse, "arm / copy": inverse}
    row = FunctionRow(8, 1, "float32", {"arm": 1e-3}, ratios)
    cost = Cost({"threads": 1, "processor": "p"}, "2", "cpu", "cpu", 0, Outward(), [row], None, False, 2)
    (table,) = cost_tables(cost)
    assert [[*column.cells] for column in table.columns[-3:]] == [[cell]] * 3


@pytest.mark.slow
def test_importing_the_room_loads_neither_plots_nor_transformers():
    assert not {"matplotlib", "transformers", "scipy"} & set(loaded_beyond_torch("import armlet.cost"))


def test_shapes_in_every_form():
    forms = [
        ("64", "1,2", "float32,bfloat16"),
        (torch.tensor(64), [1, "2"], (torch.float32, "bfloat16")),
        (64, range(1, 3), ["torch.float32", torch.bfloat16]),
    ]
    shapes = Shapes([64], [1, 2], [torch.float32, torch.bfloat16])
    assert [parse_shapes(*form) for form in forms] == [shapes] * 3
    assert parse_shapes(8, 1, torch.float32) == Shapes([8], [1], [torch.float32])
