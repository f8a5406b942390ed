"""A study's report cannot be read as more than was found, and names what it shows."""

import pytest
from matplotlib.colors import to_hex
from rich.console import Console

from armlet.evaluation.conditions.conditions import Filling, Treatment
from armlet.evaluation.report.page import study_markdown
from armlet.evaluation.studies.cells import CellOutcome
from armlet.evaluation.studies.file import read_study
from armlet.evaluation.studies.plan import plan_table
from armlet.evaluation.studies.result import make_study_findings
from armlet.presentation.style import COLOURS, OTHER_COLOUR, VERDICT_COLOURS
from armlet.prompts.fillers import Filler
from armlet.redistribution import Outward
from evaluations import Fake, found, sums

STUDY = """
title = "A study"
source = "nobody"
hypothesis = "Outward helps."
margin = 20
seeds = [0, 1]
models = [{ model = "abacus" }]
tasks = [{ task = "arithmetic" }]
treatments = [{ name = "Outward", policy = "outward" }, { name = "slashes", filler = "/", count = 5 }]
"""
CLAIM = 'claims = [{ model = "abacus", task = "arithmetic", treatment = "Outward", difference = 90.0 }]\n'


def findings_of(folder, text=STUDY, engine=None):
    """The findings of a study whose cells have made-up answers."""
    (file := folder / "study.toml").write_text(text)
    study, sha256 = read_study(file)
    arm, filler = [Treatment(Outward())], [Filling(Filler("/", 5))]
    task = found(sums(60), engine=engine, treatments=arm, fillings=filler, placebos=False).tasks[0]
    return make_study_findings(study, sha256, [CellOutcome(cell, task) for cell in study.cells()], folder)


@pytest.fixture
def findings(tmp_path):
    return findings_of(tmp_path)


@pytest.mark.slow
def test_the_hypothesis_is_called_one_before_what_was_found(findings):
    said, judged, *_ = findings.sentences()
    assert said.startswith('Hypothesis: "Outward helps." Found: of 4 comparisons in 2 cells, after Holm')
    assert "'No difference larger than 20 points'" in judged
    assert "a Holm correction of their own, so that an interval inside the margin may not be enough" in judged
    assert '\n- Hypothesis: "Outward helps." Found: ' in study_markdown(findings)


@pytest.mark.slow
def test_each_row_has_its_items_and_its_corrected_p_value(findings):
    rows = [dict(zip(findings.grid().headings, row, strict=True)) for row in findings.grid().groups[""]]
    assert {row["items"] for row in rows} == {"60"}
    assert [row["Holm's p"] for row in rows] == [f"{row.pair.p_holm:.3f}" for row in findings.rows]


@pytest.mark.slow
def test_in_80_columns_no_row_is_without_the_name_of_its_treatment(findings):
    console = Console(width=80, record=True, emoji=False)
    with console.capture() as shown:
        console.print(*findings.tables())
    lines = shown.get().splitlines()
    assert [line for line in lines if "seed" in line][1].strip().startswith("abacus, arithmetic, seed 1: 60 items, ")
    assert all(line.startswith(("Outward", "slashes")) for line in lines if "[" in line and "95" not in line)
    assert sum(line.startswith("slashes") for line in lines) == 2


@pytest.mark.slow
def test_claims_are_shown_where_there_are_claims_and_nowhere_else(tmp_path, findings):
    claimed = findings_of(tmp_path, STUDY + CLAIM)
    for result, there in ((findings, False), (claimed, True)):
        legend = result.figure().get_supxlabel()
        shown = [*result.grid().headings, *(str(c.header) for c in plan_table(result.study).columns)]
        assert [word in shown for word in ("claimed", "claimed, points")] == [there, there]
        assert ["claim" in text for text in (legend, study_markdown(result))] == [there, there]


@pytest.mark.slow
def test_a_treatment_is_told_by_its_name_in_the_reports_of_its_cells_if_that_is_another(findings):
    assert findings.other_names() == {"slashes": "filler 5 × '/' between"}
    assert "- slashes: filler 5 × '/' between" in study_markdown(findings)


@pytest.mark.slow
def test_what_helped_or_hurt_has_a_mark_and_a_colour_that_means_nothing_else(tmp_path):
    hurt, same = (
        findings_of(tmp_path, engine=Fake(dict.fromkeys(("treated", "filler"), rate))).figure() for rate in (0.0, 0.68)
    )
    assert ["triangles: " in figure.get_supxlabel() for figure in (hurt, same)] == [True, False]
    markers = {to_hex(line.get_color()) for line in hurt.axes[0].lines if line.get_marker() == "v"}
    assert markers == {VERDICT_COLOURS["hurt"]}
    assert not {*VERDICT_COLOURS.values()} & {*COLOURS.values(), OTHER_COLOUR}


@pytest.mark.slow
def test_the_heading_of_a_cell_is_as_far_from_its_first_row_as_rows_are_from_each_other(findings):
    heights = [text.xy[1] for text in findings.figure().axes[0].texts if text.get_ha() == "right"]
    heading, first, second = heights[:3]
    assert heading - first >= first - second
