"""A search sees the tuning items alone, is the same again, and its test items are used once."""

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from armlet import Cut, Inward, Outward, Transport
from armlet.attachment.config import load_config
from armlet.evaluation import confirm, tune
from armlet.evaluation.conditions.conditions import Treatment, conditions
from armlet.evaluation.search.results import Budget, Search, SearchArguments, SearchTask
from armlet.evaluation.search.search import (
    RANGES,
    SEARCHED,
    Space,
    part_of,
    search,
    searched_names,
    stated_settings,
    take,
)
from armlet.evaluation.search.trials import TrialResult, best
from armlet.redistribution.errors import ArgumentError
from armlet.runs.folder import open_run_folder
from armlet.runs.machine import machine
from command_line import result, run
from engines import Fake
from evaluations import plan, task

SMALL = ("--items", "12", "--difficulty", "1", "--trials", "2", "--search", "ceiling", "--run", "search")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Watching(Fake):
    """Remembers the items that it was asked, and how ARM was attached to it."""

    def __init__(self):
        super().__init__()
        self.asked, self.treatments = set(), []

    def answer(self, asks, condition, *arguments, **options):
        self.asked.update(ask.problem.id for ask in asks)
        if condition.treatment and condition.treatment not in self.treatments:
            self.treatments.append(condition.treatment)
        return super().answer(asks, condition, *arguments, **options)


def space(trials=5, names=("band", "ceiling"), policy=None, seed=0, layers=(0,)):
    return Space(Treatment(policy or Outward()), names, layers, trials, seed)


def trials_of(folder, engine=None, **options):
    searched = space(**options)
    planned = plan([take(task(40), "tuning")], conditions([], [], placebos=False))
    with open_run_folder(folder, planned.manifest(engine or Fake()), machine()) as journal:
        return list(search(searched, planned, engine or Fake(), journal)), searched


def test_the_parts_are_disjoint_whole_and_about_halves():
    ids = [f"id{at}" for at in range(4000)]
    tuning = {id for id in ids if part_of(id) == "tuning"}
    assert 1850 < len(tuning) < 2150  # within five standard deviations of one half
    whole = task(200)
    parts = [{problem.id for problem in take(whole, part).problems} for part in ("tuning", "test")]
    assert parts[0].isdisjoint(parts[1])
    assert parts[0] | parts[1] == {problem.id for problem in whole.problems}
    assert parts[0] == {problem.id for problem in take(task(100), "tuning").problems} | {
        problem.id for problem in whole.problems[100:] if part_of(problem.id) == "tuning"
    }


def test_a_task_without_an_item_of_a_part_is_refused():
    lone = next(at for at in range(1, 9) if len({part_of(f"id{n}") for n in range(at)}) == 1)
    other = "test" if part_of("id0") == "tuning" else "tuning"
    with pytest.raises(ArgumentError, match="use more items"):
        take(task(lone), other)


@pytest.mark.slow
def test_a_study_goes_through_the_map_first_and_then_on(tmp_path):
    trials, searched = trials_of(tmp_path)
    grid = [(band, ceiling) for band in RANGES["band"].grid for ceiling in RANGES["ceiling"].grid]
    assert [(trial.values["band"], trial.values["ceiling"]) for trial in trials[: len(grid)]] == grid
    assert searched.grid() == [{"band": band, "ceiling": ceiling, "layers": 0} for band, ceiling in grid]
    assert len(trials) == len(grid) + 5
    for trial in trials:
        assert RANGES["band"].low <= trial.values["band"] <= RANGES["band"].high
        assert searched.treatment_at(trial.values, trial.layers).policy.band == trial.values["band"]


@pytest.mark.slow
def test_a_study_asks_the_tuning_items_alone(tmp_path):
    engine = Watching()
    trials_of(tmp_path, engine, trials=0)
    assert engine.asked
    assert {part_of(id) for id in engine.asked} == {"tuning"}


@pytest.mark.slow
def test_a_study_cut_off_is_the_same_one_when_it_goes_on(tmp_path):
    whole, _ = trials_of(tmp_path / "whole")
    with pytest.raises(MemoryError):
        trials_of(tmp_path / "cut", Fake(stop_at=100, error=MemoryError))
    again, _ = trials_of(tmp_path / "cut")
    assert again == whole


def test_another_seed_searches_elsewhere_behind_the_map(tmp_path):
    one, searched = trials_of(tmp_path / "one")
    other, _ = trials_of(tmp_path / "other", seed=1)
    at = len(searched.grid())
    assert [trial.values for trial in one[:at]] == [trial.values for trial in other[:at]]
    assert [trial.values for trial in one[at:]] != [trial.values for trial in other[at:]]


def test_layers_are_searched_among_the_candidates(tmp_path):
    engine = Watching()
    trials, searched = trials_of(tmp_path, engine, layers=(0, "all"), trials=12, names=("knee",), policy=Inward())
    assert {trial.layers for trial in trials} == {"0", "all"}
    treatments = [searched.treatment_at(trial.values, trial.layers) for trial in trials]
    assert engine.treatments == list(dict.fromkeys(treatments))
    assert {treatment.layers for treatment in treatments} == {0, "all"}
    assert [treatment.policy.knee for treatment in treatments] == [trial.values["knee"] for trial in trials]


def test_the_best_is_the_largest_difference_and_of_equals_the_first(tmp_path):
    trials, _ = trials_of(tmp_path)
    largest = max(trial.difference for trial in trials)
    assert best(trials) is next(trial for trial in trials if trial.difference == largest)


@pytest.mark.parametrize("names", [(), ("knee",), ("band", "band"), ("band", "ceiling", "strength"), ("bnad",)])
def test_what_cannot_be_searched_is_refused(names):
    with pytest.raises(ArgumentError, match="search: expected one or two of band, proportion, ceiling, strength"):
        space(names=names)


@pytest.mark.parametrize(
    ("policy", "names", "message"),
    [
        (
            Outward(band=0.2),
            ("band",),
            ".* of proportion, ceiling, strength, found 'band'; the policy fixes band$",
        ),
        (Outward(band=0.2), ("proportion",), "outward: band has no effect, because proportion replaces band"),
        (Outward(proportion=0.1), ("band", "ceiling"), "outward: band has no effect, because proportion replaces band"),
        (Outward(), ("band", "proportion"), "outward: band has no effect, because proportion replaces band"),
        (Inward(strength=0), ("knee",), "inward: strength 0 changes nothing"),
    ],
)
def test_a_setting_that_the_policy_fixes_or_that_has_no_effect_is_not_searched(policy, names, message):
    with pytest.raises(ArgumentError, match=f"^search: {message}"):
        space(names=names, policy=policy)


def test_the_default_search_leaves_out_what_the_policy_fixes():
    assert searched_names(None, Outward()) == ("band", "ceiling")
    assert searched_names(None, Outward(band=0.2, share=(0, 1))) == ("ceiling",)


@pytest.mark.parametrize("trials", [0, 1])
def test_candidate_layers_that_could_not_be_tried_are_refused(trials):
    with pytest.raises(ArgumentError, match=r"^trials: expected at least 2 for 3 candidate layers, of which the map"):
        space(trials=trials, layers=(0, 1, 2))
    assert space(trials=2, layers=(0, 1, 2))


@pytest.mark.parametrize("part", ["tuning", "test"])
def test_too_few_items_to_search_and_to_confirm_are_refused_before_the_search(part):
    lone = next(id for id in map(str, range(9)) if part_of(id) == part)
    other = "confirming it" if part == "tuning" else "searching the setting"
    with pytest.raises(ArgumentError, match=f"^items: none of the 1 item of items is for {other}; use more items$"):
        tune(task=[{"id": lone, "question": "2+2", "answer": "4"}])


def made_study(trials, layers=([0],), folder=Path("search")):
    """A search of `ceiling`, of which the first candidate of `layers` was used in each trial."""
    rows = [TrialResult(n, {"ceiling": c}, str(layers[0]), 4, 0.5, d, None, None) for n, (c, d) in enumerate(trials)]
    searched = Space(Treatment(Outward()), ("ceiling",), layers, 9, 0)
    return Search(
        folder=folder,
        arguments=SearchArguments(None, None, [], None, None, None, None, False, None, 0, "auto", None),
        engine={"model": "m"},
        space=searched.to_dict(),
        tasks=[],
        budget=Budget(len(rows), 4, 8),
        armlet=searched.treatment_at(best(rows).values, best(rows).layers).plain(),
        interrupted=False,
        trials=rows,
        searched=["ceiling"],
        mapped=[0],
    )


@pytest.mark.slow
def test_a_setting_that_is_not_the_study_s_is_not_replaced_and_one_that_was_its_best_is():
    shorter, longer = made_study([(0.95, 0.1)]), made_study([(0.95, 0.1), (0.99, 0.2)])
    shorter.save("here")
    longer.save("here")
    assert load_config("here")["policy"] == Outward(ceiling=0.99)
    for text in ('{"policy": "inward"}', "not JSON"):
        Path("mine").mkdir(exist_ok=True)
        Path("mine/armlet.json").write_text(text)
        with pytest.raises(ArgumentError, match=r"^mine.armlet.json: exists and is not this result's setting; move it"):
            longer.save("mine")
        assert ([path.name for path in Path("mine").iterdir()], Path("mine/armlet.json").read_text()) == (
            ["armlet.json"],
            text,
        )


@pytest.mark.slow
def test_a_study_does_not_replace_another_one_and_replaces_itself():
    search, other = made_study([(0.95, 0.1)]), made_study([(0.95, 0.1)], layers=([0], [1]))
    search.save("here")
    search.save("here")
    before = {path.name: path.read_bytes() for path in Path("here").iterdir()}
    with pytest.raises(ArgumentError, match=r"^here: contains another search; use another directory$"):
        other.save("here")
    assert {path.name: path.read_bytes() for path in Path("here").iterdir()} == before
    Path("here/search.json").write_text("[]")
    with pytest.raises(ArgumentError, match=r"^here: contains another search"):
        search.save("here")


def test_confirm_measures_the_study_that_it_was_given_or_none():
    search, other = made_study([(0.95, 0.1)]), made_study([(0.95, 0.1), (0.99, 0.2)])
    Path("search").mkdir()
    Path("search/search.json").write_text(json.dumps(other.to_dict()))
    with pytest.raises(
        ArgumentError, match=r"^search: search now has another search, or other trials; .* pass the folder$"
    ):
        confirm(search)


def test_a_study_names_the_candidate_layers_that_it_never_tried():
    assert made_study([(0.95, 0.1)], layers=([0], [1], "all")).sentences()[0] == (
        "layers never tried, because there were few trials: [1] and all"
    )
    assert len(made_study([(0.95, 0.1)]).sentences()) == 1


def test_a_study_says_how_many_trials_tie():
    chosen = (
        "the best setting looks better than it is on the items that chose it; on the other items: armlet confirm search"
    )
    assert made_study([(0.9, 0.1), (0.95, 0.2)]).sentences() == [chosen]
    for differences, fact in (((0.1, 0.1), "all 2 trials tie"), ((0.1, 0.2, 0.2), "2 trials tie for the best")):
        (sentence,) = made_study([(0.9 + n / 100, difference) for n, difference in enumerate(differences)]).sentences()
        assert sentence.startswith(f"{fact}, so these items do not choose between them")


def test_a_study_of_objects_is_confirmed_in_python():
    search = replace(made_study([(0.9, 0.1)]), tasks=[SearchTask("mine", 4, {})])
    assert search.sentences()[-1].endswith("on the other items: confirm(search, task=...) in Python")
    loaded = replace(search, engine={"sha256": "loaded:ab"})
    assert loaded.sentences()[-1].endswith("on the other items: confirm(search, model, tokenizer, task=...) in Python")


@pytest.mark.parametrize(
    ("policy", "names"),
    [("outward:band=0.13", ("ceiling",)), ("outward", ("band", "ceiling")), (["outward:band=0.13"], ("ceiling",))],
    ids=str,
)
def test_a_setting_in_the_policy_s_text_is_not_searched_even_at_its_default(policy, names):
    assert Outward().band == 0.13
    stated = stated_settings(policy)
    assert searched_names(None, Outward(), stated) == names
    if stated:
        with pytest.raises(ArgumentError, match=r"^search: .*found 'band'; the policy fixes band$"):
            Space(Treatment(Outward()), ("band",), (0,), 5, 0, stated)


def test_a_search_leaves_optuna_s_log_as_it_was(tmp_path):
    import optuna

    before = optuna.logging.get_verbosity()
    try:
        optuna.logging.set_verbosity(optuna.logging.DEBUG)
        trials_of(tmp_path, trials=0, names=("ceiling",))
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(before)


def test_what_confirm_cannot_use_is_refused_before_the_measurement():
    for wrong in (3, "ok.jsonl", None):
        Path("ok.jsonl").write_text("{}")
        with pytest.raises(ArgumentError, match=rf"^search: expected a search's folder, .*, found '{wrong}'$"):
            confirm(wrong)
    Path("search").mkdir()
    search = made_study([(0.95, 0.1)])
    Path("search/search.json").write_text(json.dumps(search.to_dict()))
    for out, reason in ((3, "expected a path, found 3"), ("ok.jsonl", "ok.jsonl cannot be written")):
        with pytest.raises(ArgumentError, match=f"^out: {reason}"):
            confirm(search, out=out)
    code, _, err = run("confirm", "ok.jsonl")
    assert (code, "expected a search's folder" in err, "--out" in err) == (2, True, False)


def test_each_policy_has_something_to_search():
    for policy in (Outward(), Inward(), Transport(), Cut()):
        assert space(names=SEARCHED[policy.name], policy=policy).grid()
    for name in ("proportion", "threshold"):
        assert space(names=(name,), policy=Cut()).grid()


def test_a_setting_that_a_threshold_replaces_cannot_be_searched():
    with pytest.raises(ArgumentError, match=r"^search: cut: band has no effect, because threshold replaces"):
        space(names=("band",), policy=Cut(threshold=0.1))


@pytest.mark.slow
def test_tune_writes_the_best_setting_the_table_and_the_budget():
    found = result("tune", *SMALL)
    items = found["budget"]["items"]
    assert found["budget"] == {"trials": 6, "items": items, "answers": 7 * items}
    assert 0 < items < 12
    assert load_config("search")["policy"].ceiling == found["best"]["ceiling"]
    assert Path("search/trials.csv").read_text().count("\n") == 7
    assert max(row["difference"] for row in found["trials"]) == found["best"]["difference"]


@pytest.mark.slow
def test_a_setting_is_searched_and_confirmed_at_its_site():
    result("tune", *SMALL, "--site", "product")
    assert load_config("search")["site"] == "product"
    found = result("confirm", "search")
    assert found["manifest"]["conditions"][1]["treatment"]["site"] == "product"


@pytest.mark.slow
def test_confirm_uses_the_test_items_once_and_records_it():
    tuned = result("tune", *SMALL)
    found = result("confirm", "search")
    assert found["tasks"][0]["planned_items"] == 12 - tuned["budget"]["items"]
    assert found["search"]["budget"] == tuned["budget"]
    assert found["tasks"][0]["same_as_baseline"]["identity"] == found["tasks"][0]["items"]
    for command in (("confirm", "search"), ("tune", *SMALL)):
        code, out, err = run(*command)
        assert (code, out) == (2, "")
        assert "test items" in err
        assert "have been used" in err
    budget = found["search"]["budget"]
    said = f"The setting is the best of {budget['trials']} settings tried on {budget['items']} other items"
    assert all(said in Path("search/test", name).read_text() for name in ("report.md", "report.html"))
    assert json.loads(Path("search/confirmed.json").read_text())["verdicts"] == found["verdicts"]


@pytest.mark.slow
def test_a_confirmation_that_was_killed_goes_on_and_no_search_does(monkeypatch):
    from armlet.evaluation.search import folder

    tuned = result("tune", *SMALL)
    with monkeypatch.context() as patched:
        patched.setattr(folder, "run_and_analyse", Mock(side_effect=MemoryError))
        with pytest.raises(MemoryError):
            run("confirm", "search")
    code, out, err = run("tune", *SMALL)
    assert (code, out) == (2, "")
    assert "have been used" in err
    assert result("confirm", "search")["search"]["best"] == tuned["best"]


def test_confirm_refuses_a_file_that_is_not_the_searched_one():
    rows = [{"id": str(at), "question": "2+2", "answer": "4"} for at in range(12)]
    write_rows("d.jsonl", rows)
    result(
        "tune", "--data", "d.jsonl", "--trials", "0", "--search", "ceiling", "--run", "search", "--max-new-tokens", 2
    )
    unseen = next(at for at, row in enumerate(rows) if part_of(row["id"]) == "test")
    rows[unseen]["answer"] = "5"
    write_rows("d.jsonl", rows)
    code, out, err = run("confirm", "search")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "the items of d changed after the search" in err
    assert not Path("search/confirmed.json").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"arguments": {}}', "\x00"])
def test_a_damaged_study_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "search.json").write_text(text)
    code, out, err = run("confirm", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no finished search of `armlet tune` (search.json" in err


def write_rows(name, rows):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_a_map_of_two_settings_is_drawn():
    run("tune", "--items", "6", "--difficulty", "1", "--trials", "0", "--run", "search", "--out", "here")
    assert Path("here/sensitivity.svg").exists()
    assert Path("here/sensitivity.png").exists()


def test_confirm_refuses_what_is_no_study(tmp_path):
    code, out, err = run("confirm", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no finished search of `armlet tune`" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trials": -1}, "trials: expected an integer of at least 0, found -1"),
        ({"trials": True}, "trials: expected an integer of at least 0, found True"),
        ({"seed": -1}, "seed: expected an integer from 0 to"),
        ({"items": 0}, "items: expected an integer of at least 1, found 0"),
        ({"difficulty": True}, "difficulty: expected an integer of at least 0, found True"),
        ({"search": []}, "search: expected one or two of band, proportion, ceiling, strength, found ''"),
        ({"search": [1]}, "search: expected text, found 1"),
        ({"policy": ["outward", "inward"]}, "policy: expected one, found 2"),
        ({"layers": []}, "layers: expected at least one candidate, found none"),
        ({"layers": [0, True]}, "layers: expected an integer of at least 0, found True"),
        ({"run": 5}, "run: expected a path, found 5"),
        ({"model": ""}, "model: expected a folder, a hub id or a loaded model, found an empty text"),
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=f"^{message}"):
        tune(**arguments)
