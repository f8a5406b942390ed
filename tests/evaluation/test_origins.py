"""No second look by mistake: the items that chose a setting are left out, or it is said that this is no test."""

import json
from pathlib import Path

import pytest

from armlet import presets
from armlet.attachment.config import load_origin
from armlet.attachment.origin import Origin
from armlet.evaluation import evaluate, tune
from armlet.evaluation.conditions.conditions import make_treatments
from armlet.evaluation.report.page import markdown
from armlet.evaluation.search.results import Search
from armlet.evaluation.tasks.problems import Problem
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.presets import PUBLISHED_TASKS, is_test_set
from evaluations import Fake


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows(items):
    return [{"id": f"n{at}", "question": f"{at}+{at}=?", "answer": str(2 * at)} for at in items]


def tuned_file(items):
    """The armlet.json of a search on these items."""
    hashes = tuple(Problem("", row["question"], "").content_hash() for row in items)
    content = {"policy": "inward", "origin": Origin("tune", "mine", ("sums",), "ab" * 32, hashes).plain()}
    path = Path("armlet.json")
    path.write_text(json.dumps(content))
    return path


def faked(**arguments):
    """Findings of made-up answers."""
    return evaluate(engine=lambda _conditions, _tasks: Fake(), placebos=False, **arguments)


def test_the_items_of_a_search_are_left_out_whatever_their_file_and_ids_and_this_is_said(capsys):
    file = tuned_file(rows(range(6)))
    renamed = [{**row, "id": f"other{row['id']}"} for row in rows(range(10))]
    findings = faked(treatments=file, task=renamed)
    assert findings.tasks[0].items == 4
    sentence = "inward: this setting was tuned on 6 items of sums (run folder mine), left out here: 6 of items"
    assert sentence in capsys.readouterr().err
    assert sentence in findings.sentences()
    assert sentence in markdown(findings)
    assert not any("not a test" in sentence for sentence in findings.sentences())


def test_kept_items_are_counted_beside_the_verdict(capsys):
    findings = faked(treatments=tuned_file(rows(range(6))), task=rows(range(10)), keep_tuning_items=True)
    assert findings.tasks[0].items == 10
    assert findings.sentences()[0].endswith("; not a test: this setting was chosen on 6 of these items")
    assert "in this run: 6 of items: not a test of the setting" in capsys.readouterr().err
    report = json.loads(json.dumps(findings.to_dict()))
    assert report["manifest"]["origins"][0]["shared"] == {"items": 6}


def test_a_run_of_tuning_items_alone_or_with_nothing_to_keep_is_refused():
    file = tuned_file(rows(range(6)))
    with pytest.raises(ArgumentError, match=r"^items: all 5 items of items chose the setting"):
        faked(treatments=file, task=rows(range(5)))
    with pytest.raises(ArgumentError, match=r"^keep_tuning_items: no treatment is the armlet.json of a search"):
        faked(treatments="inward", task=rows(range(5)), keep_tuning_items=True)


@pytest.mark.slow
def test_other_items_are_all_kept_and_a_run_without_an_origin_says_nothing(capsys):
    findings = faked(treatments=tuned_file(rows(range(6))), task=rows(range(6, 10)))
    assert findings.tasks[0].items == 4
    assert "none of which are in this run" in capsys.readouterr().err
    assert "origins" not in faked(treatments="inward", task=rows(range(3))).to_dict()["manifest"]


def test_a_published_setting_on_its_own_test_set_is_no_test_and_on_another_one_it_is(tmp_path, capsys):
    path = tmp_path / "aime24.jsonl"
    path.write_text("\n".join(map(json.dumps, rows(range(4)))))
    findings = faked(treatments=["published:Qwen2.5-Math-7B/AIME24", "published:Qwen2.5-Math-7B/MATH-500"], task=path)
    own, other = findings.verdicts
    assert own.sentence.endswith("; not a test: this setting was chosen on 4 of these items")
    assert "not a test" not in other.sentence
    assert findings.tasks[0].items == 4
    said = capsys.readouterr().err
    assert "for Qwen2.5-Math-7B on the test set of AIME24 (arXiv 2510.01032), and this run has items of that" in said
    assert "on the test set of MATH-500 (arXiv 2510.01032), none of which are in this run" in said


def test_equal_settings_of_two_presets_have_both_origins():
    texts = [f"published:Qwen2.5-Math-1.5B/{task}" for task in ("MATH-500", "AIME24")]
    (treatment,) = make_treatments(["outward", *texts])
    assert [origin.tasks for origin in treatment.origins] == [("MATH-500",), ("AIME24",)]
    (unknown,) = make_treatments(presets.published("Qwen2.5-Math-1.5B", "AIME24"))
    assert unknown.origins == ()


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("math500", ["MATH-500"]),
        ("HuggingFaceH4/MATH-500", ["MATH-500"]),
        ("HuggingFaceH4/aime_2024", ["AIME24"]),
        ("math-ai/aime25", ["AIME25"]),
        ("openai/openai_humaneval", ["HumanEval"]),
        ("Idavidrein/gpqa", ["GPQA-D"]),
        ("livecodebench/code_generation_lite", ["LiveCodeBench"]),
        ("openai/gsm8k", []),
        ("arithmetic", []),
    ],
)
def test_a_test_set_is_recognised_by_its_name_and_its_hub_id(name, tasks):
    assert [task for task in PUBLISHED_TASKS if is_test_set(task, name)] == tasks


def test_the_content_of_an_item_is_neither_its_id_nor_its_gold():
    problem = Problem("a", "1+1", "2")
    assert problem.content_hash() == Problem("b", " 1+1\n", "3").content_hash()
    assert problem.content_hash() != Problem("a", "1+1", "2", choices=("1", "2")).content_hash()


@pytest.mark.slow
def test_a_search_saves_its_tuning_items_and_an_evaluation_of_all_items_leaves_them_out():
    search = tune("abacus", task=rows(range(12)), search="strength", trials=0, max_new_tokens=4)
    search.save("saved")
    origin = load_origin("saved")
    assert (origin.source, origin.name, origin.tasks) == ("tune", search.folder.name, ("items",))
    assert len(origin.items) == search.budget.items
    findings = faked(treatments=Path("saved"), task=rows(range(12)))
    assert findings.tasks[0].items == 12 - search.budget.items
    stored = json.loads((search.folder / "search.json").read_text())
    again = Search.from_dict(search.folder, stored)
    assert again.is_same_as(search)
    del stored["origin"]  # as an earlier version wrote it
    (Path("saved") / "armlet.json").write_text(json.dumps(stored["best"]["armlet"], indent=2) + "\n")
    search.save("saved")
    assert load_origin("saved") == origin
