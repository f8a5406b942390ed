"""A study is checked before it runs, resumes cell by cell, and reports the same wherever its cells ran."""

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from armlet.evaluation import study
from armlet.evaluation.conditions.conditions import Filling, Treatment
from armlet.evaluation.studies import cells
from armlet.evaluation.studies.cells import CellOutcome
from armlet.evaluation.studies.file import read_study
from armlet.evaluation.studies.result import make_study_findings
from armlet.prompts.fillers import Filler
from armlet.redistribution import Outward
from armlet.redistribution.errors import ArgumentError
from armlet.runs.folder import RunError
from armlet.statistics.significance import holm
from command_line import run, shown
from evaluations import found, sums

STUDIES = Path(__file__).parents[3] / "studies"

SMALL = """
title = "A small study"
source = "none"
hypothesis = "Outward helps."
margin = 20
seeds = [0, 1]
settings = {{ placebos = false, batch = {batch}, max_new_tokens = 16, difficulty = 1 }}
claims = [{{ model = "abacus", task = "arithmetic", treatment = "Outward", difference = 90.0 }}]

[[models]]
model = "abacus"

[[tasks]]
task = "arithmetic"
settings = {{ items = {items} }}

[[treatments]]
name = "Outward"
policy = "outward"

[[treatments]]
name = "slashes"
filler = "/"
count = 5
position = "before"
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(text=SMALL, name="study.toml", items=6, batch=3):
    path = Path(name)
    path.write_text(text.format(items=items, batch=batch))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('hypothesis = "Outward helps."', "", "hypothesis: Field required"),
        ("margin = 20", 'margin = "wide"', "margin: Input should be a valid number, found 'wide'"),
        ("count = 5", "cuont = 5", "treatments.1.cuont: Unexpected keyword argument"),
        ("items = {items}", "itmes = 6", "tasks: arithmetic: settings: expected one of items, .*found 'itmes'"),
        ('policy = "outward"', 'policy = "outwards"', "did you mean outward"),
        ('policy = "outward"', "", "treatments: Outward: expected either a policy, a function or a filler"),
        ('name = "slashes"', 'name = "Outward"', "treatments: 'Outward' occurs 2 times"),
        (
            'treatment = "Outward"',
            'treatment = "Inward"',
            "claims: treatment: expected one of Outward, slashes, found",
        ),
        ("seeds = [0, 1]", "seeds = []", "seeds: expected at least one"),
        ("placebos = false", "best_of = 4", "settings: expected one of .*found 'best_of'"),
        (
            'filler = "/"\ncount = 5\nposition = "before"',
            'policy = "outward:band=0.13"',
            "Outward and slashes are the same",
        ),
        (
            '[[tasks]]\ntask = "arithmetic"',
            '[[tasks]]\ntask = "a/x.jsonl"\n\n[[tasks]]\ntask = "b/x.jsonl"\n\n[[tasks]]\ntask = "arithmetic"',
            "cells: 'abacus, x, seed 0' occurs 2 times",
        ),
        (
            'model = "abacus"\n',
            'model = "abacus"\ntasks = ["gsm8k"]\n',
            "models: abacus: tasks: expected one of arith",
        ),
        ("title =", "title", "cannot be read"),
    ],
)
def test_a_wrong_study_is_refused_with_the_place_before_anything_runs(old, new, message):
    assert old in SMALL
    path = written(SMALL.replace(old, new, 1))
    with pytest.raises(ArgumentError, match=message):
        read_study(path)


SECOND_TREATMENT = 'filler = "/"\ncount = 5\nposition = "before"'
CLAIM = '{{ model = "abacus", task = "arithmetic", treatment = "Outward", difference = 90.0 }}'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("difference = 90.0", "difference = nan", r"^study: study.toml: claims: difference: expected .*, found nan$"),
        ("difference = 90.0", "difference = 9e9", "claims: difference: expected a number from -100 to 100, found 9"),
        ("difference = 90.0", "difference = 3, baseline = nan", "claims: baseline: expected a number from 0 to 100,"),
        ("count = 5", "count = -3", "treatments: slashes: count: expected an integer of at least 1, found -3$"),
        (
            'policy = "outward"',
            'policy = "outward"\ncount = 3',
            "Outward: count: applies to a filler, and there is none",
        ),
        ("margin = 20", "margin = 0", "study.toml: margin: expected a number from 0.01 to 99.99, found 0.0$"),
        ("margin = 20", "margin = nan", "study.toml: margin: expected a number from 0.01 to 99.99, found nan$"),
        ("margin = 20", "margin = 500", "study.toml: margin: expected a number from 0.01 to 99.99, found 500.0$"),
        ("items = {items}", "items = -8", "seed 0: items: expected an integer of at least 1, found -8$"),
        ("items = {items}", 'items = "8"', "seed 0: items: expected an integer of at least 1, found '8'$"),
        ("difficulty = 1", "difficulty = -1", "seed 0: difficulty: expected an integer of at least 0, found -1$"),
        (
            "difficulty = 1",
            "difficulty = 1, samples = 4",
            "seed 0: samples: all greedy answers to an item are the same",
        ),
        ("difficulty = 1", "difficulty = 1, shots = 2", "seed 0: shots: needs examples"),
        ("difficulty = 1", 'difficulty = 1, template = "Q"', "seed 0: template: "),
        ("difficulty = 1", 'difficulty = 1, grader = "strict"', "seed 0: grader: expected .* found 'strict'$"),
        ("difficulty = 1", 'difficulty = 1, dtype = "int3"', "seed 0: dtype: expected auto, .*found 'int3'$"),
        (
            "difficulty = 1",
            "difficulty = 1, keep_tuning_items = 1",
            "keep_tuning_items: expected True or False, found 1",
        ),
        ("seeds = [0, 1]", "seeds = [-1]", "study.toml: seeds: expected an integer from 0 to .*, found -1$"),
        (
            'model = "abacus"\n',
            'model = "abacus"\ncpus = 0\n',
            "models: abacus: cpus: expected an integer of at least 1",
        ),
        (
            'model = "abacus"\n',
            'model = "abacus"\ngpus = -1\n',
            "models: abacus: gpus: expected an integer of at least 0",
        ),
        ('hypothesis = "Outward helps."', 'hypothesis = " "', "study.toml: hypothesis: expected text, found ' '$"),
        (SECOND_TREATMENT, 'function = "absent.py:f"', r"seed 0: treatment: absent.py cannot be read \(No such file"),
        (SECOND_TREATMENT, 'function = "absent"', "seed 0: treatment: expected file.py:function, found '.*absent'"),
        (SECOND_TREATMENT, 'policy = "outward"\nsettings = {{ layers = "x" }}', "treatments: slashes: layers: "),
        (
            'filler = "/"\ncount',
            'policy = "cut"\nfiller = "/"\ncount',
            "treatments: slashes: expected either a policy, a function or a filler, found policy and filler$",
        ),
        (CLAIM, f"{CLAIM}, {CLAIM.replace('90.0', '-5.0')}", "claims: 'abacus, arithmetic, Outward' occurs 2 times$"),
        (
            '[[tasks]]\ntask = "arithmetic"',
            '[[tasks]]\ntask = "absent.jsonl"\n\n[[tasks]]\ntask = "arithmetic"',
            "the cell abacus, absent, seed 0: difficulty: applies only to the task arithmetic",
        ),
        (
            '[[treatments]]\nname = "Outward"',
            '[[models]]\nmodel = "other/model"\n\n[[treatments]]\nname = "Outward"\nmodels = ["other/model"]',
            "claims: no cell tests 'abacus, arithmetic, Outward'; leave the claim out, or apply the treatment there$",
        ),
    ],
)
def test_a_value_with_which_a_cell_would_fail_is_refused_in_one_line_before_anything_runs(old, new, message):
    assert old in SMALL
    path = written(SMALL.replace(old, new, 1))
    with pytest.raises(ArgumentError, match=message) as caught:
        read_study(path)
    assert "\n" not in str(caught.value)


def test_a_policy_as_a_function_is_refused_when_its_study_is_read():
    Path("mine.py").write_text("class P:\n    def move(self, rows, draw): ...\n")
    with pytest.raises(ArgumentError, match=r"treatment: .*mine.py P is a policy, which a study takes by the name"):
        read_study(written(SMALL.replace(SECOND_TREATMENT, 'function = "mine.py:P"')))


def test_a_function_is_not_run_when_its_study_is_read():
    Path("mine.py").write_text("raise SystemExit(3)\n")
    planned, _ = read_study(written(SMALL.replace(SECOND_TREATMENT, 'function = "mine.py:f"')))
    assert [*planned.cells()[0].treatments] == ["Outward", "slashes"]


def test_a_study_may_begin_with_a_byte_order_mark():
    assert read_study(written("\ufeff" + SMALL))[0] == read_study(written())[0]


@pytest.mark.slow
def test_the_studies_of_this_repository_can_be_run():
    for file in sorted(STUDIES.glob("*.toml")):
        planned, sha256 = read_study(file)
        assert planned.cells()
        assert sha256[:12] in shown("study", file, "--plan")


@pytest.mark.slow
def test_the_papers_study_is_every_cell_of_table_2_but_what_it_says_is_left_out():
    planned, _ = read_study(STUDIES / "arm-2510.01032.toml")
    cells = [cell for cell in planned.cells() if cell.seed == 0]
    claimed = [planned.claim(cell, "ARM") for cell in cells]
    assert len(cells) == 32
    assert None not in claimed
    left_out = " ".join(omission.part for omission in planned.not_run())
    assert all(part in left_out for part in ("LiveCodeBench", "aime25", "math500", "aime24"))


@pytest.mark.slow
def test_a_study_resumes_and_reports_every_treatment_of_every_cell_with_its_claim():
    path = written()
    findings = study(path, run="here")
    assert [(row.seed, row.treatment, row.claim_is) for row in findings.rows] == [
        (0, "Outward", "above"),
        (0, "slashes", None),
        (1, "Outward", "above"),
        (1, "slashes", None),
    ]
    adjusted = [row.pair.p_holm for row in findings.rows]
    assert all(p >= row.pair.comparison.p_value for p, row in zip(adjusted, findings.rows, strict=True))
    assert "of 2 claims, 0 inside" in findings.sentence()
    names = {file.name for file in findings.save("report")}
    assert {"report.json", "forest.png", "forest.svg", "table.csv"} <= names
    code, _, err = run("study", path, "--run", "here", "--out", "again")
    assert code == 0
    assert len(re.findall("all 18 answers are from an earlier run", err)) == 2
    assert Path("again/report.json").read_bytes() == Path("report/report.json").read_bytes()
    with pytest.raises(RunError, match="contains another study"):
        study(written(name="other.toml", items=5), run="here")


@pytest.mark.slow
def test_a_cell_that_fails_does_not_end_the_study_and_is_named():
    text = SMALL.replace(
        '[[models]]\nmodel = "abacus"\n', '[[models]]\nmodel = "missing/model"\n\n[[models]]\nmodel = "abacus"\n'
    )
    text = text.replace("seeds = [0, 1]", "seeds = [0]").replace(
        '{{ model = "abacus", task', '{{ model = "missing/model", task'
    )
    code, _, _ = run("study", written(text), "--run", "here")
    assert (code, Path("here/report.json").is_file()) == (1, True)
    findings = study("study.toml", run="here")
    assert len(findings.rows) == 2
    assert [*findings.failures] == ["missing/model, arithmetic, seed 0"]
    assert not findings.to_dict()["complete"]
    assert "over all 4 planned, as if the missing ones showed nothing" in findings.sentence()
    assert (
        "of 1 claim, 0 inside its interval, 1 not tested (Outward in missing/model, arithmetic" in findings.sentence()
    )
    assert any(sentence.startswith("failed: missing/model") for sentence in findings.sentences())


def test_ctrl_c_in_a_cell_ends_the_study_and_its_next_call_resumes(monkeypatch):
    begun = []

    def interrupted(*_, run, **__):
        begun.append(run)
        return Mock(interrupted=True)

    monkeypatch.setattr(cells, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study(written(), run="here")
    assert len(begun) == 1


@pytest.mark.slow
def test_the_cells_that_are_not_finished_can_only_add_to_what_is_shown():
    planned, sha256 = read_study(written())
    treated = {"treatments": (Treatment(Outward()),), "fillings": (Filling(Filler("/", 5), "before"),)}
    answered = [found(sums(60, name), placebos=False, **treated).tasks[0] for name in ("one", "two")]
    outcomes = [CellOutcome(*pair) for pair in zip(planned.cells(), answered, strict=True)]
    part, whole = (make_study_findings(planned, sha256, some, Path()) for some in (outcomes[:1], outcomes))
    uncorrected = [row.pair.comparison.p_value for row in part.rows]
    assert [row.pair.p_holm for row in part.rows] == holm([*uncorrected, 1.0, 1.0])[:2]
    assert all(one.pair.p_holm >= other.pair.p_holm for one, other in zip(part.rows, whole.rows, strict=False))
    assert "of 2 comparisons in 1 cell, after Holm's correction over all 4 planned, as if" in part.sentence()
    assert "of 2 claims, 0 inside its interval, 1 not tested (Outward in abacus, arithmetic, seed 1)" in part.sentence()
    assert "after Holm's correction over all: " in whole.sentence()
    assert "not tested" not in whole.sentence()


@pytest.mark.slow
def test_a_majority_of_samples_is_a_row_of_its_own_without_a_claim():
    settings = "settings = {{ placebos = false, temperature = 1.0, samples = 3, "
    text = SMALL.replace("settings = {{ placebos = false, ", settings).replace("seeds = [0, 1]", "seeds = [0]")
    rows = study(written(text, items=3), run="here").rows
    assert [(row.treatment, row.claim is not None) for row in rows] == [
        ("Outward", True),
        ("Outward, majority", False),
        ("slashes", False),
        ("slashes, majority", False),
    ]


@pytest.mark.slow
def test_on_ray_a_killed_worker_is_replaced_and_the_report_is_the_same():
    pytest.importorskip("ray", reason="the extra cluster is not installed")
    path, killed = written(items=16, batch=2), list[int]()
    stop = threading.Event()
    killer = threading.Thread(target=_kill_a_worker_in_the_middle, args=(Path("ray"), killed, stop))
    killer.start()
    try:
        there = study(path, run="ray", ray="local")
    finally:
        stop.set()
        killer.join()
    assert killed
    there.save("there")
    study(path, run="here").save("here")
    assert Path("there/report.json").read_bytes() == Path("here/report.json").read_bytes()


def _kill_a_worker_in_the_middle(folder, killed, stop):
    """Kills one process of Ray that runs a cell, once the cell has some answers."""
    while not stop.is_set() and not killed:
        time.sleep(0.05)
        if any(file.stat().st_size > 1000 for file in folder.glob("cells/*/items.jsonl")):
            listed = subprocess.run(["pgrep", "-f", "^ray::abacus"], capture_output=True, text=True, check=False)
            # Those of another run of this test have another folder.
            workers = [pid for pid in listed.stdout.split() if os.path.realpath(f"/proc/{pid}/cwd") == os.getcwd()]
            if workers:
                os.kill(int(workers[0]), signal.SIGKILL)
                killed.append(int(workers[0]))


@pytest.mark.slow
def test_ray_refuses_a_cell_that_no_machine_can_run():
    pytest.importorskip("ray", reason="the extra cluster is not installed")
    path = written(SMALL.replace('model = "abacus"\n\n', 'model = "abacus"\ngpus = 64\n\n'))
    with pytest.raises(ArgumentError, match="no machine of the cluster has 1 CPUs and 64 GPUs"):
        study(path, ray="local")
