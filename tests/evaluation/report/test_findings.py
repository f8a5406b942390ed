"""Findings follow from the items: every number of a report has its plain definition here."""

import json

import numpy as np
import pytest

from armlet import Outward
from armlet.evaluation.conditions.conditions import Filling, Treatment, conditions
from armlet.evaluation.grading.graders import EQUAL
from armlet.evaluation.report.findings import adjust, findings, planned
from armlet.evaluation.run import run
from armlet.prompts.fillers import Filler
from armlet.runs.folder import open_run_folder
from armlet.runs.machine import machine
from armlet.statistics.comparison import compare
from armlet.statistics.power import detectable
from armlet.statistics.significance import holm
from armlet.statistics.votes import majority, pass_at_k
from engines import Fake
from evaluations import plan, task

OUT, SLASHES = Treatment(Outward()), Filling(Filler("/", 3))


@pytest.fixture
def found(tmp_path):
    def perform(planned_run, engine=None):
        with open_run_folder(tmp_path / "run", planned_run.manifest(engine or Fake()), machine()) as journal:
            run(planned_run, engine or Fake(), journal)
            return findings(journal, planned_run.tasks, EQUAL), journal.rows

    return perform


def correct(rows, name, task_name="sums"):
    """`[items, samples]`, items by their ids."""
    own = [row for row in rows if (row["condition"], row["task"]) == (name, task_name)]
    items = sorted({row["item"] for row in own})
    return np.array([[row["correct"] for row in own if row["item"] == item] for item in items], dtype=float)


def comparison(found, name, against="baseline", at=0):
    rows = found["tasks"][at]["comparisons"]
    return next(row for row in rows if (row["condition"], row["against"]) == (name, against))


def test_differences_are_those_of_compare_on_the_same_items(found):
    report, rows = found(plan([task(60)]))
    judged = sum(row["judged"] for row in report["tasks"][0]["comparisons"])
    for name in ("outward", "filler 3 × '/' between", "identity", "temperature"):
        wanted = compare(correct(rows, "baseline"), correct(rows, name), comparisons=judged).plain()
        kept = [key for key in wanted if key != "verdict"]  # that follows Holm's correction
        assert {key: comparison(report, name)[key] for key in kept} == {key: wanted[key] for key in kept}
    wanted = compare(correct(rows, "matched (outward)"), correct(rows, "outward"), comparisons=judged)
    assert comparison(report, "outward", "matched (outward)")["difference"] == wanted.difference


def test_identity_and_draw_only_are_compared_letter_for_letter(found):
    report, _ = found(plan([task(20)]))
    assert report["tasks"][0]["same_as_baseline"] == {"identity": 20, "draw-only": 20}


def test_holm_goes_over_all_judged_comparisons_of_all_tasks_and_over_no_placebo(found):
    report, _ = found(plan([task(40), task(50, "more")]))
    judged = [row for each in report["tasks"] for row in each["comparisons"] if row["judged"]]
    assert [row["condition"] for row in judged] == ["outward", "filler 3 × '/' between"] * 2
    assert [row["p_holm"] for row in judged] == holm([row["p_value"] for row in judged])
    assert all("p_holm" not in row for each in report["tasks"] for row in each["comparisons"] if not row["judged"])
    assert len(report["verdicts"]) == 4


def test_a_verdict_needs_the_corrected_p_value():
    rows = [{"judged": True, "p_value": p, "confidence": 0.95, "verdict": "helped"} for p in (0.01, 0.03, 0.04)]
    rows.append({"judged": False, "p_value": 0.04, "confidence": 0.95, "verdict": "helped"})
    adjust(rows)
    assert [row.get("p_holm") for row in rows] == [pytest.approx(0.03), pytest.approx(0.06), pytest.approx(0.06), None]
    assert [row["verdict"] for row in rows] == ["helped", "no difference shown", "no difference shown", "helped"]


def test_more_comparisons_need_a_larger_difference(found):
    alone, _ = found(plan([task(200)], conditions([OUT], [])))
    assert alone["tasks"][0]["planned"] == planned(200)
    sizes = [planned(200, judged)["smallest_detectable"] for judged in (1, 2, 10)]
    assert sizes == sorted(set(sizes))
    # Of m comparisons the strictest of Holm's steps is at level 0.05 / m.
    assert sizes[1] == detectable(200, 0.2, 1 - 0.05 / 2)


def test_format_is_counted_apart_from_correctness(found):
    report, rows = found(plan([task(60)]))
    base = next(row for row in report["tasks"][0]["conditions"] if row["name"] == "baseline")
    own = [row for row in rows if row["condition"] == "baseline"]
    read = [row for row in own if row["extracted"] is not None]
    assert 0 < len(read) < 60
    assert base["extracted"] == len(read) / 60
    assert base["truncated"] == pytest.approx(np.mean([not row["ended"] for row in own]))
    assert base["accuracy_of_extracted"] == pytest.approx(np.mean([row["correct"] for row in read]))
    assert base["tokens"] == pytest.approx(np.mean([row["tokens"] for row in own]))


def test_several_samples_give_pass_at_k_and_a_majority(found):
    compared = conditions([OUT], [], samples=3, temperature=0.5, placebos=False)
    report, rows = found(plan([task(30)], compared))
    base = report["tasks"][0]["conditions"][0]
    own = correct(rows, "baseline")
    assert base["pass_at"] == {str(k): pytest.approx(pass_at_k(own, k).mean()) for k in (1, 3)}
    voted = {}
    for name in ("baseline", "outward"):
        own = sorted((row for row in rows if row["condition"] == name), key=lambda row: (row["item"], row["sample"]))
        groups = [own[at : at + 3] for at in range(0, len(own), 3)]
        chosen = [majority([row["extracted"] for row in group]) for group in groups]
        voted[name] = [at is not None and group[at]["correct"] for at, group in zip(chosen, groups, strict=True)]
    row = comparison(report, "outward, majority", "baseline, majority")
    assert row["difference"] == pytest.approx(np.mean(voted["outward"]) - np.mean(voted["baseline"]))


def test_the_best_of_several_is_by_vote_by_likelihood_and_any(found):
    report, rows = found(plan([task(30)], conditions([], [], best_of=4, placebos=False)))
    base, own = correct(rows, "baseline"), correct(rows, "best of 4")
    assert comparison(report, "best of 4, any")["difference"] == pytest.approx((own.max(1) - base[:, 0]).mean())
    # The fake engine is surest of its right answers.
    likeliest, best = (comparison(report, f"best of 4, {name}")["difference"] for name in ("likeliest", "any"))
    assert likeliest == best
    assert [row["condition"] for row in report["tasks"][0]["comparisons"] if row["judged"]] == [
        "best of 4, majority",
        "best of 4, likeliest",
    ]


def test_discordant_items_are_all_there_with_both_answers(found):
    report, rows = found(plan([task(40)]))
    base, treated = (correct(rows, name)[:, 0] for name in ("baseline", "outward"))
    shown = [row for row in report["tasks"][0]["discordant"] if row["condition"] == "outward"]
    assert len(shown) == (base != treated).sum()
    assert sum(row["gained"] for row in shown) == ((treated == 1) & (base == 0)).sum()
    assert all(row["baseline"] != row["answer"] for row in shown)


def test_multiple_choice_has_its_accuracy_normalised_and_no_format(found):
    choice = task(30, kind="choice")
    report, _ = found(plan([choice], conditions([OUT], [], temperature=1.0)))
    base = report["tasks"][0]["conditions"][0]
    assert set(base) == {"name", "role", "samples", "accuracy", "accuracy_normalised", "arm"}


def test_what_arm_did_is_added_up_over_the_batches(found):
    report, _ = found(plan([task(9)], batch=3))
    treated = report["tasks"][0]["conditions"][1]
    assert treated["arm"]["0"] == {"tokens": 30, "moved": 15, "share_moved": pytest.approx(0.05), "passed": 0}


def test_findings_are_json_without_a_time(found):
    report, _ = found(plan())
    text = json.dumps(report, allow_nan=False)
    assert not any(word in text for word in ('"time', '"date', '"seconds'))


def test_what_can_be_shown_is_announced_for_a_fifth_of_discordant_pairs():
    assert planned(2000)["smallest_detectable"] == pytest.approx(0.0284, abs=1e-3)
    assert planned(4)["smallest_detectable"] is None
