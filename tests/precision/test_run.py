"""`quantize` as a function: it equals its command, leaves a loaded model as it was, resumes, and refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import armlet.precision.measure
from armlet import Inward, attach
from armlet.attachment.config import ARMLET_FILE
from armlet.checkpoints.folder import abacus
from armlet.checkpoints.pretrained import load
from armlet.errors import AlreadyAttachedError
from armlet.precision import Precision, quantize
from armlet.precision.measure import Contraction
from armlet.redistribution.errors import ArgumentError
from armlet.runs.folder import RunError
from attached import anatomy
from command_line import result as command
from fresh_interpreter import loaded_beyond_torch
from tiny_checkpoints import save

TEXT = " ".join(f"w{(7 * at * at + 3 * at) % 61 + 1}" for at in range(400))
SMALL = {"windows": 3, "tokens": 8, "calibration": 1}
PATHS = ("figures", "setting")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def loaded(folder):
    return load(str(folder))


@pytest.fixture(scope="module")
def precision(folder, tmp_path_factory):
    return quantize(*load(str(folder)), text=TEXT, run=tmp_path_factory.mktemp("run"), **SMALL)


def state(model):
    """Everything about a model that a run might change."""
    weights = {name: (tensor.dtype, tensor.clone()) for name, tensor in model.state_dict().items()}
    return anatomy(model), weights, model.training, model.config.to_dict()


def is_unchanged(model, before):
    now = state(model)
    same = all(torch.equal(tensor, before[1][name][1]) for name, (_, tensor) in now[1].items())
    return same and now[0] == before[0] and now[2:] == before[2:] and list(now[1]) == list(before[1])


@pytest.mark.slow
def test_the_function_gives_what_the_command_prints_from_a_path_and_from_a_loaded_model(folder, loaded):
    options = [part for name, value in SMALL.items() for part in (f"--{name}", value)]
    printed = command("quantize", folder, "--data", "text.txt", *options, "--out", "command")
    without_paths = {key: value for key, value in printed.items() if key not in PATHS}
    assert json.loads(Path("command/quantize.json").read_text()) == printed
    for name, model in (("path", [folder]), ("loaded", loaded)):
        measured = quantize(*model, data="text.txt", run=name, **SMALL)
        assert isinstance(measured, Precision)
        assert json.loads(json.dumps(measured.to_dict())) == without_paths
        assert str(measured.folder) == name
    manifests = [json.loads(Path(name, "manifest.json").read_text()) for name in ("command", "path", "loaded")]
    assert manifests[0] == manifests[1]
    # A loaded model is identified by its tensors, a path by its files.
    assert manifests[2].pop("engine")["sha256"] != manifests[0].pop("engine")["sha256"]
    assert manifests[2] == manifests[0]


@pytest.mark.slow
def test_a_saved_result_is_its_dictionary_and_the_paths(precision):
    paths = precision.save("out")
    content = json.loads(Path("out/quantize.json").read_text())
    assert {Path(path) for key in PATHS for path in content.pop(key)} == {*paths} - {Path("out/quantize.json")}
    assert content == json.loads(json.dumps(precision.to_dict()))
    assert (Path("out", ARMLET_FILE) in paths) == (precision.contraction is not None)


@pytest.mark.slow
@pytest.mark.parametrize("contraction", [None, Contraction(Inward(), "gate", "token", (1,))], ids=["none", "another"])
def test_saving_never_replaces_or_removes_a_setting_of_another_origin(precision, loaded, contraction):
    with attach(loaded[0], "outward") as arm:
        theirs = arm.save("theirs")
    before = theirs.read_bytes()
    with pytest.raises(ArgumentError, match=r"^theirs/armlet\.json: exists and is not this result's setting"):
        replace(precision, contraction=contraction).save("theirs")
    assert theirs.read_bytes() == before
    assert list(Path("theirs").iterdir()) == [theirs]
    first = replace(precision, contraction=contraction).save("ours")
    assert replace(precision, contraction=contraction).save("ours") == first


@pytest.mark.slow
def test_a_notebook_shows_the_tables_the_sentences_and_one_figure(precision):
    html = precision._repr_html_()
    assert html.count("<img") == 1
    assert all(str(row.scheme) in html for row in precision.rows if row.scheme)
    assert "An alternative is shown to do better than compand" in html
    assert "Perplexity by scheme and method" in repr(precision)


@pytest.mark.slow
def test_the_same_call_resumes_in_a_folder_named_after_the_run(loaded, monkeypatch):
    first = quantize(*loaded, text=TEXT, **SMALL)
    assert first.folder.parent == Path("armlet-runs")
    monkeypatch.setattr("armlet.precision.measure.Bench.run", lambda *_: pytest.fail("a trial was run again"))
    assert quantize(*loaded, text=TEXT, **SMALL).to_dict() == first.to_dict()


def stop_at(count, error, monkeypatch):
    """Raises an error in the middle of the forward call of a trial."""
    real, calls = armlet.precision.measure.Bench.run, []

    def run(bench, trial):
        calls.append(trial)
        if len(calls) == count:
            handle = bench.downs[1].register_forward_pre_hook(lambda *_: raise_and_remove(handle, error))
        return real(bench, trial)

    monkeypatch.setattr("armlet.precision.measure.Bench.run", run)


def raise_and_remove(handle, error):
    handle.remove()
    raise error


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("CUDA out of memory")], ids=["Ctrl-C", "error"])
@pytest.mark.parametrize("count", [1, 5, 30])
def test_a_loaded_model_is_as_it_was_after_an_error_or_ctrl_c(count, error, loaded, monkeypatch):
    model, before = loaded[0], state(loaded[0])
    stop_at(count, error, monkeypatch)
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        quantize(*loaded, text=TEXT, run="run", **SMALL)
    assert is_unchanged(model, before)


@pytest.mark.slow
def test_a_loaded_model_is_as_it_was_after_a_run_and_that_test_can_fail(loaded):
    model, before = loaded[0], state(loaded[0])
    quantize(*loaded, text=TEXT, **SMALL)
    assert is_unchanged(model, before)
    model.model.layers[0].mlp.down_proj.register_forward_pre_hook(lambda *_: None)
    assert not is_unchanged(model, before)


@pytest.mark.slow
def test_ctrl_c_returns_the_finished_schemes_or_raises_if_there_are_none(loaded, monkeypatch, capsys):
    real = armlet.precision.measure.Bench.run

    def interrupted(bench, trial):
        if trial.text == "held-out" and str(trial.scheme) == last and trial.layers is None:
            raise KeyboardInterrupt
        return real(bench, trial)

    monkeypatch.setattr("armlet.precision.measure.Bench.run", interrupted)
    last = "int8 static"  # the first scheme
    with pytest.raises(KeyboardInterrupt):
        quantize(*loaded, text=TEXT, run="run", **SMALL)
    last = "int8 tensor"
    partial = quantize(*loaded, text=TEXT, run="run", **SMALL)
    assert partial.interrupted
    assert {str(row.scheme) for row in partial.rows} == {"None", "int8 static"}
    assert capsys.readouterr().err.count("interrupted: the same command or call resumes the run in run\n") == 2
    partial._repr_html_()
    last = None
    assert not quantize(*loaded, text=TEXT, run="run", **SMALL).interrupted


@pytest.mark.slow
def test_a_changed_weight_is_another_run(loaded):
    quantize(*loaded, text=TEXT, run="run", **SMALL)
    loaded[0].lm_head.weight.data[0, 0] += 1
    with pytest.raises(RunError, match=r"contains another run \(the model, its weights"):
        quantize(*loaded, text=TEXT, run="run", **SMALL)


@pytest.mark.slow
def test_a_model_with_arm_is_refused_and_keeps_it(loaded):
    with attach(loaded[0], Inward()) as arm:
        with pytest.raises(AlreadyAttachedError, match="quantize: "):
            quantize(*loaded, text=TEXT, **SMALL)
        loaded[0](torch.tensor([[1, 2]]))
        assert arm.report()[0]["calls"] == 1
    assert not Path("armlet-runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": 1}, "windows: expected an integer of at least 2, found 1"),
        ({"windows": 2.5}, "windows: expected an integer of at least 2, found 2.5"),
        ({"windows": None}, "windows: expected an integer of at least 2, found None"),
        ({"tokens": 1}, "tokens: expected an integer of at least 2, found 1"),
        ({"calibration": 0}, "calibration: expected an integer of at least 1, found 0"),
        ({"limit": 1.5}, "limit: expected a number from 0 to 1, found 1.5"),
        ({"limit": float("nan")}, "limit: expected a number from 0 to 1, found nan"),
        ({"limit": True}, "limit: expected a number from 0 to 1, found True"),
        ({"run": 5}, "run: expected a path, found 5"),
        ({"site": "up"}, "site: expected one of gate, product, found 'up'"),
        ({"seed": -1}, "seed: expected an integer from 0 to"),
        ({"dtype": "int8"}, "dtype: expected auto, float32"),
        ({"data": "absent.txt"}, "data: absent.txt cannot be read"),
        ({"data": 3}, "data: expected a path, found 3"),
        ({"text": Path("text.txt")}, "text: expected a str, found "),
        ({"data": "text.txt", "text": TEXT}, "data, text: expected a file or the text itself, found both"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_refused_before_a_model_is_loaded(options, message):
    with pytest.raises(ArgumentError) as caught:
        quantize("no such model", **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_abacus_is_measured_on_problems_under_its_name_and_loaded():
    by_name = quantize("abacus", run="name", **SMALL | {"tokens": 48})
    loaded = quantize(*load(str(abacus())), run="loaded", **SMALL | {"tokens": 48})
    assert loaded.rows == by_name.rows
    assert by_name.rows[0].perplexity < 1.1  # on prose it would be in the thousands


@pytest.mark.slow
def test_importing_the_room_loads_neither_plotting_nor_transformers():
    modules = loaded_beyond_torch("import armlet.precision")
    assert "armlet" in modules
    assert not {"matplotlib", "transformers", "scipy"} & {*modules}
