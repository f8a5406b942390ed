"""`armlet evaluate` on the embedded model and on tiny ones: what is printed, written, resumed and refused."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from chat_server import serving
from command_line import result, run
from tiny_checkpoints import TEMPLATE, save

pytestmark = pytest.mark.slow

FEW = ("--items", "6", "--batch", "3", "--difficulty", "1")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "tiny", template=TEMPLATE)


@pytest.fixture
def choices():
    rows = [{"id": str(at), "question": f"w{at + 4} w9", "choices": ["w1", "w2 w3"], "gold": at % 2} for at in range(5)]
    Path("choices.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "choices.jsonl"


def test_without_arguments_the_embedded_model_is_run_with_its_placebos():
    code, text, notes = run("evaluate", *FEW)
    assert (code, "6 items can show differences of" in notes) == (0, True)
    for name in (
        "baseline",
        "outward",
        "identity",
        "draw-only",
        "matched (outward)",
        "zeroed (outward)",
        "temperature",
    ):
        assert name in text
    assert "outward on arithmetic: " in text
    (folder,) = Path("armlet-runs").iterdir()
    assert folder.name.startswith("abacus-arithmetic-")
    names = {file.name for file in folder.iterdir()}
    assert names >= {"manifest.json", "items.jsonl", "report.json", "report.html", "report.md"}
    assert f"run folder: {folder}\n" in notes
    assert (folder / "prompts.txt").read_text().startswith("The prompt of the first item of arithmetic:\n\n")


def test_identity_and_draw_only_give_exactly_the_baselines_answers():
    found = result("evaluate", *FEW, "--policy", "outward", "--policy", "inward:knee=0.9", "--layers", "all")
    assert found["tasks"][0]["same_as_baseline"] == {"identity": 6, "draw-only": 6}


def test_another_site_is_evaluated_with_its_placebos_and_others_are_told_apart_from_the_gate():
    Path("armlet.json").write_text(json.dumps({"policy": "outward", "site": "product"}))
    found = result("evaluate", *FEW, "--policy", "outward", "--site", "product")
    (task,) = found["tasks"]
    assert task["same_as_baseline"] == {"identity": 6, "draw-only": 6}
    named = {each["name"]: each for each in found["manifest"]["conditions"]}
    assert named["outward site=product"]["treatment"]["site"] == "product"
    both = result("evaluate", *FEW, "--policy", "outward", "--config", "armlet.json", "--no-placebos")
    assert [each["name"] for each in both["manifest"]["conditions"]] == ["baseline", "outward", "outward site=product"]
    alone = next(each["arm"] for each in task["conditions"] if each["name"] == "outward site=product")
    beside = {each["name"]: each["arm"] for each in both["tasks"][0]["conditions"]}
    assert beside["outward site=product"] == alone != beside["outward"]


def test_the_same_command_goes_on_in_the_same_folder_and_reports_the_same_bytes():
    command = ("evaluate", *FEW, "--no-placebos", "--run")
    whole = result(*command, "whole")
    result(*command, "cut")
    items = Path("cut/items.jsonl")
    for size in (0, 500, len(items.read_bytes()) - 7):
        items.write_bytes(items.read_bytes()[:size])
        assert result(*command, "cut") == whole
        for name in ("report.json", "report.html", "report.md", "items.jsonl"):
            assert Path("cut", name).read_bytes() == Path("whole", name).read_bytes()


def test_a_killed_run_loses_the_batch_in_flight_at_most():
    threads = torch.get_num_threads()  # another number would be another machine
    program = f"import sys, torch; torch.set_num_threads({threads}); from armlet.cli import main; main(sys.argv[1:])"
    arguments = ("--items", "12", "--batch", "2", "--difficulty", "1")
    command = [sys.executable, "-c", program, "evaluate", *arguments, "--run", "killed"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    items = Path("killed/items.jsonl")
    while not items.exists() or items.stat().st_size < 3000:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = items.read_bytes()
    closed = before.count(b'{"closed"')
    assert closed >= 1
    whole = result("evaluate", *arguments, "--run", "whole")
    assert result("evaluate", *arguments, "--run", "killed") == whole
    assert items.read_bytes() == Path("whole/items.jsonl").read_bytes()
    assert items.read_bytes().startswith(before[: before.rfind(b'{"closed"')])


def test_ctrl_c_leaves_a_partial_report_of_paired_items(monkeypatch):
    from armlet.evaluation.engines.local import Local

    answer, calls = Local.answer, []

    def interrupted(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 10:  # of the first batch there are 9: one of each condition, and two of A/A
            raise KeyboardInterrupt
        return answer(self, *arguments, **options)

    whole = result("evaluate", *FEW, "--run", "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Local, "answer", interrupted)
        code, out, err = run("evaluate", *FEW, "--run", "here")
    assert (code, "answers are stored in here, where the same command or call resumes" in err) == (130, True)
    assert "3 of 6" in out or json.loads(Path("here/report.json").read_text())["tasks"][0]["items"] == 3
    assert result("evaluate", *FEW, "--run", "here") == whole


def test_ctrl_c_before_anything_is_closed_leaves_no_report(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("armlet.evaluation.engines.local.Local.answer", interrupted)
    code, out, err = run("evaluate", *FEW, "--run", "here")
    said = re.findall("interrupted.*", err)
    assert (code, out) == (130, "")
    assert said == ["interrupted: 0 of 48 answers are stored in here, where the same command or call resumes"]
    assert not Path("here/report.json").exists()


def test_a_changed_command_is_refused_in_a_used_folder():
    run("evaluate", *FEW, "--run", "here")
    code, out, err = run("evaluate", *FEW, "--run", "here", "--policy", "outward:band=0.2")
    assert (code, out, err.count("armlet: ")) == (2, "", 1)
    assert 'contains another run (conditions[1].name was "outward", is "outward band=0.2"' in err


def test_multiple_choice_is_weighed_on_any_model(tiny, choices):
    found = result("evaluate", tiny, "--data", choices, "--filler", "w7", "--count", "3")
    (task,) = found["tasks"]
    assert (task["name"], task["kind"], task["items"]) == ("choices", "choice", 5)
    assert task["same_as_baseline"] == {"identity": 5, "draw-only": 5}
    assert [each["name"] for each in task["conditions"]] == [
        "baseline",
        "outward",
        "filler 3 × 'w7' between",
        "identity",
        "draw-only",
        "matched (outward)",
        "zeroed (outward)",
        "A/A",
        "temperature",
    ]


def test_several_tasks_are_one_run(tiny, choices):
    found = result("evaluate", tiny, "--data", choices, "--task", "arithmetic", "--items", "3", "--max-new-tokens", "4")
    assert [task["name"] for task in found["tasks"]] == ["arithmetic", "choices"]


def test_samples_votes_and_combinations_are_there():
    options = ("--filler", "/", "--count", "2", "--best-of", "3", "--combine", "--no-placebos")
    (task,) = result("evaluate", *FEW, *options)["tasks"]
    names = [row["condition"] for row in task["comparisons"]]
    assert "outward + filler 2 × '/' between + best of 3, majority" in names
    sampled = result("evaluate", *FEW, "--samples", "3", "--temperature", "0.8", "--no-placebos")
    assert list(sampled["tasks"][0]["conditions"][0]["pass_at"]) == ["1", "3"]


def test_published_settings_are_evaluated_as_given():
    code, out, err = run(
        "evaluate", *FEW, "--policy", "published:Qwen2.5-7B-Instruct/MATH-500", "--no-placebos", "--json"
    )
    assert code == 0
    assert json.loads(out)["manifest"]["conditions"][1]["treatment"]["band"] == 0.1
    assert "the authors chose this setting for Qwen2.5-7B-Instruct on the test set of MATH-500" in err


def test_an_armlet_json_is_evaluated_as_saved():
    Path("armlet.json").write_text(json.dumps({"policy": "inward", "knee": 0.9, "layers": [1], "seed": 4}))
    found = result("evaluate", *FEW, "--config", "armlet.json", "--no-placebos")
    treatment = found["manifest"]["conditions"][1]["treatment"]
    assert (treatment["policy"], treatment["knee"], treatment["layers"], treatment["seed"]) == ("inward", 0.9, [1], 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "maths"), "--task: expected arithmetic, math500"),
        (("--data", "absent"), "--data: absent cannot be read"),
        (("--policy", "sideways"), "policy: expected one of"),
        (("--policy", "published:Qwen2.5-7B-Instruct/AIME24"), "did not use ARM"),
        (("--layers", "9"), "9"),
        (("--position", "middle"), "'middle' is not one of 'before', 'between', 'end', 'random'"),
        (("--grader", "mine"), "--grader: expected math-verify or released"),
        (("--samples", "2"), "all greedy answers to an item are the same"),
        (("--task", "arithmetic", "--task", "arithmetic"), "--task: two tasks are named 'arithmetic'"),
        (("--difficulty", "99"), "difficulty: expected 1 to"),
        (("--config", "absent.json"), "absent.json: cannot be read"),
        (("--endpoint", "http://127.0.0.1:9"), "name the model as the server knows it"),
        (("--filler", ""), "filler: '' has no tokens"),
        (("--device", "meta"), "'meta' has no values"),
        (("--count", "9"), "--count: applies to a filler, and there is none"),
        (("--position", "end"), "--position: applies to a filler, and there is none"),
        (
            ("--config", "absent.json", "--layers", "1"),
            "layers, scope, site, experts: they apply to a policy, and there is none",
        ),
        (("--config", "absent.json", "--site", "product"), "layers, scope, site, experts: they apply to a policy"),
        (("--site", "down"), "'down' is not one of 'gate', 'up', 'product'"),
        (("--concurrency", "2"), "--concurrency: applies to an --endpoint"),
        (("--temperature", "inf"), "--temperature: expected a number of at least 0, found inf"),
        (("--temperature", "nan"), "'--temperature': Input should be greater than or equal to 0"),
        (("--top-p", "nan"), "'--top-p': Input should be less than or equal to 1"),
    ],
    ids=repr,
)
def test_bad_input_is_one_line_and_leaves_no_report(arguments, message):
    code, out, err = run("evaluate", "--items", "4", *arguments)
    assert (code, out, err.replace("\n", " ").count("armlet: ")) == (2, "", 1)
    assert message in err
    assert not list(Path().rglob("report.*"))


@pytest.mark.parametrize(
    ("option", "value"),
    [("system", ""), ("best-of", 1), ("samples", 2), ("temperature", 1), ("top-p", 0.9), ("max-new-tokens", 9)],
)
def test_options_of_generated_answers_are_refused_where_choices_are_weighed(tiny, choices, option, value):
    code, out, err = run("evaluate", tiny, "--data", choices, f"--{option}", value)
    assert (code, out) == (2, "")
    assert f"--{option}: has no effect on multiple choice; leave it out" in err


def test_a_temperature_changes_how_choices_are_weighed(tiny, choices):
    found = result("evaluate", tiny, "--data", choices, "--run", "weighed")
    rows = [json.loads(line) for line in Path("weighed/items.jsonl").read_text().splitlines()]
    own = {
        name: [r["loglikelihoods"] for r in rows if r.get("condition") == name] for name in ("baseline", "temperature")
    }
    assert len(own["baseline"]) == len(own["temperature"]) == found["tasks"][0]["items"] == 5
    assert own["baseline"] != own["temperature"]


def test_arm_that_moves_nothing_is_said_in_the_verdict_and_on_stderr():
    code, text, notes = run("evaluate", *FEW, "--no-placebos", "--policy", "outward:strength=0")
    assert (code, "; ARM moved no values" in text) == (0, True)
    assert "no values moved in layer 0" in " ".join(notes.split())


def test_what_can_be_shown_counts_the_comparisons_that_are_judged():
    _, _, alone = run("evaluate", *FEW, "--no-placebos")
    _, _, three = run("evaluate", *FEW, "--no-placebos", "--policy", "outward", "--policy", "inward", "--filler", "/")
    assert "Holm" not in alone
    assert "after Holm's correction for 3 comparisons" in " ".join(three.split())


def test_a_server_is_asked_without_arm_and_a_treated_one_with_it():
    with serving() as plain, serving() as treated:
        both = ("--endpoint", plain.url, "--treated-endpoint", treated.url, "--policy", "outward")
        alone = result("evaluate", "tiny", *FEW, "--endpoint", plain.url)
        code, text, notes = run("evaluate", "tiny", *FEW, *both, "--json")
    found = json.loads(text)
    assert (code, "cannot be verified" in notes) == (0, True)
    names = [[each["name"] for each in one["tasks"][0]["conditions"]] for one in (alone, found)]
    assert names == [["baseline", "A/A", "temperature"], ["baseline", "outward", "A/A", "temperature"]]
    assert (len(plain.requests), len(treated.requests)) == (6 * 6, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--policy", "outward"), "armlet: --treated-endpoint: a server without ARM cannot run outward"),
        (("--treated-endpoint", "http://127.0.0.1:9"), "state with --policy or --config what is attached"),
        (("--dtype", "float32"), "--dtype and --device are the server's own"),
    ],
)
def test_a_server_that_would_not_be_what_is_said_is_refused(options, message):
    code, _, err = run("evaluate", "tiny", *FEW, "--endpoint", "http://127.0.0.1:9", *options)
    assert (code, message in " ".join(err.split())) == (2, True)
