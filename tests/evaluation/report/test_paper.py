"""The table as LaTeX and as CSV has the numbers of the report, and no text becomes a command."""

import csv
import io
import re

import pytest

from armlet.evaluation.report.paper import in_latex, latex_table, table_rows
from armlet.evaluation.report.tables import accuracy_grid
from armlet.presentation.files import csv_text
from evaluations import found, sums


@pytest.fixture(scope="module")
def task():
    return found(sums(40, name="a_b & 100%"), fillings=()).tasks[0]


def test_every_row_of_the_accuracy_table_is_a_row_of_latex(task):
    lines = latex_table([task]).splitlines()
    for rows in accuracy_grid(task).groups.values():
        for row in rows:
            assert " & ".join(map(in_latex, row)) + r" \\" in lines
    width = len(accuracy_grid(task).headings)
    rows = [line for line in lines if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {width - 1}
    assert lines[0] == r"% a\_b \& 100\%, 40 items"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("5 % of $x_1$", r"5 \% of \$x\_1\$"),
        ("\\input{x}", r"\textbackslash{}input\{x\}"),
        ("[−1, +∞]\n^~#", r"{[}$-$1, +$\infty$] \textasciicircum{}\textasciitilde{}\#"),
        ("5\u00a0% − 3 × '/'", r"5~\% $-$ 3 $\times$ '/'"),
    ],
)
def test_no_letter_is_a_command(text, written):
    assert in_latex(text) == written


def test_the_csv_has_the_numbers_of_every_comparison(task):
    rows = list(csv.DictReader(io.StringIO(csv_text(table_rows([task])))))
    assert (rows[0]["condition"], float(rows[0]["accuracy"])) == ("baseline", task.baseline.accuracy)
    for row, pair in zip(rows[1:], task.comparisons, strict=True):
        assert (row["condition"], row["against"]) == (str(pair.treated), str(pair.against))
        if pair.treated.condition in task.same_as_baseline:
            assert (row["identical"], row["difference"], row["verdict"]) == ("40", "", "")
        else:
            assert float(row["difference"]) == pair.comparison.difference
            assert [float(row["low"]), float(row["high"])] == list(pair.interval)
            assert row["verdict"] == pair.verdict
