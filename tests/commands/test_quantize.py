"""`armlet quantize`: one run in JSON, table and figure; it goes on where it was cut short; refusals of one line."""

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from inspect import signature
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

import armlet.precision.measure
from armlet import attach, load_config
from armlet.attachment.config import CONFIG_FILE
from armlet.commands.quantize import _save_setting, quantize
from armlet.precision.choice import (
    CANDIDATES,
    CONTRACT,
    CONTRACTIONS,
    KEPT,
    REFERENCES,
    ROUNDED,
    Chosen,
    LayerGain,
    Method,
)
from armlet.precision.codes import CODES
from armlet.precision.figures import draw
from armlet.precision.findings import _curve, cautions, headline, layer_rows, ratio, rounded
from armlet.precision.measure import Contraction
from armlet.precision.tables import layers_table, short
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
    """One run: its result, and the folder."""
    at = tmp_path_factory.mktemp("run")
    (at / "text.txt").write_text(TEXT)
    before = Path.cwd()
    os.chdir(at)
    try:
        return result("quantize", folder, *ASKED, "--out", "here"), at / "here"
    finally:
        os.chdir(before)


def numbers(found):
    """All but where it was written."""
    return {name: value for name, value in found.items() if name not in ("figures", "setting")}


def test_the_result_holds_every_method_at_every_code(whole):
    found, out = whole
    assert json.loads((out / "quantize.json").read_text()) == found
    rounded = [row for row in found["rows"] if row["code"] != "none"]
    names = [*CANDIDATES, KEPT, *([CONTRACT] if found["setting"] else [])]
    assert [(row["code"], row["method"]) for row in rounded] == [(str(code), name) for code in CODES for name in names]
    assert found["rows"][0]["method"] == "full precision"
    assert (found["windows"], found["tokens"], found["calibration"], found["limit"]) == (6, 16, 2, 0.01)
    for row in found["rows"]:
        assert row["low"] <= row["ratio"] <= row["high"]
        assert row["ratio"] == pytest.approx(row["perplexity"] / found["rows"][0]["perplexity"])
    assert {row["recovered"] for row in rounded if row["method"] == "round to nearest"} <= {0.0, None}
    assert [row["layer"] for row in found["layers"]] == [0, 1, 2]


def test_the_figure_is_written_twice_and_nothing_else_but_the_journal(whole):
    found, out = whole
    assert [Path(path).name for path in found["figures"]] == ["quantize.png", "quantize.svg"]
    assert (out / "quantize.png").read_bytes().startswith(b"\x89PNG\r\n")
    written = {file.name for file in out.iterdir()} - {CONFIG_FILE}
    assert written == {"quantize.png", "quantize.svg", "quantize.json", "manifest.json", "items.jsonl", "lock"}


def test_a_figure_of_rounding_that_changes_nothing_is_drawn_without_a_warning(whole):
    same = [row | {"perplexity": 5.0, "low": 1.0, "high": 1.0} for row in whole[0]["rows"]]
    draw(same, whole[0]["layers"]).draw_without_rendering()


def test_the_same_command_goes_on_and_shows_the_same(whole, folder, monkeypatch):
    found, out = whole
    monkeypatch.chdir(out.parent)
    monkeypatch.setattr("armlet.precision.measure.Bench.run", lambda *_: pytest.fail("a trial was run again"))
    lines = shown("quantize", folder, *ASKED, "--out", "here").splitlines()
    assert lines[0].startswith("An alternative is shown to do better than compand at ")
    assert lines[: len(found["headline"])] == found["headline"]
    table = next(at for at, line in enumerate(lines) if line.startswith("code "))
    codes = list(dict.fromkeys(row["code"] for row in found["rows"] if row["method"] != "full precision"))
    assert [line[:12].strip() for line in lines[table + 2 :][: len(codes)]] == codes
    assert max(len(line) for line in lines[table:][: len(codes) + 2]) <= 80


def test_a_site_that_is_asked_for_is_the_only_one(folder):
    found = result("quantize", folder, *ASKED, "--limit", 1, "--site", "gate", "--out", "new")
    settings = [row["setting"] for row in found["layers"] if row["setting"]]
    assert (found["site"], found["rows"][1]["method"]) == ("gate", CONTRACT)
    assert settings
    assert all(", gate, " in each for each in settings)
    with attach(tiny(), **load_config("new")) as arm:
        assert arm.site == "gate"


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
    assert err == "interrupted: here keeps what there is, and the same command goes on\n"
    assert numbers(result("quantize", folder, *ASKED, "--out", "here")) == numbers(whole[0])
    keys = [trial.key for trial in calls]
    assert len(keys) == len(set(keys)) + 1  # the one that was cut off is run again, and no other


def test_ctrl_c_behind_the_first_code_shows_that_code(whole, folder, monkeypatch):
    real = armlet.precision.measure.Bench.run

    def interrupted(bench, trial):
        if trial.text == "held-out" and str(trial.code) == "int8 tensor" and trial.layers is None:
            raise KeyboardInterrupt
        return real(bench, trial)

    monkeypatch.setattr("armlet.precision.measure.Bench.run", interrupted)
    code, out, _ = run("quantize", folder, *ASKED, "--out", "here", "--json")
    found = json.loads(out)
    assert (code, found["interrupted"]) == (130, True)
    assert found["rows"] == [row for row in whole[0]["rows"] if row["code"] in ("none", "int8 static")]


def test_ctrl_c_before_the_first_code_is_complete_shows_no_result(folder, monkeypatch):
    real = armlet.precision.measure.Bench.run

    def interrupted(bench, trial):
        if trial.text == "held-out" and str(trial.code) == "int8 static":  # the first code
            raise KeyboardInterrupt
        return real(bench, trial)

    monkeypatch.setattr("armlet.precision.measure.Bench.run", interrupted)
    code, out, err = run("quantize", folder, *ASKED, "--out", "here")
    assert (code, out) == (130, "")
    assert err == "interrupted: here keeps what there is, and the same command goes on\n"


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
    [(("--limit", 0.5), "limit was 0.01, is 0.5"), (("--site", "gate"), 'site was null, is "gate"')],
)
def test_another_run_in_the_same_folder_is_refused(other, message, whole, folder, monkeypatch):
    monkeypatch.chdir(whole[1].parent)
    code, _, err = run("quantize", folder, *ASKED, *other, "--out", "here")
    assert code == 2
    assert f"holds another run ({message})" in err


def test_a_folder_named_with_a_slash_at_its_end_is_the_same_run(whole, folder, monkeypatch):
    monkeypatch.chdir(whole[1].parent)
    monkeypatch.setattr("armlet.precision.measure.Bench.run", lambda *_: pytest.fail("a trial was run again"))
    assert numbers(result("quantize", f"{folder}/", *ASKED, "--out", "here")) == numbers(whole[0])


def test_without_a_terminal_there_is_a_line_of_progress_now_and_then(folder, monkeypatch):
    monkeypatch.setattr("armlet.presentation.terminal.LINE_SECONDS", 0)
    err = run("quantize", folder, *ASKED, "--out", "here", "--json")[2].splitlines()
    journal = Path("here/items.jsonl")
    assert len(err) == len(journal.read_text().splitlines())
    assert err[0].startswith("running trials: 1 of ")
    kept = journal.read_text().splitlines(keepends=True)[:-1]
    journal.write_text("".join(kept))
    again = run("quantize", folder, *ASKED, "--out", "here", "--json")[2].splitlines()
    assert again == err[-1:]


def test_the_chosen_setting_attaches_from_its_file(tmp_path):
    chosen = Contraction(Inward(0.99, "clip"), "gate", "token", (0, 2))
    (path,) = _save_setting(chosen, tmp_path)
    with attach(tiny(), **load_config(path)) as arm:
        assert (arm.policy, arm.site, arm.scope, arm.layers) == (Inward(0.99, "clip"), "gate", "token", [0, 2])
    assert _save_setting(None, tmp_path) == []
    assert not Path(path).exists()


@pytest.mark.parametrize("contraction", CONTRACTIONS, ids=lambda each: f"{each.site}-{each.scope}-{each.policy}")
def test_every_contraction_that_may_be_chosen_can_be_kept(contraction, tmp_path):
    _save_setting(Contraction(contraction.policy, contraction.site, contraction.scope, (1,)), tmp_path)
    with attach(tiny(), **load_config(tmp_path)) as arm:
        assert (arm.policy, arm.site, arm.layers) == (contraction.policy, contraction.site, [1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "absent.txt"), "--data: absent.txt cannot be read (No such file or directory)"),
        (("--data", "binary"), "--data: binary is no text in UTF-8"),
        (("--data", "text.txt", "--tokens", 100), "the text has 400 tokens, and 24 windows to measure and 4 to choose"),
        (("--data", "text.txt", "--device", "meta"), "--device: 'meta' holds no values"),
        (("--tokens", 10**6), "--tokens: the model reads "),
        (("--dtype", "int8"), "dtype: expected auto, float32"),
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
    assert "is not a number before anything is rounded" in err
    assert Path("here/items.jsonl").read_text().count("\n") == 1


def test_intervals_over_as_many_windows_as_the_default_are_bootstrapped():
    windows = signature(quantize).parameters["windows"].default
    differences = [0.01 * at for at in range(windows)]  # none equal to another
    assert compare([0.0] * windows, differences).method.startswith("BCa")


def test_a_ratio_has_an_interval_in_units_of_the_differences():
    losses = [3.0, 4.0, 2.0, 5.0, 3.5, 2.5, 4.5, 3.2]
    found = ratio(losses, [loss + 0.01 + 0.001 * (at % 3) for at, loss in enumerate(losses)])
    assert 1 < found["low"] < found["ratio"] < found["high"] < 1.03
    assert ratio(losses, losses) == {"ratio": 1, "low": 1, "high": 1}


def test_a_seed_is_that_of_the_bootstrap():
    losses = [3 + 0.1 * (at * at % 17) for at in range(40)]
    after = [loss + 0.01 * (at * at % 23) for at, loss in enumerate(losses)]
    assert ratio(losses, after, 1)["low"] != ratio(losses, after, 2)["low"]


def test_a_gap_that_is_not_resolved_has_no_share():
    chosen = Chosen({code: [Method(ROUNDED), Method("compand")] for code in REFERENCES}, {}, {}, None)
    for floor, told in (([1.5] * 20, True), ([1.0 + 0.1 * (-1) ** at for at in range(20)], False)):

        def trials(trial, floor=floor):
            return {"nll": floor if trial.code else [1.0 + 1e-3 * at for at in range(20)], "layers": {}}

        rows = rounded(trials, chosen, REFERENCES[0], 0)
        assert [each["recovered"] is not None for each in rows] == [told, told]


def test_a_layers_contraction_has_intervals_from_held_out_windows_of_that_layer_alone():
    contraction = Contraction(Inward(0.99, "clip"), "product", "token", (2,))
    damage = {code: {1: 0.1, 2: 0.2} for code in REFERENCES}
    chosen = Chosen({}, damage, {1: None, 2: LayerGain(contraction, 9.0, 9.0)}, None)
    base = [1.0 + 0.1 * (at % 3) for at in range(20)]

    def trials(trial):
        assert trial.text == "held-out"
        assert trial.layers == ((2,) if trial.code else None)
        assert trial.contraction in (None, contraction)
        rise = (0.2 if trial.contraction else 0.5) if trial.code else (0.01 if trial.contraction else 0)
        return {"nll": [loss + rise * (1 + 0.01 * (at % 5)) for at, loss in enumerate(base)]}

    one, two = layer_rows(trials, chosen, 0)
    assert (one["tried"], one["setting"]) == (True, None)
    assert two["setting"] == "clip, knee 0.99, product, token"
    # exp of the mean rise, 1.02 times 0.01 and 0.2 − 0.5.
    for name, expected in (("cost", math.exp(0.0102)), ("gain", math.exp(-0.306))):
        found = two[name]
        assert found["ratio"] == pytest.approx(expected)
        assert found["low"] < found["ratio"] < found["high"]


def row(code, method, perplexity, nll, setting=""):
    found = {"code": code, "method": method, "perplexity": perplexity, "nll": nll, "setting": setting}
    return found | {"recovered": 0.5, **ratio([1.0] * len(nll), nll)}


def test_the_first_lines_name_the_codes_at_which_an_alternative_does_better_and_how_sure_that_is():
    rows = [row("none", "full precision", 2.7, [1.0] * 20)]
    noisy = [1.0 + 0.2 * (at % 2) for at in range(20)]  # around compand's 1.09
    surely = [1.01 + 1e-4 * at for at in range(20)]
    for code, rotated, losses in (
        ("int8 tensor", 3.1, [1.1] * 20),
        ("int4 token", 2.75, surely),
        ("e4m3 tensor", 2.95, noisy),
    ):
        rows.append(row(code, "round to nearest", 5.0, [1.6] * 20))
        rows.append(row(code, "Hadamard rotation", rotated, losses))
        rows.append(row(code, "compand", 3.0, [1.09] * 20, "knee 0.9"))
    first, second, *rest = headline(rows)
    assert first == (
        "An alternative is shown to do better than compand at 1 of 3 codes: "
        "int4 token, Hadamard rotation (2.75 against 3.00)"
    )
    assert second == "  and within the interval at 1: e4m3 tensor, Hadamard rotation (2.95 against 3.00)"
    assert rest[0].startswith(
        "int8 tensor, compand (knee 0.9): 3.00 instead of 5.00, 50.0 % of the gap recovered; 1.0942"
    )


def test_where_plain_rounding_is_better_too_the_first_lines_say_so():
    rows = [row("none", "full precision", 2.7, [1.0] * 20)]
    for method, loss in (("round to nearest", 1.2), ("Hadamard rotation", 1.1), ("compand", 1.3)):
        rows.append(row("e4m3 tensor", method, math.exp(loss), [loss] * 20))
    assert headline(rows)[1:] == ["  and so is doing nothing at 1: e4m3 tensor, round to nearest (3.32 against 3.67)"]


def test_rounding_that_helps_the_model_is_told_to_be_no_merit():
    rows = [row("none", "full precision", 2.7, [1.0] * 20)]
    rows += [row("int8 token", name, 2.5, [loss] * 20) for name, loss in (("round to nearest", 0.9), ("compand", 1.0))]
    assert "below full precision's, by the interval, in 1 of 2 cells" in headline(rows)[-1]
    assert not any("below" in line for line in headline([*rows[:1], rows[2], rows[2] | {"method": ROUNDED}]))


@pytest.mark.parametrize(
    ("site", "scope", "loss", "said"),
    [
        ("gate", "token", 1.1, ()),
        ("gate", "token", 1.5, ("shows no gain",)),
        ("product", "token", 1.1, ("vLLM",)),
        ("product", "sequence", 1.5, ("shows no gain", "not for decoding", "vLLM")),
    ],
)
def test_a_chosen_setting_comes_with_what_speaks_against_it(site, scope, loss, said):
    code = str(REFERENCES[0])
    rows = [row(code, ROUNDED, 4.0, [1.4] * 20), row(code, CONTRACT, 3.0, [loss] * 20)]
    rows.append(row("none", CONTRACT, 2.8, [1.02] * 20))  # exp(0.02): 2.02 % more
    chosen = Contraction(Inward(), site, scope, (0,))
    assert cautions(rows, chosen, 0.02)[0].startswith("unrounded it costs 2.0 % on held-out text")
    found = cautions(rows, chosen, 0.021)
    assert len(found) == len(said)
    assert all(each in line for each, line in zip(said, found, strict=True))


def test_the_longest_contraction_fits_into_80_letters():
    bounds = {"ratio": 1.0, "low": 0.999, "high": 1.001}
    setting = max((_curve(each) for each in CONTRACTIONS), key=len)
    row = {"layer": 28, "damage int8 tensor": 1.1, "tried": True, "setting": setting, "cost": bounds, "gain": bounds}
    shown = io.StringIO()
    Console(file=shown, width=80).print(layers_table([row]))
    assert f"1.000 [0.999, 1.001] {setting}" in shown.getvalue()
    assert "…" not in shown.getvalue()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.00609, "1.0061"), (2.0, "2.00"), (999.99, "999.99"), (1804.3, "1,804"), (99998.4, "99,998"), (1e5, "1.0e5")],
)
def test_a_perplexity_takes_six_characters(value, shown):
    assert short(value) == shown
    assert len(shown) <= 6


def test_on_abacus_companding_recovers_what_rounding_to_four_bits_costs():
    found = result("quantize", "abacus", "--windows", 20, "--tokens", 48, "--out", "here")
    rows = {(row["code"], row["method"]): row for row in found["rows"]}
    # At int4 token rounding costs abacus under 1 %, too little for a share of it to mean much over 20 windows.
    # At int4 tensor it costs more, though unevenly: the interval over 20 windows leaves room for no gap.
    nearest, companded = (rows["int4 tensor", name]["perplexity"] for name in (ROUNDED, "compand"))
    assert nearest - companded >= 0.8 * (nearest - found["rows"][0]["perplexity"])
    assert rows["int8 tensor", "compand"]["high"] < 1.01


def test_smollm2_companded_is_smollm2_within_float_rounding(smollm2):
    from armlet.precision.measure import Bench, window_losses
    from armlet.precision.transforms import Compand

    model, tokenizer = smollm2
    ids = tokenizer(
        "The river runs from the hills to the sea, and takes the sand along.", return_tensors="pt"
    ).input_ids
    ids = torch.cat((torch.tensor([[tokenizer.bos_token_id]]), ids), 1)

    def companded(_, args):
        z, back = Compand(0.9).there(args[0])
        return (back(z),)

    plain = window_losses(model, ids)
    hooks = [down.register_forward_pre_hook(companded) for down in Bench(model, {}).downs.values()]
    found = window_losses(model, ids)
    for hook in hooks:
        hook.remove()
    assert found == pytest.approx(plain, abs=1e-4)
