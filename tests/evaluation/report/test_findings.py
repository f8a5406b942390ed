"""Report follow from the items: every number of a report has its plain definition here."""

import json
from dataclasses import replace

import numpy as np
import pytest

from armlet import Outward
from armlet.evaluation.batches import run
from armlet.evaluation.conditions.conditions import Filling, Treatment, conditions
from armlet.evaluation.grading.graders import EQUAL
from armlet.evaluation.report.analysis import analyse_run, planned_power
from armlet.evaluation.report.findings import PairedComparison, Side
from armlet.evaluation.report.sentences import placebo_checks, power_announcement, verdict_sentence
from armlet.presentation.numbers import detectable_points
from armlet.prompts.fillers import Filler
from armlet.runs.folder import open_run_folder
from armlet.runs.machine import machine
from armlet.statistics.comparison import compare
from armlet.statistics.power import detectable, items_for_margin
from armlet.statistics.significance import holm
from armlet.statistics.votes import majority, pass_at_k
from engines import Fake
from evaluations import plan, task

pytestmark = pytest.mark.slow

OUT, SLASHES = Treatment(Outward()), Filling(Filler("/", 3))


@pytest.fixture
def found(tmp_path):
    def perform(planned_run, engine=None, margin=None):
        planned_run = replace(planned_run, margin=margin)
        with open_run_folder(tmp_path / "run", planned_run.manifest(engine or Fake()), machine()) as journal:
            run(planned_run, engine or Fake(), journal)
            return analyse_run(journal, planned_run.tasks, EQUAL), journal.rows

    return perform


def correct(rows, name, task_name="sums"):
    """`[items, samples]`, items by their ids."""
    own = [row for row in rows if (row["condition"], row["task"]) == (name, task_name)]
    items = sorted({row["item"] for row in own})
    return np.array([[row["correct"] for row in own if row["item"] == item] for item in items], dtype=float)


def comparison(report, name, against="baseline", selection="", other=""):
    """Of the first task; `selection` and `other`: which samples count on the two sides."""
    sides = Side(name, selection), Side(against, other)
    return next(pair for pair in report.tasks[0].comparisons if (pair.treated, pair.against) == sides)


def test_differences_are_those_of_compare_on_the_same_items(found):
    report, rows = found(plan([task(60)]))
    judged = sum(pair.judged for pair in report.tasks[0].comparisons)
    for name in ("outward", "filler 3 × '/' between", "identity", "temperature"):
        wanted = compare(correct(rows, "baseline"), correct(rows, name), comparisons=judged)
        assert comparison(report, name).comparison == wanted
    for control in ("matched (outward)", "zeroed (outward)"):
        wanted = compare(correct(rows, control), correct(rows, "outward"), comparisons=judged)
        assert comparison(report, "outward", control).comparison == wanted


def test_identity_and_draw_only_are_compared_letter_for_letter(found):
    report, _ = found(plan([task(20)]))
    assert report.tasks[0].same_as_baseline == {"identity": 20, "draw-only": 20}


def test_holm_goes_over_all_judged_comparisons_of_all_tasks_and_over_no_placebo(found):
    report, _ = found(plan([task(40), task(50, "more")]))
    pairs = [pair for each in report.tasks for pair in each.comparisons]
    judged = [pair for pair in pairs if pair.judged]
    assert [pair.treated.condition for pair in judged] == ["outward", "filler 3 × '/' between"] * 2
    assert [pair.p_holm for pair in judged] == holm([pair.comparison.p_value for pair in judged])
    assert all("p_holm" not in pair.to_dict() for pair in pairs if not pair.judged)
    assert [verdict.outcome for verdict in report.verdicts] == [pair.verdict for pair in judged]


def test_a_verdict_needs_the_corrected_p_value():
    comparison = compare([0] * 8, [1] * 8)
    assert (comparison.p_value, comparison.verdict) == (2 / 2**8, "helped")
    corrected = [PairedComparison(Side("a"), Side("b"), True, comparison, p_holm) for p_holm in (0.03, 0.06)]
    assert [pair.verdict for pair in corrected] == ["helped", "no difference shown"]
    assert [pair.to_dict()["verdict"] for pair in corrected] == [pair.verdict for pair in corrected]
    assert PairedComparison(Side("a"), Side("b"), False, comparison).verdict == "helped"


def test_a_margin_is_corrected_over_the_judged_comparisons_too(found):
    report, _ = found(plan([task(40), task(50, "more")]), margin=30)
    pairs = [pair for each in report.tasks for pair in each.comparisons]
    judged = [pair for pair in pairs if pair.judged]
    assert [pair.p_equivalence_holm for pair in judged] == holm([pair.comparison.p_equivalence for pair in judged])
    assert all(pair.p_equivalence_holm is None and pair.comparison.margin == 0.3 for pair in pairs if not pair.judged)
    assert report.to_dict()["margin"] == 0.3


def test_a_claim_of_a_small_difference_needs_the_corrected_p_value():
    baseline, treated = [0] * 200, [1] * 3 + [0] * 197
    comparison = compare(baseline, treated, margin=0.05)
    said = [PairedComparison(Side("a"), Side("b"), True, comparison, 1.0, p_value).verdict for p_value in (0.04, 0.06)]
    assert said == ["no difference larger than 5 points", "no difference shown"]
    helped = PairedComparison(Side("a"), Side("b"), True, comparison, 0.01, 0.01)
    assert helped.verdict == "helped by less than 5 points"
    assert PairedComparison(Side("a"), Side("b"), True, comparison, 0.01, 0.06).verdict == "helped"


def test_without_a_difference_the_verdict_says_what_fits_and_what_would_have_been_shown(found):
    report, _ = found(plan([task(60)], conditions([OUT], [Filling(Filler("/", 3))], placebos=False)), margin=2)
    (only,) = report.tasks
    pair = only.comparisons[0]
    said = verdict_sentence(only, replace(pair, p_holm=1.0, comparison=replace(pair.comparison, interval=(-0.1, 0.1))))
    assert "no difference shown (" in said
    assert "; any difference in the interval may be true; one larger than 2 points is not ruled out; " in said
    needed = detectable_points(pair.comparison.smallest_detectable)
    assert said.endswith(f"; if the true difference were {needed}, 4 of 5 such runs would show it)")
    assert len(said) < 260
    small = replace(pair, p_holm=1.0, comparison=replace(pair.comparison, p_equivalence=0.03), p_equivalence_holm=0.06)
    assert "larger than 2 points is ruled out only without Holm's correction; " in verdict_sentence(only, small)
    beside = replace(pair, p_holm=0.08, comparison=replace(pair.comparison, interval=(0.01, 0.1)))
    assert "; the interval excludes 0, but p = 0.080 after Holm's" in verdict_sentence(only, beside)


def test_the_noise_floor_is_the_baseline_against_itself(found):
    report, rows = found(plan([task(60)]))
    (only,) = report.tasks
    texts = {
        name: [row["text"] for row in sorted(rows, key=lambda row: row["item"]) if row["condition"] == name]
        for name in ("baseline", "A/A")
    }
    floor = only.noise_floor
    assert floor.differing == sum(first != again for first, again in zip(*texts.values(), strict=True)) > 0
    assert (floor.items, floor.sampled) == (60, False)
    assert floor.difference == comparison(report, "A/A").comparison.difference
    assert placebo_checks(only)[-1].sentence.startswith(
        f"noise floor: the baseline against itself at another batch size: {floor.differing} of 60 items answered differ"
    )
    assert report.to_dict()["tasks"][0]["noise_floor"]["differing"] == floor.differing


def test_a_verdict_that_is_not_above_the_noise_floor_says_so(found):
    report, _ = found(plan([task(60)]))
    (only,) = report.tasks
    pair = replace(only.comparisons[0], p_holm=0.001)
    for difference, is_above in ((0.05, False), (-0.05, False), (0.2, True)):
        judged = replace(pair, comparison=replace(pair.comparison, difference=difference))
        noisy = replace(only, noise_floor=replace(only.noise_floor, difference=0.1))
        assert (
            "not above the noise floor: the baseline differs from itself by +10.0" in verdict_sentence(noisy, judged)
        ) != is_above


def test_more_comparisons_need_a_larger_difference(found):
    alone, _ = found(plan([task(200)], conditions([OUT], [])))
    assert alone.tasks[0].planned == planned_power(200)
    sizes = [planned_power(200, judged).smallest_detectable for judged in (1, 2, 10)]
    assert sizes == sorted(set(sizes))
    # Of m comparisons the strictest of Holm's steps is at level 0.05 / m.
    assert sizes[1] == detectable(200, 0.2, 1 - 0.05 / 2)


def test_format_is_counted_apart_from_correctness(found):
    report, rows = found(plan([task(60)]))
    base = report.tasks[0].baseline.answers
    own = [row for row in rows if row["condition"] == "baseline"]
    read = [row for row in own if row["extracted"] is not None]
    assert 0 < len(read) < 60
    assert base.extracted == len(read) / 60
    assert base.truncated == pytest.approx(np.mean([not row["ended"] for row in own]))
    assert base.accuracy_of_extracted == pytest.approx(np.mean([row["correct"] for row in read]))
    assert base.tokens == pytest.approx(np.mean([row["tokens"] for row in own]))


def test_several_samples_give_pass_at_k_and_a_majority(found):
    compared = conditions([OUT], [], samples=3, temperature=0.5, placebos=False)
    report, rows = found(plan([task(30)], compared))
    own = correct(rows, "baseline")
    assert report.tasks[0].baseline.answers.pass_at == {str(k): pytest.approx(pass_at_k(own, k).mean()) for k in (1, 3)}
    voted = {}
    for name in ("baseline", "outward"):
        own = sorted((row for row in rows if row["condition"] == name), key=lambda row: (row["item"], row["sample"]))
        groups = [own[at : at + 3] for at in range(0, len(own), 3)]
        chosen = [majority([row["extracted"] for row in group]) for group in groups]
        voted[name] = [at is not None and group[at]["correct"] for at, group in zip(chosen, groups, strict=True)]
    pair = comparison(report, "outward", selection="majority", other="majority")
    assert pair.to_dict()["condition"] == "outward, majority"
    assert pair.comparison.difference == pytest.approx(np.mean(voted["outward"]) - np.mean(voted["baseline"]))


def test_the_best_of_several_is_by_vote_by_likelihood_and_any(found):
    report, rows = found(plan([task(30)], conditions([], [], best_of=4, placebos=False)))
    base, own = correct(rows, "baseline"), correct(rows, "best of 4")
    assert comparison(report, "best of 4", selection="any").comparison.difference == pytest.approx(
        (own.max(1) - base[:, 0]).mean()
    )
    # The fake engine is surest of its right answers.
    likeliest, best = (comparison(report, "best of 4", selection=name).comparison for name in ("likeliest", "any"))
    assert likeliest.difference == best.difference
    assert [str(pair.treated) for pair in report.tasks[0].comparisons if pair.judged] == [
        "best of 4, majority",
        "best of 4, likeliest",
    ]


def test_discordant_items_are_all_there_with_both_answers(found):
    report, rows = found(plan([task(40)]))
    base, treated = (correct(rows, name)[:, 0] for name in ("baseline", "outward"))
    shown = [item for item in report.tasks[0].discordant if item.condition == "outward"]
    assert len(shown) == (base != treated).sum()
    assert sum(item.gained for item in shown) == ((treated == 1) & (base == 0)).sum()
    assert all(item.baseline != item.answer for item in shown)


def test_multiple_choice_has_its_accuracy_normalised_and_no_format(found):
    choice = task(30, kind="choice")
    report, _ = found(plan([choice], conditions([OUT], [], temperature=1.0)))
    assert set(report.tasks[0].baseline.to_dict()) == {
        "name",
        "role",
        "samples",
        "accuracy",
        "accuracy_normalised",
        "arm",
    }


def test_what_arm_did_is_added_up_over_the_batches(found):
    report, _ = found(plan([task(9)], batch=3))
    treated = report.tasks[0].conditions[1].to_dict()
    assert treated["arm"]["0"] == {"tokens": 30, "moved": 15, "share_moved": pytest.approx(0.05), "passed": 0}


def test_findings_are_json_without_a_time(found):
    report, _ = found(plan())
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert not any(word in text for word in ('"time', '"date', '"seconds'))


def test_what_can_be_shown_is_announced_for_a_fifth_of_discordant_pairs():
    assert planned_power(2000).smallest_detectable == pytest.approx(0.0284, abs=1e-3)
    assert planned_power(4).smallest_detectable is None


def test_the_items_that_a_margin_needs_are_announced_before_the_run():
    needed = items_for_margin(0.02, 0.2)
    few, enough = (power_announcement("sums", planned_power(items, margin=0.02)) for items in (needed - 1, needed))
    claim = "; under the same assumption, showing 'no difference larger than 2 points' takes about 4,297 items"
    assert few.endswith(f"{claim}, more than this run has")
    assert enough.endswith(claim)
    assert ": 4 items are too few to show any difference at 80 %" in power_announcement("q", planned_power(4))
    assert planned_power(100, 4, 0.02).margin_items == items_for_margin(0.02, 0.2, 1 - 0.05 / 4) > needed
