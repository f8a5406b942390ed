"""`armlet report`: the report of run folders, again or merged."""

from pathlib import Path

import pytest

from command_line import result, run

pytestmark = pytest.mark.slow

FEW = ("--items", "6", "--batch", "3", "--difficulty", "1", "--no-placebos")
FILES = {"report.json", "report.md", "report.html", "table.csv", "table.tex", "forest.png", "forest.svg", "forest.pdf"}


def test_runs_are_reported_again_and_merged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    findings = result("evaluate", *FEW, "--run", "one")
    before = {name: Path("one", name).read_bytes() for name in FILES}
    assert result("report", "one") == findings
    assert {name: Path("one", name).read_bytes() for name in FILES} == before
    result("evaluate", *FEW, "--seed", "1", "--run", "two")
    code, text, _ = run("report", "one", "two", "--out", "both")
    assert (code, "12 items" in text) == (0, True)
    assert {path.name for path in Path("both").iterdir()} == FILES
    assert {line.split(": ")[0] for line in text.splitlines() if "both/" in line} == {"figure", "written"}
    code, out, err = run("report", "one", "two")
    assert (code, out, err) == (2, "", "armlet: --out: name a folder for the report of several runs\n")
    code, out, err = run("report", "absent")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "absent: is no run folder (it has no manifest.json); name the one that `evaluate` prints" in err


def test_a_budget_is_an_option_that_chooses_the_items(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--budget", "1s", "--batch", "3", "--difficulty", "1", "--no-placebos")
    code, text, err = run("evaluate", *options)
    assert (code, "budget: " in err, " items" in text) == (0, True, True)
    code, out, err = run("evaluate", *options, "--items", "3")
    assert (code, out) == (2, "")
    assert "armlet: --budget: use either --budget or --items, not both" in err
