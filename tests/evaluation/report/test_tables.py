"""Tables say the findings' numbers for people, placebos apart, and fit a terminal."""

import io
import re
from dataclasses import replace
from html import unescape

import pytest
from rich.console import Console

from armlet.evaluation.report.controls import CONTROLS, OTHER_CONTROL, control_of
from armlet.evaluation.report.page import page
from armlet.evaluation.report.tables import (
    GROUPS,
    accuracy_grid,
    arm_grid,
    changes,
    form_grid,
    grouped,
    power_grid,
    samples_grid,
    settings_grid,
    summary_table,
)
from armlet.presentation.numbers import difference_text, interval_text, percent, points, probability
from evaluations import TREATMENTS, Fake, choices, found, sums


@pytest.fixture(scope="module")
def plain():
    return found(sums(60), combine=True).tasks[0]


@pytest.fixture(scope="module")
def sampled():
    return found(sums(40), temperature=0.7, samples=4, treatments=TREATMENTS[:1], fillings=()).tasks[0]


@pytest.fixture(scope="module")
def best():
    return found(sums(40), best_of=3, fillings=(), placebos=False).tasks[0]


def column(grid, heading):
    at = grid.headings.index(heading)
    return {row[0]: row[at] for rows in grid.groups.values() for row in rows}


def test_numbers_are_written_for_people():
    assert percent(0.7125) == "71.2\u00a0%"
    assert percent(None) == probability(None) == "–"
    assert [points(each) for each in (0.0125, -0.003, -0.0001)] == ["+1.2", "−0.3", "0.0"]
    assert interval_text(-0.003, 0.0274) == "[−0.3, +2.7]"
    assert interval_text(None, None) == "[−∞, +∞]"
    assert [probability(each) for each in (0.0004, 0.0346, 1.0)] == ["< 0.001", "0.035", "1.000"]


@pytest.mark.slow
def test_what_is_judged_comes_first_and_placebos_stand_apart(plain):
    groups = grouped(plain)
    assert list(groups) == ["judged", "placebo", "matched", "zeroed"]
    assert [str(pair.treated) for pair in groups["judged"]] == [
        "outward band=0.2",
        "inward layers=0/1",
        "filler 32 × '/' between",
        "outward band=0.2 + filler 32 × '/' between",
        "inward layers=0/1 + filler 32 × '/' between",
    ]
    assert [str(pair.treated) for pair in groups["placebo"]] == [
        "identity",
        "draw-only",
        "matched (outward band=0.2)",
        "zeroed (outward band=0.2)",
        "matched (inward layers=0/1)",
        "A/A",
        "temperature",
    ]
    against = [str(pair.against) for pair in groups["matched"]]
    assert against == ["matched (outward band=0.2)", "matched (inward layers=0/1)"]
    assert [str(pair.against) for pair in groups["zeroed"]] == ["zeroed (outward band=0.2)"]


def test_each_row_of_the_accuracy_table_is_its_comparison(plain):
    grid, pair = accuracy_grid(plain), plain.comparisons[0]
    first, row = grid.groups[""][:2]
    assert grid.title == "arithmetic, 60 items"
    assert first == ("baseline", percent(plain.baseline.accuracy), "", "", "", "", "")
    assert row == (
        "outward band=0.2",
        percent(plain.conditions[1].accuracy),
        f"{points(pair.comparison.difference)} {interval_text(*pair.interval)}",
        f"{pair.comparison.gained}, {pair.comparison.lost}",
        probability(pair.comparison.p_value),
        probability(pair.p_holm),
        pair.verdict,
    )


def test_controls_have_no_corrected_p_value(plain):
    rows = [row for name in ("matched", "temperature") for row in accuracy_grid(plain).groups[CONTROLS[name].heading]]
    assert {row[5] for row in rows} == {"–"}


def test_each_control_stands_below_what_it_is_for(plain):
    groups = accuracy_grid(plain).groups
    names = {name: [row[0] for row in groups[control.heading]] for name, control in CONTROLS.items()}
    assert names["identity"] == names["draw-only"] == ["identity", "draw-only"]
    assert names["matched"] == ["matched (outward band=0.2)", "matched (inward layers=0/1)"]
    assert names["temperature"] == ["temperature"]
    assert "no effect" not in CONTROLS["temperature"].heading
    assert control_of("placebo of tomorrow (outward)") is OTHER_CONTROL


def test_exact_placebos_are_identical_and_have_no_difference_and_no_verdict(plain):
    first, second = accuracy_grid(plain).groups[CONTROLS["identity"].heading]
    accuracy = percent(plain.baseline.accuracy)
    assert first == ("identity", accuracy, "identical, 60 of 60", "", "", "", "")
    assert second == ("draw-only", accuracy, "identical, 60 of 60", "", "", "", "")
    assert not {"identity", "draw-only"} & {row[0] for row in power_grid(plain).groups[""]}
    changed = replace(plain, same_as_baseline={"identity": 57, "draw-only": 60})
    assert column(accuracy_grid(changed), "difference [95 % interval], points")["identity"] == "3 of 60 differ"


@pytest.mark.slow
def test_holms_p_is_told_only_where_there_is_something_to_correct(plain):
    assert "Holm's p" in accuracy_grid(plain).headings
    alone = found(sums(20), treatments=TREATMENTS[:1], fillings=())
    assert "Holm's p" not in accuracy_grid(alone.tasks[0]).headings
    assert "Holm" not in page(alone, ())
    assert "after Holm's correction" in unescape(page(found(sums(20)), ()))


def test_the_settings_of_a_placebo_say_what_it_does():
    grid = settings_grid(found(sums(5), fillings=()))
    settings, roles = (column(grid, heading) for heading in ("settings", "role"))
    assert settings["identity"] == "the policy at strength 0"
    assert settings["matched (inward layers=0/1)"] == CONTROLS["matched"].settings
    assert settings["temperature"] == "the baseline at another temperature"
    assert "policy outward, band 0.2" in settings["outward band=0.2"]
    assert (roles["identity"], roles["temperature"]) == ("placebo", "perturbation")


@pytest.mark.slow
def test_the_majority_of_the_baseline_stands_beside_its_accuracy(sampled):
    voted = next(pair.comparison for pair in sampled.comparisons if str(pair.against) == "baseline, majority")
    first, second = accuracy_grid(sampled).groups[""][:2]
    assert (first[0], second[:2]) == ("baseline", ("baseline, majority", percent(voted.baseline_mean)))
    assert column(samples_grid(sampled), "majority")["baseline"] == percent(voted.baseline_mean)


@pytest.mark.slow
def test_pass_at_k_is_told_for_those_with_several_answers_alone(plain, sampled, best):
    assert samples_grid(plain) is None
    assert samples_grid(sampled).headings == ("condition", "samples", "pass@1", "pass@3", "majority")
    assert len(samples_grid(sampled).groups[""]) == len(sampled.conditions)
    grid = samples_grid(best)
    assert grid.headings[-2:] == ("majority", "likeliest")
    assert [row[:2] for row in grid.groups[""]] == [("best of 3", "3")]


def test_the_best_of_several_is_judged_and_the_bound_is_not(best):
    groups = grouped(best)
    assert [str(pair.treated) for pair in groups["judged"]][-2:] == ["best of 3, majority", "best of 3, likeliest"]
    assert [str(pair.treated) for pair in groups["bound"]] == ["best of 3, any"]
    assert accuracy_grid(best).groups[GROUPS["bound"]][0][-1] == "–"
    assert "best of 3, any" not in column(power_grid(best), "test")


@pytest.mark.slow
def test_the_form_of_answers_is_told_apart_from_their_accuracy():
    task = found(sums(40), engine=Fake({"baseline": 0.0}, wrong="nothing")).tasks[0]
    grid, own = form_grid(task), task.baseline.answers
    assert column(grid, "extracted")["baseline"] == percent(own.extracted)
    assert column(grid, "truncated")["baseline"] == percent(1 - own.extracted)
    assert column(grid, "accuracy of extracted answers")["baseline"] == percent(1.0)
    assert column(grid, "mean tokens")["baseline"] == f"{own.tokens:.1f}"


def test_nothing_extracted_and_no_token_counts_are_dashes(plain):
    base = plain.baseline
    unread = replace(base, answers=replace(base.answers, accuracy_of_extracted=None, tokens=None))
    grid = form_grid(replace(plain, conditions=[unread]))
    assert grid.groups[""][0][-3] == grid.groups[""][0][-1] == "–"


@pytest.mark.slow
def test_multiple_choice_has_a_table_of_its_own():
    task = found(choices(40)).tasks[0]
    grid, base = form_grid(task), task.baseline
    assert grid.headings == ("condition", "accuracy", "length-normalised accuracy")
    normalised = base.answers.accuracy_normalised
    assert grid.groups[""][0] == ("baseline", percent(base.accuracy), percent(normalised))
    assert samples_grid(task) is None


def test_arm_is_told_layer_by_layer(plain):
    rows = arm_grid(plain).groups[""]
    assert [row[1] for row in rows if row[0] == "inward layers=0/1"] == ["0", "1"]
    assert arm_grid(replace(plain, conditions=plain.conditions[:1])) is None


def test_discordant_items_are_those_that_the_comparison_counts(plain):
    by_condition = {each.condition: each for each in changes(plain)}
    for pair in grouped(plain)["judged"]:
        items = by_condition[pair.treated.condition]
        assert (len(items.gained), len(items.lost)) == (pair.comparison.gained, pair.comparison.lost)


@pytest.mark.slow
def test_a_condition_without_a_discordant_item_is_there_with_none():
    task = found(sums(4), engine=Fake({"treated": 0.68}), treatments=TREATMENTS[:1], fillings=()).tasks[0]
    (none,) = changes(replace(task, discordant=[]))
    assert (none.condition, none.gained, none.lost) == ("outward band=0.2", [], [])


@pytest.mark.slow
def test_the_summary_fits_80_columns_and_holds_every_number():
    findings = found(sums(40, name="[bold]x[/]"), choices(30), combine=True)
    for task, table in ((task, summary_table(task)) for task in findings.tasks):
        console = Console(file=io.StringIO(), width=80)
        console.print(table)
        text = console.file.getvalue()
        assert max(map(len, text.splitlines())) <= 80
        assert task.name in text
        assert "temperature: a small perturbation, for scale" in text
        shown = re.findall(r"[+−]?\d+\.\d \[.*?\]", text)
        groups = grouped(task)
        pairs = [pair for name in ("judged", "placebo") for pair in groups[name]]
        told = [pair for pair in pairs if pair.treated.condition not in ("identity", "draw-only")]
        told_texts = [difference_text(pair.comparison.difference, *pair.interval) for pair in told]
        assert sorted(shown) == sorted(told_texts)  # each below the heading of its control
        assert text.count("no difference shown") == sum(pair.verdict == "no difference shown" for pair in told)
        assert text.count(f"identical, {task.items} of {task.items}") == 2
