"""`limits` as a function: it equals its command, leaves a loaded model as it was, resumes, and refuses."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

import armlet.bounds.limits_measure
from armlet import Inward, attach, load_config
from armlet.attachment.config import ARMLET_FILE
from armlet.attachment.placements import placements_content
from armlet.bounds import Limits, limits
from armlet.bounds.limits_measure import LimitBench, LimitTrial
from armlet.bounds.limits_result import placed
from armlet.checkpoints.pretrained import load
from armlet.errors import AlreadyAttachedError, UnsupportedModelError
from armlet.prompts.losses import window_losses
from armlet.redistribution.errors import ArgumentError
from attached import anatomy
from axis_labels import unlabelled
from command_line import result as command
from families import FAMILIES, tiny
from fresh_interpreter import loaded_beyond_torch
from tiny_checkpoints import save, words

TEXT = " ".join(f"w{(7 * at * at + 3 * at) % 61 + 1}" for at in range(400))
SMALL = {"windows": 4, "tokens": 16, "calibration": 2, "headroom": 100.0, "max_cost": 0.02}
PATHS = ("figures", "setting")
RUN = "armlet.bounds.limits_measure.LimitBench.run"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "tiny", intermediate_size=64)


@pytest.fixture
def loaded(folder):
    return load(str(folder))


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    return limits(*load(str(folder)), text=TEXT, run=tmp_path_factory.mktemp("run"), **SMALL)


def state(model):
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return anatomy(model), weights, model.training, model.config.to_dict()


def is_unchanged(model, before):
    now = state(model)
    same = all(torch.equal(tensor, before[1][name]) for name, tensor in now[1].items())
    return same and now[0] == before[0] and now[2:] == before[2:] and list(now[1]) == list(before[1])


@pytest.mark.slow
def test_the_function_gives_what_the_command_prints(folder, loaded):
    options = [part for name, value in SMALL.items() for part in (f"--{name.replace('_', '-')}", value)]
    printed = command("limits", folder, "--data", "text.txt", *options, "--out", "command")
    assert json.loads(Path("command/limits.json").read_text()) == printed
    plain = {key: value for key, value in printed.items() if key not in PATHS}
    for name, model in (("path", [folder]), ("loaded", loaded)):
        measured = limits(*model, data="text.txt", run=name, **SMALL)
        assert isinstance(measured, Limits)
        assert json.loads(json.dumps(measured.to_dict())) == plain


def test_the_result_says_what_it_should(whole):
    content, bound = whole.to_dict(), 448 / 100
    assert content["bound"] == bound
    assert [row["layer"] for row in content["layers"]] == [0, 1, 2]
    for row in content["layers"]:
        value = row["product"]["value"]
        assert row["product"]["headroom"]["e4m3"]["factor"] == 448 / value
        assert 2 ** row["product"]["headroom"]["float16"]["bits"] == pytest.approx(65504 / value)
        assert row["product"]["headroom"]["int8 static"]["factor"] == row["product"]["calibration"] / value
        assert set(row["product"]["headroom"]) >= {"bfloat16", "e5m2", "nvfp4", "q8_1 sum"}
    assert content["all"]["over"] == []
    assert max(content["all"]["largest"]) <= bound
    assert [row["layer"] for row in content["limits"]] == content["all"]["layers"]
    assert len(content["all"]["swiglu_limits"]) == 3


def test_what_a_row_says_of_its_token_is_so(whole, loaded):
    model, tokenizer = loaded
    ids = torch.tensor(tokenizer(TEXT, add_special_tokens=False)["input_ids"][: 4 * 16]).view(4, 16)
    for row in whole.layers:
        peak, seen = row.peaks["product"], []
        handle = model.model.layers[row.layer].mlp.down_proj.register_forward_pre_hook(
            lambda _, args, seen=seen: seen.append(args[0])
        )
        window_losses(model, ids)
        handle.remove()
        rows = torch.cat(seen).abs().amax(-1)
        assert rows[peak.window, peak.position] == rows.max() == peak.value
        assert tokenizer.decode([int(ids[peak.window, peak.position])]) == peak.token


def test_the_costs_are_ratios_of_perplexities_of_the_model_with_these_limits_attached(whole, loaded):
    model, tokenizer = loaded
    ids = torch.tensor(tokenizer(TEXT, add_special_tokens=False)["input_ids"][: 4 * 16]).view(4, 16)
    plain = sum(window_losses(model, ids)) / 4

    def ratio(rows):
        with ExitStack() as stack:
            for row in rows:
                policy = Inward(limit=row.limit.limit, curve=row.limit.curve)
                stack.enter_context(attach(model, policy, layers=row.limit.layer, site=row.limit.site))
            return torch.tensor(sum(window_losses(model, ids)) / 4 - plain, dtype=torch.float64).exp().item()

    assert whole.everything.cost.ratio == pytest.approx(ratio(whole.rows), rel=1e-9)
    for row in whole.rows:
        assert row.alone.ratio == pytest.approx(ratio([row]), rel=1e-9)
        without = [other for other in whole.rows if other is not row]
        assert row.without.ratio == pytest.approx(ratio(without), rel=1e-9)
        assert row.owed.ratio == pytest.approx(whole.everything.cost.ratio / row.without.ratio, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"site": "gate", "curve": "clip"}, {"curve": "clip", "site": "product"}, {}])
def test_what_is_saved_attaches_what_was_measured(options, loaded):
    measured = limits(*loaded, text=TEXT, run="run", **SMALL | {"max_cost": 100.0} | options)
    paths = measured.save("out")
    content = json.loads(Path("out/limits.json").read_text())
    assert {Path(path) for key in PATHS for path in content.pop(key)} == {*paths} - {Path("out/limits.json")}
    assert content == json.loads(json.dumps(measured.to_dict()))
    chosen = measured.recommended.limits
    assert chosen
    assert json.loads(Path("out", ARMLET_FILE).read_text()) == placements_content(placed(chosen))
    with attach(tiny(intermediate_size=64), **load_config("out")) as arm:
        places = {(layer, place["site"], place["policy"]) for place in arm.placements for layer in place["layers"]}
    assert places == {(limit.layer, limit.site, limit.policy) for limit in chosen}
    clamps = {limit.layer: limit.limit for limit in chosen if (limit.site, limit.curve) == ("gate", "clip")}
    assert content["recommended"]["swiglu_limits"] == [clamps.get(layer, 0.0) for layer in range(3)]


def test_a_setting_of_another_origin_is_kept(whole, loaded):
    with attach(loaded[0], "outward") as arm:
        theirs = arm.save("theirs")
    before = theirs.read_bytes()
    with pytest.raises(ArgumentError, match=r"^theirs/armlet\.json: exists and is not this result's setting"):
        whole.save("theirs")
    assert (theirs.read_bytes(), list(Path("theirs").iterdir())) == (before, [theirs])


def test_the_same_call_resumes_in_a_folder_named_after_the_run(loaded, monkeypatch):
    first = limits(*loaded, text=TEXT, **SMALL)
    assert first.folder.parent == Path("armlet-runs")
    monkeypatch.setattr(RUN, lambda *_: pytest.fail("a trial was run again"))
    assert limits(*loaded, text=TEXT, **SMALL).to_dict() == first.to_dict()


def stop_at(count, monkeypatch):
    """Ctrl-C in the middle of the forward call of a trial."""
    real, calls = armlet.bounds.limits_measure.LimitBench.run, []

    def run(bench, *trial):
        calls.append(trial)
        if len(calls) == count:

            def stop(*_):
                handle.remove()
                raise KeyboardInterrupt

            handle = bench.downs[1].register_forward_pre_hook(stop)
        return real(bench, *trial)

    monkeypatch.setattr(RUN, run)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 9, -4, -1], ids="trial {}".format)
def test_ctrl_c_anywhere_keeps_what_there_is_and_the_resumed_run_is_the_whole_one(count, loaded, monkeypatch, whole):
    model, before = loaded[0], state(loaded[0])
    trials = len(Path(whole.folder, "items.jsonl").read_text().splitlines())
    count = count if count > 0 else trials + 1 + count
    assert count <= trials
    with monkeypatch.context() as patch:
        stop_at(count, patch)
        if count < 3:  # no headroom yet
            with pytest.raises(KeyboardInterrupt):
                limits(*loaded, text=TEXT, run="run", **SMALL)
        else:
            partial = limits(*loaded, text=TEXT, run="run", **SMALL)
            assert partial.interrupted
            assert partial.to_dict()["layers"] == whole.to_dict()["layers"]
            partial._repr_html_()
            kept = Path("run", ARMLET_FILE)
            partial.save("run")
            assert not kept.exists() or json.loads(kept.read_text()) == placements_content(
                placed(whole.recommended.limits)
            )
    assert is_unchanged(model, before)
    resumed = limits(*loaded, text=TEXT, run="run", **SMALL)
    assert resumed.to_dict() == whole.to_dict()
    resumed.save("run")


def test_a_loaded_model_is_as_it_was_after_a_run_and_that_test_can_fail(loaded):
    model, before = loaded[0], state(loaded[0])
    limits(*loaded, text=TEXT, **SMALL)
    assert is_unchanged(model, before)
    model.model.layers[0].mlp.down_proj.register_forward_pre_hook(lambda *_: None)
    assert not is_unchanged(model, before)


@pytest.mark.slow
def test_a_model_without_large_values_needs_no_limit(loaded):
    measured = limits(*loaded, text=TEXT, **SMALL | {"headroom": 1e-3})
    assert (measured.rows, measured.everything.layers, measured.everything.cost.ratio) == ([], (), 1.0)
    (sentence,) = measured.sentences()
    assert sentence == "No layer needs a limit: no product on calibration text, times the margin, exceeds 448000"
    paths = measured.save("out")
    assert ARMLET_FILE not in {path.name for path in paths}
    figure = measured.figure()
    figure.draw_without_rendering()
    assert unlabelled(figure) == []


@pytest.mark.slow
def test_a_figure_with_limits_labels_its_axes(whole):
    figure = whole.figure()
    figure.draw_without_rendering()
    assert unlabelled(figure) == []
    assert whole._repr_html_().count("<img") == 1
    assert "Headroom of the product in bits" in repr(whole)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "deepseek_v3"])
def test_every_dense_family_is_limited_and_put_back(family):
    model = tiny(family)
    before = anatomy(model)
    bench = LimitBench(model, {"calibration": torch.arange(2, 34).view(2, 16)}, 1.0)
    free = bench.run(LimitTrial("calibration"))
    from armlet.bounds.limits_measure import Limit

    cut = tuple(Limit(layer, "product", "clip", free.largest(layer) / 2) for layer in free.peaks)
    limited = bench.run(LimitTrial("calibration", cut))
    assert all(limited.largest(limit.layer) <= limit.limit * (1 + 1e-6) for limit in cut)
    assert anatomy(model) == before


def test_a_mixture_of_experts_is_refused_in_one_line():
    with pytest.raises(UnsupportedModelError, match="is a mixture of experts") as caught:
        limits(tiny("mixtral"), words(), text=TEXT, **SMALL)
    assert "\n" not in str(caught.value)
    assert not Path("armlet-runs").exists()


def test_a_model_with_arm_is_refused_and_keeps_it(loaded):
    with attach(loaded[0], Inward()) as arm, pytest.raises(AlreadyAttachedError, match="limits: "):
        limits(*loaded, text=TEXT, **SMALL)
    assert arm.state == "detached"


def test_values_that_are_not_finite_are_refused_with_their_layer(loaded):
    with torch.no_grad():
        loaded[0].model.layers[1].mlp.up_proj.weight.mul_(1e30)
        loaded[0].model.layers[1].mlp.gate_proj.weight.mul_(1e30)
    with pytest.raises(ArgumentError, match=r"layer 1: .* is not finite in float32, even without limits"):
        limits(*loaded, text=TEXT, **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": 1}, "windows: expected an integer of at least 2, found 1"),
        ({"calibration": 0}, "calibration: expected an integer of at least 1, found 0"),
        ({"format": "int8"}, "format: expected one of e4m3, e5m2, float16, bfloat16, nvfp4, q8_1, found 'int8'"),
        ({"headroom": 0}, "headroom: expected a number of at least 9.53674e-07, found 0"),
        ({"headroom": float("inf")}, "headroom: expected a number"),
        ({"margin": 0.5}, "margin: expected a number of at least 1, found 0.5"),
        ({"max_cost": -0.1}, "max_cost: expected a number of at least 0, found -0.1"),
        ({"max_cost": float("nan")}, "max_cost: expected a number"),
        ({"site": "up"}, "site: expected one of gate, product, found 'up'"),
        ({"curve": "tanh"}, "curve: expected one of clip, log, found 'tanh'"),
        ({"run": 5}, "run: expected a path, found 5"),
        ({"seed": -1}, "seed: expected an integer from 0 to"),
        ({"dtype": "int8"}, "dtype: expected auto, float32"),
        ({"data": "absent.txt"}, "data: absent.txt cannot be read"),
        ({"data": "text.txt", "text": TEXT}, "data, text: expected a file or the text itself, found both"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_refused_before_a_model_is_loaded(options, message):
    with pytest.raises(ArgumentError) as caught:
        limits("no such model", **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_importing_the_room_loads_neither_plotting_nor_transformers():
    modules = loaded_beyond_torch("import armlet.bounds")
    assert "armlet" in modules
    assert not {"matplotlib", "transformers", "scipy"} & {*modules}
