"""`armlet limits`: one run in JSON, tables and figure; resuming after a kill; refusals in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import armlet.bounds.limits_measure
from armlet.attachment.config import ARMLET_FILE
from armlet.bounds.limits_plan import LimitsOptions
from armlet.checkpoints.pretrained import load
from armlet.prompts.texts import PASSAGES
from command_line import result, run, shown
from tiny_checkpoints import save

TEXT = " ".join(f"w{(7 * at * at + 3 * at) % 61 + 1}" for at in range(400))
ASKED = ("--data", "text.txt", "--windows", 4, "--tokens", 16, "--calibration", 2, "--headroom", 100)
RUN = "armlet.bounds.limits_measure.LimitBench.run"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("text.txt").write_text(TEXT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "tiny", intermediate_size=64)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """The result and the folder of a run, in which the text is."""
    at = tmp_path_factory.mktemp("run")
    (at / "text.txt").write_text(TEXT)
    before = Path.cwd()
    os.chdir(at)
    try:
        return result("limits", folder, *ASKED, "--out", "here"), at / "here"
    finally:
        os.chdir(before)


def results(at):
    """The bytes of the files of a run, other than the lock and what names the machine."""
    return {path.name: path.read_bytes() for path in at.iterdir() if path.name not in ("lock", "manifest.json")}


def test_stdout_is_the_file_and_the_folder_has_the_journal_and_the_figure(whole):
    content, out = whole
    assert json.loads((out / "limits.json").read_text()) == content
    written = {file.name for file in out.iterdir()} - {ARMLET_FILE}
    assert written == {"limits.png", "limits.svg", "limits.json", "manifest.json", "items.jsonl", "lock"}
    assert (out / "limits.png").read_bytes().startswith(b"\x89PNG\r\n")


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(whole, folder):
    code = "from armlet.cli import main; main()"
    command = [sys.executable, "-c", code, "limits", folder, *ASKED, "--out", "here"]
    process = subprocess.Popen([str(part) for part in command], env=os.environ | {"PYTHONPATH": ":".join(sys.path)})
    items = Path("here/items.jsonl")
    while not (items.exists() and items.read_bytes().count(b"\n") > 4):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not Path("here/limits.json").exists()
    result("limits", folder, *ASKED, "--out", "here")
    assert results(Path("here")) == results(whole[1])


@pytest.mark.slow
def test_the_same_command_shows_the_same_without_running(whole, folder, monkeypatch):
    monkeypatch.chdir(whole[1].parent)
    monkeypatch.setattr(RUN, lambda *_: pytest.fail("a trial was run again"))
    lines = shown("limits", folder, *ASKED, "--out", "here").splitlines()
    for title in ("Largest magnitudes, held-out text", "Headroom of the product in bits, held-out text"):
        assert title in lines
    assert any(line.startswith("all limits, layers 0, 1, 2: perplexity ") for line in lines)


@pytest.mark.slow
def test_ctrl_c_exits_with_130_and_what_there_is(whole, folder, monkeypatch):
    real = armlet.bounds.limits_measure.LimitBench.run

    def interrupted(bench, trial, *scales):
        if trial.limits:
            raise KeyboardInterrupt
        return real(bench, trial, *scales)

    monkeypatch.setattr(RUN, interrupted)
    code, out, err = run("limits", folder, *ASKED, "--out", "here", "--json")
    content = json.loads(out)
    assert (code, content["interrupted"], content["layers"]) == (130, True, whole[0]["layers"])
    assert [content[key] for key in ("limits", "all", "recommended")] == [[], None, None]
    assert "interrupted: the same command or call resumes the run in here" in err


def test_ctrl_c_before_anything_is_measured_shows_no_result(folder, monkeypatch):
    monkeypatch.setattr(RUN, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    code, out, err = run("limits", folder, *ASKED, "--out", "here")
    assert (code, out) == (130, "")
    assert err.endswith("interrupted: there is no result\n")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (("--format", "e5m2"), '--format was "e4m3", is "e5m2"'),
        (("--max-cost", 0.5), "--max-cost was 0.01, is 0.5"),
        (("--site", "gate"), '--site was null, is "gate"'),
    ],
)
def test_another_run_in_the_same_folder_is_refused(other, message, whole, folder, monkeypatch):
    monkeypatch.chdir(whole[1].parent)
    code, _, err = run("limits", folder, *ASKED, *other, "--out", "here")
    assert code == 2
    assert f"contains another run ({message})" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "absent.txt"), "--data: absent.txt cannot be read (No such file or directory)"),
        (("--data", "text.txt", "--tokens", 100), "the text has 400 tokens, but 24 held-out and 8 calibration"),
        (("--tokens", 10**6), "--tokens: expected at most "),
        (("--dtype", "int8"), "--dtype: expected auto, float32"),
        (("--max-cost", "nan"), "Invalid value for '--max-cost'"),
        (("--out", "text.txt"), "--out: text.txt cannot be written"),
    ],
)
def test_bad_input_is_one_line(arguments, message, folder):
    code, out, err = run("limits", folder, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"armlet: {message}")


def test_a_mixture_of_experts_is_one_line(tmp_path):
    code, out, err = run("limits", save(tmp_path / "mixture", "mixtral"), *ASKED, "--out", "here")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is a mixture of experts" in err


@pytest.mark.slow
def test_the_built_in_text_is_long_enough_for_the_defaults(smollm2_folder):
    _, tokenizer = load(str(smollm2_folder))
    options = LimitsOptions()
    needed = (options.windows + options.calibration) * options.tokens
    assert needed <= len(tokenizer(PASSAGES.read_text(encoding="utf-8"))["input_ids"])


@pytest.mark.slow
def test_smollm2s_products_fit_e4m3_with_all_limits_and_layer_11_is_found(smollm2_folder):
    content = result("limits", smollm2_folder, "--windows", 2, "--calibration", 1, "--out", "here")
    assert max(content["all"]["largest"]) <= 448
    assert {11, 28} <= {*content["all"]["layers"]}
    row = content["layers"][11]["product"]
    assert (row["position"], row["token"]) == (0, "<|im_start|>")
    assert row["headroom"]["e4m3"]["bits"] < -2
