"""`armlet quantize`: one run in JSON, table and figure; resuming; refusals in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import armlet.precision.measure
from armlet import attach, load_config
from armlet.attachment.config import ARMLET_FILE
from armlet.precision.choice import CONTRACT, CONTRACTIONS, ROUNDED, TRANSFORMS, WORST_KEPT
from armlet.precision.measure import Contraction
from armlet.precision.plan import PrecisionOptions
from armlet.precision.result import save_setting
from armlet.precision.schemes import SCHEMES
from armlet.redistribution import Inward
from armlet.statistics.comparison import compare
from command_line import result, run, shown
from families import tiny
from tiny_checkpoints import save

TEXT = " ".join(f"w{(7 * at * at + 3 * at) % 61 + 1}" for at in range(400))
ASKED = ("--data", "text.txt", "--windows", 6, "--tokens", 16, "--calibration", 2)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("text.txt").write_text(TEXT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """The result and the folder of a run."""
    at = tmp_path_factory.mktemp("run")
    (at / "text.txt").write_text(TEXT)
    before = Path.cwd()
    os.chdir(at)
    try:
        return result("quantize", folder, *ASKED, "--out", "here"), at / "here"
    finally:
        os.chdir(before)


def numbers(found):
    """The result without its paths."""
    return {name: value for name, value in found.items() if name not in ("figures", "setting")}


@pytest.mark.slow
def test_the_result_holds_every_method_at_every_code(whole):
    found, out = whole
    assert json.loads((out / "quantize.json").read_text()) == found
    rounded = [row for row in found["rows"] if row["code"] != "none"]
    names = [*TRANSFORMS, WORST_KEPT, *([CONTRACT] if found["setting"] else [])]
    assert [(row["code"], row["method"]) for row in rounded] == [(str(s), name) for s in SCHEMES for name in names]
    assert found["rows"][0]["method"] == "full precision"
    assert (found["windows"], found["tokens"], found["calibration"], found["limit"]) == (6, 16, 2, 0.01)
    for row in found["rows"]:
        assert row["low"] <= row["ratio"] <= row["high"]
        assert row["ratio"] == pytest.approx(row["perplexity"] / found["rows"][0]["perplexity"])
    assert {row["recovered"] for row in rounded if row["method"] == "round to nearest"} <= {0.0, None}
    assert [row["layer"] for row in found["layers"]] == [0, 1, 2]


@pytest.mark.slow
def test_the_figure_is_written_twice_and_nothing_else_but_the_journal(whole):
    found, out = whole
    assert [Path(path).name for path in found["figures"]] == ["quantize.png", "quantize.svg"]
    assert (out / "quantize.png").read_bytes().startswith(b"\x89PNG\r\n")
    written = {file.name for file in out.iterdir()} - {ARMLET_FILE}
    assert written == {"quantize.png", "quantize.svg", "quantize.json", "manifest.json", "items.jsonl", "lock"}


@pytest.mark.slow
def test_the_same_command_goes_on_and_shows_the_same(whole, folder, monkeypatch):
    found, out = whole
    monkeypatch.chdir(out.parent)
    monkeypatch.setattr("armlet.precision.measure.Bench.run", lambda *_: pytest.fail("a trial was run again"))
    lines = shown("quantize", folder, *ASKED, "--out", "here").splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("An alternative is shown to do better than "))
    assert lines[first:][: len(found["headline"])] == found["headline"]
    table = next(at for at, line in enumerate(lines) if line.startswith("scheme "))
    codes = list(dict.fromkeys(row["code"] for row in found["rows"] if row["method"] != "full precision"))
    assert [line[:12].strip() for line in lines[table + 2 :][: len(codes)]] == codes
    assert max(len(line) for line in lines[table:][: len(codes) + 2]) <= 80


@pytest.mark.slow
def test_a_site_that_is_asked_for_is_the_only_one(folder):
    found = result("quantize", folder, *ASKED, "--limit", 1, "--site", "gate", "--out", "new")
    settings = [row["setting"] for row in found["layers"] if row["setting"]]
    assert (found["site"], found["rows"][1]["method"]) == ("gate", CONTRACT)
    assert settings
    assert all(", gate, " in each for each in settings)
    with attach(tiny(), **load_config("new")) as arm:
        assert arm.site == "gate"


@pytest.mark.slow
def test_ctrl_c_keeps_what_there_is_and_the_same_command_goes_on(whole, folder, monkeypatch):
    real, calls = armlet.precision.measure.Bench.run, []

    def interrupted(bench, trial):
        calls.append(trial)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return real(bench, trial)

    monkeypatch.setattr("armlet.precision.measure.Bench.run", interrupted)
    code, out, err = run("quantize", folder, *ASKED, "--out", "here", "--json")
    assert (code, out) == (130, "")
    assert err == "interrupted: the same command or call resumes the run in here\ninterrupted: there is no result\n"
    assert numbers(result("quantize", folder, *ASKED, "--out", "here")) == numbers(whole[0])
    keys = [trial.key for trial in calls]
    assert len(keys) == len(set(keys)) + 1  # the one that was cut off is run again, and no other


@pytest.mark.slow
def test_ctrl_c_after_the_first_code_shows_that_code(whole, folder, monkeypatch):
    real = armlet.precision.measure.Bench.run

    def interrupted(bench, trial):
        if trial.text == "held-out" and str(trial.scheme) == "int8 tensor" and trial.layers is None:
            raise KeyboardInterrupt
        return real(bench, trial)

    monkeypatch.setattr("armlet.precision.measure.Bench.run", interrupted)
    code, out, _ = run("quantize", folder, *ASKED, "--out", "here", "--json")
    found = json.loads(out)
    assert (code, found["interrupted"]) == (130, True)
    assert found["rows"] == [row for row in whole[0]["rows"] if row["code"] in ("none", "int8 static")]


@pytest.mark.slow
def test_ctrl_c_before_the_first_code_is_complete_shows_no_result(folder, monkeypatch):
    real = armlet.precision.measure.Bench.run

    def interrupted(bench, trial):
        if trial.text == "held-out" and str(trial.scheme) == "int8 static":  # the first code
            raise KeyboardInterrupt
        return real(bench, trial)

    monkeypatch.setattr("armlet.precision.measure.Bench.run", interrupted)
    code, out, err = run("quantize", folder, *ASKED, "--out", "here")
    assert (code, out) == (130, "")
    assert err == "interrupted: the same command or call resumes the run in here\ninterrupted: there is no result\n"


@pytest.mark.slow
def test_a_killed_run_goes_on(whole, folder):
    command = [
        sys.executable,
        "-c",
        "from armlet.cli import main; main()",
        "quantize",
        folder,
        *ASKED,
        "--out",
        "killed",
    ]
    process = subprocess.Popen([str(part) for part in command], env=os.environ | {"PYTHONPATH": ":".join(sys.path)})
    items = Path("killed/items.jsonl")
    while not (items.exists() and items.read_bytes().count(b"\n") > 5):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert numbers(result("quantize", folder, *ASKED, "--out", "killed")) == numbers(whole[0])


@pytest.mark.parametrize(
    ("other", "message"),
    [(("--limit", 0.5), "--limit was 0.01, is 0.5"), (("--site", "gate"), '--site was null, is "gate"')],
)
def test_another_run_in_the_same_folder_is_refused(other, message, whole, folder, monkeypatch):
    monkeypatch.chdir(whole[1].parent)
    code, _, err = run("quantize", folder, *ASKED, *other, "--out", "here")
    assert code == 2
    assert f"contains another run ({message})" in err


@pytest.mark.slow
def test_a_folder_named_with_a_slash_at_its_end_is_the_same_run(whole, folder, monkeypatch):
    monkeypatch.chdir(whole[1].parent)
    monkeypatch.setattr("armlet.precision.measure.Bench.run", lambda *_: pytest.fail("a trial was run again"))
    assert numbers(result("quantize", f"{folder}/", *ASKED, "--out", "here")) == numbers(whole[0])


def trial_lines(*command):
    return [line for line in run(*command)[2].splitlines() if line.startswith("running trials")]


@pytest.mark.slow
def test_without_a_terminal_there_is_a_line_of_progress_now_and_then(folder, monkeypatch):
    monkeypatch.setattr("armlet.presentation.terminal.FIRST_LINE_SECONDS", 0)
    monkeypatch.setattr("armlet.presentation.progress.LINE_SECONDS", 0.01)
    err = trial_lines("quantize", folder, *ASKED, "--out", "here", "--json")
    journal = Path("here/items.jsonl")
    finished = [int(line.removeprefix("running trials: ").partition(" of ")[0]) for line in err]
    assert finished == sorted(finished)
    assert (finished[0], len(set(finished)) > 10) == (0, True)
    kept = journal.read_text().splitlines(keepends=True)[:-1]
    journal.write_text("".join(kept))
    again = trial_lines("quantize", folder, *ASKED, "--out", "here", "--json")
    assert again[0].startswith(f"running trials: {len(kept)} of ")


def test_the_chosen_setting_attaches_from_its_file(tmp_path):
    chosen = Contraction(Inward(knee=0.99, curve="clip"), "gate", "token", (0, 2))
    (path,) = save_setting(chosen, tmp_path)
    with attach(tiny(), **load_config(path)) as arm:
        assert (arm.policy, arm.site, arm.scope, arm.layers) == (
            Inward(knee=0.99, curve="clip"),
            "gate",
            "token",
            [0, 2],
        )
    assert save_setting(chosen, tmp_path) == [path]  # again
    assert save_setting(None, tmp_path / "none") == []


@pytest.mark.parametrize("contraction", CONTRACTIONS, ids=lambda each: f"{each.site}-{each.scope}-{each.policy}")
def test_every_contraction_that_may_be_chosen_can_be_kept(contraction, tmp_path):
    save_setting(Contraction(contraction.policy, contraction.site, contraction.scope, (1,)), tmp_path)
    with attach(tiny(), **load_config(tmp_path)) as arm:
        assert (arm.policy, arm.site, arm.layers) == (contraction.policy, contraction.site, [1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "absent.txt"), "--data: absent.txt cannot be read (No such file or directory)"),
        (("--data", "binary"), "--data: binary is not a UTF-8 text"),
        (
            ("--data", "text.txt", "--tokens", 100),
            "the text has 400 tokens, but 24 held-out and 4 calibration",
        ),
        (("--data", "text.txt", "--device", "meta"), "--device: 'meta' has no values"),
        (("--tokens", 10**6), "--tokens: expected at most "),
        (("--dtype", "int8"), "--dtype: expected auto, float32"),
        (("--out", "text.txt"), "--out: text.txt cannot be written"),
    ],
)
def test_bad_input_is_one_line(arguments, message, folder):
    Path("binary").write_bytes(b"\xff\xfe\x00")
    code, out, err = run("quantize", folder, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"armlet: {message}")


def test_a_model_whose_loss_is_no_number_is_told_before_anything_is_chosen(tmp_path):
    weights = save(tmp_path / "nan") / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.layers.1.mlp.down_proj.weight"][0, 0] = torch.nan
    save_file(tensors, weights, {"format": "pt"})
    code, out, err = run("quantize", weights.parent, *ASKED, "--out", "here")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is not finite even without rounding" in err
    assert Path("here/items.jsonl").read_text().count("\n") == 1


def test_intervals_over_as_many_windows_as_the_default_are_bootstrapped():
    windows = PrecisionOptions().windows
    differences = [0.01 * at for at in range(windows)]  # none equal to another
    assert compare([0.0] * windows, differences).method.startswith("BCa")


@pytest.mark.slow
def test_on_abacus_companding_recovers_what_rounding_to_four_bits_costs():
    found = result("quantize", "abacus", "--windows", 20, "--tokens", 48, "--out", "here")
    rows = {(row["code"], row["method"]): row for row in found["rows"]}
    # At int4 token rounding costs abacus under 1 %, too little for a share of it to mean much over 20 windows.
    # At int4 tensor it costs more, though unevenly: the interval over 20 windows leaves room for no gap.
    nearest, companded = (rows["int4 tensor", name]["perplexity"] for name in (ROUNDED, "compand"))
    assert nearest - companded >= 0.8 * (nearest - found["rows"][0]["perplexity"])
    assert rows["int8 tensor", "compand"]["high"] < 1.01
