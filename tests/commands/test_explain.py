"""`armlet explain`: figures, JSON and CSV contain one run; bad input is one line; Ctrl-C keeps finished layers."""

import csv
import json
from pathlib import Path

import pytest

from armlet.mechanism.classes import CLASSES
from armlet.mechanism.layers import measure_layers
from armlet.mechanism.measure import GATE_QUANTITIES, QUANTITIES
from armlet.prompts.fillers import RANDOM_SENTENCE, SYSTEM
from armlet.prompts.questions import BUILT_IN, FORMULAS
from command_line import result, run, shown
from tiny_checkpoints import save

TURNS = (
    "{% for turn in messages %}{% if turn['role'] == 'system' %}w1 {{ turn['content'] }} w2 {% else %}"
    "w3 {{ turn['content'] }} w4{% endif %}{% endfor %}{% if add_generation_prompt %} w5{% endif %}"
)
ASKED = ("--prompt", "w20 w21 w22", "--prompt", "w23 w24", "--system", "w10 w11", "--filler", "w7", "--count", "0,2,4")
NAMES = ("attention", "affine", "counts", "layers", "classes")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "tiny", template=TURNS)


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr("armlet.mechanism.result.Explanation.figure", lambda *_: None)
    monkeypatch.setattr("armlet.presentation.style.save", lambda *_: [])


@pytest.mark.slow
def test_explain_shows_every_quantity_and_names_every_figure(folder):
    out = shown("explain", folder, *ASKED, "--out", "here")
    lines = out.splitlines()
    names = [line.split()[0] for line in lines if line.strip() and line.split()[0] in QUANTITIES]
    assert list(dict.fromkeys(names)) == list(QUANTITIES)  # again if the control continues below
    assert "tables: layer 0; explain.csv has all 3 measured layers" in lines
    files = [f"here/explain-{name}.{kind}" for name in NAMES for kind in ("png", "svg")]
    tables = ["here/explain.json", "here/explain.csv", "here/explain-classes.csv"]
    ends = [*(f"figure: {file}" for file in files), *(f"written: {file}" for file in tables)]
    assert lines[-len(ends) :] == ends
    assert all(Path(file).stat().st_size > 5000 for file in files)
    assert max(map(len, lines)) <= 80
    written = {file.name for file in Path("here").iterdir()}
    assert written == {Path(file).name for file in (*files, *tables)}


@pytest.mark.usefixtures("undrawn")
def test_json_and_csv_hold_the_same_rows_of_every_layer_filler_count_and_quantity(folder):
    found = result("explain", folder, *ASKED, "--filler", "w8 w9", "--out", "here")
    assert json.loads(Path("here/explain.json").read_text()) == found
    assert [(r["layer"], r["filler"], r["count"], r["quantity"]) for r in found["rows"]] == [
        (layer, kind, count, name)
        for layer in range(3)
        for kind in ("w7", "w8 w9", RANDOM_SENTENCE)
        for count in (2, 4)
        for name in QUANTITIES
    ]
    for name, rows in (("explain", found["rows"]), ("explain-classes", found["classes"])):
        with Path(f"here/{name}.csv").open(newline="") as file:
            read = list(csv.DictReader(file))
        assert read == [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]
    assert found["layers"] == [0, 1, 2]
    assert (found["questions"], found["dtype"]) == (["w20 w21 w22", "w23 w24"], "auto")
    assert list(found["quantities"]) == list(QUANTITIES)
    assert found["tokens"] == 3 + 2 + 2 * 2  # questions, and w4 w5 behind each
    assert (found["system"], found["position"], found["interrupted"]) == ("w10 w11", "between", False)
    assert [(f["filler"], f["count"], f["tokens"]) for f in found["fillers"]][:4] == [
        ("w7", 2, ["w7"]),
        ("w7", 4, ["w7"]),
        ("w8 w9", 2, ["w8", "w9"]),
        ("w8 w9", 4, ["w8", "w9"]),
    ]


@pytest.mark.usefixtures("undrawn")
def test_layers_policies_and_position_are_those_asked_for(folder):
    options = ("--layers", "2,0", "--policy", "inward:knee=0.9", "--policy", "transport", "--position", "before")
    found = result("explain", folder, *ASKED, *options)
    assert found["layers"] == [0, 2]
    assert [(p["policy"], p.get("knee")) for p in found["policies"]] == [("inward", 0.9), ("transport", None)]
    assert found["tokens"] == 3 + 2 + 2 * (2 + 1 + 1 + 2)  # the system's words, w2, w3, w4 and w5 of each
    treatments = {row["treatment"] for row in found["classes"]}
    assert {"Inward, knee 0.9, curve log", "Transport, spread 1.0"} < treatments
    assert not any(treatment.startswith("Outward") for treatment in treatments)


@pytest.mark.usefixtures("undrawn")
def test_one_policy_with_two_settings_gives_two_treatments(folder):
    twice = ("--policy", "outward:band=0.1", "--policy", "outward:band=0.2", "--policy", "outward:band=0.1")
    found = result("explain", folder, *ASKED, "--layers", "0", *twice)
    treatments = [row["treatment"] for row in found["classes"] if row["treatment"].startswith("Outward")]
    assert treatments == ["Outward, band 0.1, ceiling 0.995", "Outward, band 0.2, ceiling 0.995"]


@pytest.mark.usefixtures("undrawn")
def test_a_layer_has_the_same_numbers_whichever_others_are_asked_for(folder):
    alone, all_of_them = (result("explain", folder, *ASKED, "--layers", layers) for layers in ("1", "all"))
    assert alone["rows"] == [row for row in all_of_them["rows"] if row["layer"] == 1]


@pytest.mark.usefixtures("undrawn")
def test_seed_draws_the_control_and_the_intervals_and_changes_nothing_else(folder):
    one, same, other = (result("explain", folder, *ASKED, "--seed", seed) for seed in (1, 1, 2))
    assert one == same
    for a, b in zip(one["rows"], other["rows"], strict=True):
        if a["filler"] != RANDOM_SENTENCE:
            assert (a["without"], a["with"]) == (b["without"], b["with"])
    assert one["rows"] != other["rows"]


@pytest.mark.slow
def test_at_the_end_no_word_of_a_question_sees_the_filler_and_no_class_is_drawn(folder):
    found = result("explain", folder, *ASKED, "--position", "end", "--layers", "0", "--out", "here")
    assert found["classes"] == []
    assert not Path("here/explain-classes.csv").exists()
    assert "no word of a question follows the filler" in shown("explain", folder, *ASKED, "--position", "end")
    assert [Path(file).stem for file in found["figures"][::2]] == [f"explain-{name}" for name in NAMES[:-1]]


@pytest.mark.usefixtures("undrawn")
def test_prompts_are_the_built_in_ones_by_default(folder):
    found = result("explain", folder, "--filler", "w7", "--count", "1", "--layers", "0")
    assert (tuple(found["questions"]), found["system"]) == (BUILT_IN + FORMULAS, SYSTEM)


@pytest.mark.usefixtures("undrawn")
def test_ctrl_c_keeps_the_layers_that_are_finished(folder, monkeypatch):
    whole = result("explain", folder, *ASKED)
    interrupt(monkeypatch, after=2)
    found = result("explain", folder, *ASKED, "--out", "here", code=130)
    assert found["interrupted"]
    assert found["layers"] == [0, 1]
    assert found["rows"] == [row for row in whole["rows"] if row["layer"] < 2]
    assert json.loads(Path("here/explain.json").read_text()) == found


def test_tables_are_kept_where_drawing_fails(folder, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("armlet.presentation.style.save", full)
    assert run("explain", folder, *ASKED, "--layers", "0", "--out", "here")[0] == 2
    assert {file.name for file in Path("here").iterdir()} == {"explain.json", "explain.csv", "explain-classes.csv"}


@pytest.mark.slow
def test_nothing_in_a_name_is_a_formula_or_markup(tmp_path):
    odd = save(tmp_path / "[bold]x[/y] $\\frac$", template=TURNS)
    arguments = ("--prompt", "w20 w21 😀", "--system", "", "--layers", "0", "--count", "2")
    code, out, err = run("explain", odd, *arguments, "--filler", "$\\frac$ [/red]", "--out", "here")
    assert (code, err) == (0, "")
    assert "[bold]x[/y]" in out


@pytest.mark.usefixtures("undrawn")
def test_of_several_fillers_and_layers_each_has_a_table(folder):
    out = shown("explain", folder, *ASKED, "--filler", "w8", "--layers", "0,1")
    text = " ".join(out.split())  # a long title may be broken into lines
    titles = [f"layer {layer}: {what}" for layer in (0, 1) for what in ("4 × 'w7'", "4 × 'w8'", "classes")]
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    assert sum(line.startswith("quantity") for line in out.splitlines()) == 8  # at 80 columns each continues below
    assert "2 prompts: intervals are too narrow to judge a claim" in out
    other = shown("explain", folder, *ASKED, "--layers", "1")
    assert "paper" in out
    assert "paper" not in other  # which speaks of the first layer alone


@pytest.mark.usefixtures("undrawn")
def test_what_the_first_figure_shows_is_in_the_json(folder):
    found = result("explain", folder, *ASKED, "--layers", "1")["attention"]
    assert (found["layer"], found["filler"], found["count"], found["at"]) == (1, "w7", 4, 5)
    assert found["words"] == ["w1", "w10", "w11", "w2", "w3", "w20", "w21", "w22", "w4", "w5"]
    assert (len(found["without"]), len(found["with"])) == (10, 14)
    assert found["without"][-1] is None


def test_ctrl_c_before_the_first_layer_is_finished_leaves_nothing(folder, monkeypatch):
    interrupt(monkeypatch, after=0)
    assert run("explain", folder, *ASKED) == (130, "", "interrupted: there is no result\n")
    assert list(Path().iterdir()) == []


def interrupt(monkeypatch, after):
    """Presses Ctrl-C at the layer after this number of layers."""

    def pressing(*args):
        for index, findings in enumerate(measure_layers(*args)):
            if index == after:
                raise KeyboardInterrupt
            yield findings

    monkeypatch.setattr("armlet.mechanism.run.measure_layers", pressing)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--count", "ten"), "count: expected whole numbers from 0 to 99999 such as 0,10,25, found 'ten'"),
        (("--count", "0"), "count: expected a number other than 0, which is always run, found '0'"),
        (("--count", "-5"), "found '-5'"),
        (("--count", "999999"), "found '999999'"),
        (("--filler", ""), "filler: '' has no tokens"),
        (("--layers", "3"), "has layers 0 to 2, found 3"),
        (("--layers", "last"), "expected indices"),
        (("--position", "middle"), "'middle' is not one of 'before', 'between', 'end'"),
        (("--policy", "outward:band=0"), "band must be a number"),
        (("--prompts", "absent"), "absent cannot be read"),
        (("--dtype", "float7"), "dtype: expected auto"),
    ],
    ids=repr,
)
def test_bad_input_is_one_line_and_leaves_nothing(folder, arguments, message):
    code, out, err = run("explain", folder, *arguments, "--out", "here")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert list(Path().iterdir()) == []


def test_a_filler_with_nothing_behind_it_is_refused(tmp_path):
    bare = save(tmp_path / "bare")  # no template, so nothing stands behind the question
    code, out, err = run("explain", bare, "--prompt", "w20 w21", "--position", "end", "--out", "here")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "position: fewer than 2 tokens come after a filler at 'end' in 'w20 w21'" in err


@pytest.mark.slow
def test_smollm2_bears_out_the_affine_claim_and_not_louder_activations(smollm2_folder):
    """This code measures LOG.md's findings, for one count."""
    found = result("explain", smollm2_folder, "--layers", "0", "--count", "55", "--out", "here")
    of = {(row["filler"], row["quantity"]): row for row in found["rows"]}
    assert of["/", "mass"]["high"] < -0.3
    assert of["/", "lambda"]["high"] < -0.2
    assert of["/", "r2"]["low"] > 0.5
    assert of["/", "shift_consistency"]["low"] > 0.9
    # The paper says that L1 and L2 rise.
    assert of["/", "l1"]["high"] < 0
    assert of["/", "l2"]["high"] < 0
    assert abs(of["/", "near_zero"]["change"]) < 0.005
    assert {row["class"] for row in found["classes"]} == set(CLASSES)
    # And that digits, operators and conjunctions are nearer to zero than other words.
    for row in found["classes"]:
        if row["treatment"] == "as it is" and row["class"] != "other":
            assert row["low"] < 0 < row["high"]
    assert set(GATE_QUANTITIES) <= {row["quantity"] for row in found["rows"]}
