"""Several run folders are one report, as if they had been one run, and what does not belong together is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from armlet.evaluation import evaluate, merge_runs
from armlet.redistribution.errors import ArgumentError
from armlet.runs.folder import RunError
from evaluations import Fake, choices, sums

pytestmark = pytest.mark.slow

SUMS, CHOICES = sums(40), choices(30)
TREATMENTS = ["outward:band=0.2", "inward"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def ran(folder, task=SUMS, engine=None, **arguments):
    """The findings of a run in this folder."""
    fixed = {"treatments": TREATMENTS, "batch": 10, "run": folder, **arguments}
    return evaluate(engine=lambda *_: engine or Fake(), task=task, **fixed)


def plain(findings, *names):
    content = json.loads(json.dumps(findings.to_dict()))
    return {name: content[name] for name in names} if names else content


def part(task, start, end):
    """The task with some of its items."""
    return replace(task, problems=task.problems[start:end])


def test_a_single_run_is_reported_as_it_was():
    findings = ran("run")
    assert plain(merge_runs("run")) == plain(findings)
    assert merge_runs(Path("run")).folder == Path("run")


def test_a_report_has_the_margin_of_its_runs():
    findings = ran("run", margin=20)
    assert plain(findings)["margin"] == 0.2
    assert plain(merge_runs("run")) == plain(findings)


def test_runs_of_two_tasks_are_the_run_of_both_with_holm_over_all():
    together = ran("together", [SUMS, CHOICES], placebos=False)
    ran("sums", SUMS, placebos=False)
    ran("choices", CHOICES, placebos=False)
    merged = merge_runs(["sums", "choices"])
    assert plain(merged) == plain(together)
    assert [task.planned.comparisons for task in merged.tasks] == [4, 4]
    assert merge_runs("sums").tasks[0].planned.comparisons == 2
    assert merged.folder is None


def test_items_of_two_runs_are_pooled():
    whole = ran("whole").tasks[0]
    for name, items in (("first", part(SUMS, 0, 15)), ("second", part(SUMS, 15, 40))):
        ran(name, items)
    merged = merge_runs(["first", "second"])
    (task,) = merged.tasks
    assert (task.items, task.planned_items, merged.complete) == (40, 40, True)
    assert task.same_as_baseline == whole.same_as_baseline
    for pair, expected in zip(task.comparisons, whole.comparisons, strict=True):
        if str(expected.treated) == "A/A":
            continue  # its answers are those of other batches
        for name in ("difference", "gained", "lost", "p_value", "smallest_detectable", "items"):
            assert getattr(pair.comparison, name) == pytest.approx(getattr(expected.comparison, name))
        assert pair.p_holm == expected.p_holm
    assert merged.settings.tasks[0].items == 40
    for condition, expected in zip(task.conditions, whole.conditions, strict=True):
        assert {layer: activity.tokens for layer, activity in condition.arm.items()} == {
            layer: 5 * activity.tokens // 4
            for layer, activity in expected.arm.items()  # in 5 batches instead of 4
        }


class Seeded(Fake):
    """Answers otherwise with another seed."""

    def answer(self, asks, condition, sampling, *, batch, sample):
        return super().answer(asks, condition, sampling, batch=batch, sample=sample + sampling.seed)


def test_other_seeds_are_further_samples_of_the_same_items():
    first, second = (ran(f"seed {seed}", engine=Seeded(), seed=seed).tasks[0] for seed in (0, 1))
    merged = merge_runs(["seed 0", "seed 1"])
    (task,) = merged.tasks
    assert task.items == 40
    for condition, *each in zip(task.conditions, first.conditions, second.conditions, strict=True):
        assert condition.samples == 2
        assert condition.accuracy == pytest.approx(sum(one.accuracy for one in each) / 2)
    assert {pair.comparison.test for pair in task.comparisons} == {"sign flips of items"}
    assert merged.settings.sampling["integer"]["seed"] == "0, 1"


def test_an_unfinished_run_counts_with_its_items_and_says_so():
    class Interrupted(Fake):
        def fired(self):
            if self.calls == 13:  # the first answer to the third of four batches
                raise KeyboardInterrupt
            return super().fired()

    assert ran("cut", engine=Interrupted()).interrupted
    merged = merge_runs("cut")
    assert (merged.complete, merged.tasks[0].items) == (False, 20)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"treatments": ["outward:band=0.3", "inward"]}, r"other: cannot be merged with run, .*band was 0.2, is 0.3"),
        ({"placebos": False}, r"they differ: conditions of the first only: A/A, temperature$"),
        ({"engine": Fake(name="another")}, r"differ: --model was \"made-up/model\", is \"another\""),
        ({"margin": 20}, r"^other: cannot be merged with run, because they differ: --margin was null, is 20.0$"),
        ({"max_new_tokens": 7}, r"--max-new-tokens was 256, is 7"),
        ({}, r"other: another run has the same items of arithmetic with the same seed; name it once"),
        (
            {"task": part(SUMS, 30, 40)},
            r"other: arithmetic: 10 of its 10 items are in another run, too, which has 40; run it again",
        ),
        ({"task": sums(50)}, r"other: arithmetic: 40 of its 50 items are in another run, too"),
    ],
    ids=str,
)
def test_runs_that_do_not_belong_together_are_refused(other, message):
    ran("run")
    ran("other", **other)
    with pytest.raises(ArgumentError, match=message):
        merge_runs(["run", "other"])


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"^absent: is no run folder"):
        merge_runs("absent")
    with pytest.raises(ArgumentError, match=r"^runs: expected at least one run folder, found none$"):
        merge_runs([])
    with pytest.raises(ArgumentError, match=r"^runs: expected a path, found "):
        merge_runs([5])
    for content, message in (
        ("{}", "is not a run of `evaluate`"),
        ("[]", "is no run folder"),
        ("{", "is no run folder"),
    ):
        Path("manifest.json").write_text(content)
        with pytest.raises((ArgumentError, RunError), match=message):
            merge_runs(tmp_path)


def test_a_search_is_refused():
    ran("run")
    manifest = json.loads(Path("run/manifest.json").read_text())
    Path("run/manifest.json").write_text(json.dumps(manifest | {"search": {}}))
    with pytest.raises(ArgumentError, match=r"^run: is a search; its confirmation, in the folder test, can be"):
        merge_runs("run")


def test_a_run_of_an_older_version_lacks_its_problems_until_its_command_is_run_again():
    ran("run")
    Path("run/tasks.jsonl").unlink()
    with pytest.raises(ArgumentError, match=r"^run: has no tasks.jsonl, .*; run its command again") as caught:
        merge_runs("run")
    assert "\n" not in str(caught.value)
    again = Fake()
    ran("run", engine=again)
    assert again.calls == 0
    assert merge_runs("run").complete


DAMAGES = {
    "cut": lambda text: text[:-30],
    "changed": lambda text: text.replace("39 + 39", "39 + 38"),
    "emptied": lambda _: "",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_other_problems_than_those_of_the_run_are_refused(damage):
    ran("run")
    file = Path("run/tasks.jsonl")
    file.write_text(damage(file.read_text()))
    with pytest.raises(ArgumentError, match=r"^run/tasks.jsonl: does not have the problems of the run"):
        merge_runs("run")
