"""A run goes on where it was cut off, and ends with the same bytes."""

import json
from contextlib import suppress

import pytest

from armlet import Outward
from armlet.evaluation.batches import batch_runs, count_answers, run
from armlet.evaluation.conditions.conditions import Treatment, conditions
from armlet.evaluation.grading.graders import EQUAL
from armlet.evaluation.report.analysis import analyse_run
from armlet.presentation.files import json_text
from armlet.runs.folder import open_run_folder
from armlet.runs.machine import machine
from engines import Fake
from evaluations import plan, task


def perform(folder, planned, engine, analysed=True):
    with open_run_folder(folder, planned.manifest(engine), machine()) as journal:
        with suppress(KeyboardInterrupt, MemoryError):
            run(planned, engine, journal)
        return analysed and json_text(analyse_run(journal, planned.tasks, EQUAL).to_dict())


@pytest.mark.slow
@pytest.mark.parametrize(
    "compared", [None, conditions([Treatment(Outward())], [], samples=3, temperature=0.5, best_of=4)]
)
def test_a_run_cut_off_anywhere_ends_with_the_same_bytes(tmp_path, compared):
    planned = plan(compared=compared)
    engine = Fake()
    whole = perform(tmp_path / "whole", planned, engine)
    for stop_at in range(1, engine.calls + 1, 11):
        folder = tmp_path / str(stop_at)
        perform(folder, planned, Fake(stop_at=stop_at, error=MemoryError), analysed=False)
        resumed = Fake()
        assert perform(folder, planned, resumed) == whole
        # Nothing is asked twice but the batch in flight, whose second half may be the one that failed.
        assert resumed.calls - (engine.calls - stop_at + 1) in (0, 1)
        assert (folder / "items.jsonl").read_bytes() == (tmp_path / "whole/items.jsonl").read_bytes()


@pytest.mark.slow
def test_a_finished_run_asks_nothing_again(tmp_path):
    perform(tmp_path, plan(), Fake())
    again = Fake()
    perform(tmp_path, plan(), again)
    assert again.calls == 0


def test_what_there_is_of_a_run_cut_short_is_paired(tmp_path):
    planned = plan()
    names = [condition.name for condition in planned.conditions]
    found = json.loads(perform(tmp_path, planned, Fake(stop_at=len(names) * 2 + 3)))
    (only,) = found["tasks"]
    assert (found["complete"], only["items"], only["planned_items"]) == (False, 6, 11)
    assert {row["items"] for row in only["comparisons"]} == {6}


def test_batches_hold_prompts_of_like_lengths_and_each_item_once():
    planned = plan()
    lengths = [[len(ask.problem.question) for ask in batch.asks] for batch in batch_runs(planned, Fake())]
    assert max(max(batch) - min(batch) for batch in lengths) <= 2
    baseline = [batch for batch in batch_runs(planned, Fake()) if batch.condition.role == "baseline"]
    first = [ask.problem.id for batch in baseline for ask in batch.asks]
    assert sorted(first) == sorted(problem.id for problem in planned.tasks[0].problems)


def test_all_conditions_get_the_same_batches():
    grouped = {}
    for batch in batch_runs(plan(), Fake()):
        grouped.setdefault(batch.condition.name, []).append([ask.problem.id for ask in batch.asks])
    assert len({str(batches) for batches in grouped.values()}) == 1


def test_ticks_add_up_to_the_whole_run_and_a_resumed_run_ticks_for_new_answers_alone(tmp_path):
    planned = plan([task(), task(5, "second")])
    done = []
    with open_run_folder(tmp_path, planned.manifest(Fake()), machine()) as journal:
        with suppress(MemoryError):
            run(planned, Fake(stop_at=8, error=MemoryError), journal, done.append)
        assert sum(done) == len(journal.rows) > 0
        done.clear()
        recorded = len(journal.rows)
        run(planned, Fake(), journal, done.append)
    assert recorded + sum(done) == count_answers(planned) == 16 * len(planned.conditions)


def test_choices_are_weighed_once_and_graded_by_index(tmp_path):
    planned = plan([task(kind="choice")], conditions([Treatment(Outward())], [], temperature=1.0))
    found = json.loads(perform(tmp_path, planned, Fake()))
    (only,) = found["tasks"]
    accuracy = {row["name"]: row["accuracy"] for row in only["conditions"]}
    assert accuracy["identity"] == accuracy["baseline"]
    assert 0 < accuracy["baseline"] < 1


def test_a_manifest_names_everything_that_decides_an_answer():
    one = plan().manifest(Fake())
    others = [
        plan(batch=4).manifest(Fake()),
        plan([task(12)]).manifest(Fake()),
        plan(compared=conditions([Treatment(Outward(band=0.2))], [])).manifest(Fake()),
        plan().manifest(Fake(name="other")),
    ]
    assert all(other != one for other in others)
    assert set(one["versions"]) >= {"armlet", "torch", "transformers"}
    json.dumps(one, allow_nan=False)


class Recording(Fake):
    """Keeps what it is asked: the condition, the items' numbers, and the sample whose seed is used."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def answer(self, asks, condition, sampling, *, batch, sample):
        self.asked.append((condition.name, [ask.number for ask in asks], sample))
        return super().answer(asks, condition, sampling, batch=batch, sample=sample)


def asked(tmp_path, items, batch, **sampling):
    engine = Recording()
    perform(tmp_path, plan([task(items)], conditions([], [], **sampling), batch=batch), engine)
    return {name: [call[1:] for call in engine.asked if call[0] == name] for name in ("baseline", "A/A")}


def test_the_baseline_again_is_asked_in_halves_and_a_single_item_twice_at_once(tmp_path):
    calls = asked(tmp_path, 5, 4)
    (first, _), (last, _) = calls["baseline"]
    assert [numbers for numbers, _ in calls["A/A"]] == [first[:2], first[2:], last * 2]
    rows = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    again = [row for row in rows if row.get("condition") == "A/A"]
    assert sorted(row["item"] for row in again) == [f"id{at}" for at in range(5)]
    assert [row["closed"] for row in rows if "A/A" in row.get("closed", ())] == [
        ["sums", at, "A/A", 0] for at in (0, 1)
    ]


def test_samples_of_the_baseline_again_have_seeds_of_their_own(tmp_path):
    calls = asked(tmp_path, 4, 4, samples=3, temperature=0.5)
    seeds = {name: [seed for _, seed in of_name] for name, of_name in calls.items()}
    assert seeds["baseline"] == [0, 1, 2]
    assert sorted(seeds["A/A"]) == [3, 4, 5, 6, 7, 8]


def test_the_baseline_again_gives_its_scores_of_choices_from_smaller_batches(tmp_path):
    planned = plan([task(6, kind="choice")], conditions([], []), batch=4)
    (only,) = json.loads(perform(tmp_path, planned, Fake()))["tasks"]
    assert (only["noise_floor"]["items"], only["noise_floor"]["sampled"]) == (6, False)
