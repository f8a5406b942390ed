"""The accuracy tables for papers and other programs: LaTeX, and CSV with all digits."""

import re
from collections.abc import Iterator, Sequence

from armlet.evaluation.report.findings import TaskFindings
from armlet.evaluation.report.tables import Grid, accuracy_grid
from armlet.evaluation.settings import Facts

LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"},
    **{"<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", '"': "\\textquotedbl{}"},
    "[": "{[}",  # after the end of a row, LaTeX would read it as an option
    **{"−": "$-$", "×": "$\\times$", "∞": "$\\infty$", "–": "--", "\u00a0": "~", "\u2011": "-"},
}
"""LaTeX for characters that have a meaning in it, or are missing from its standard fonts."""

COMPARED: tuple[str, ...] = (
    *("against", "difference", "low", "high", "p", "p_holm"),
    *("smallest_detectable", "gained", "lost", "verdict", "identical"),
)
"""The columns of a comparison, which are empty in a baseline's row."""


def table_rows(tasks: Sequence[TaskFindings]) -> list[Facts]:
    """Each baseline and comparison as a row; None for numbers that it does not have.

    A placebo that changes nothing has the number of items with the baseline's answers instead of a difference.
    """
    return [row for task in tasks for row in _task_rows(task)]


def _task_rows(task: TaskFindings) -> Iterator[Facts]:
    empty = dict[str, object](dict.fromkeys(COMPARED))
    start = {"task": task.name, "items": task.items}
    yield start | {"condition": task.baseline.name, "accuracy": task.baseline.accuracy} | empty
    for pair in task.comparisons:
        comparison, (low, high) = pair.comparison, pair.interval
        row = start | {"condition": str(pair.treated), "accuracy": comparison.treated_mean} | empty
        row["against"] = str(pair.against)
        same = task.same_as_baseline.get(pair.treated.condition)
        if same is not None:
            yield row | {"identical": same}
            continue
        named = ("difference", "smallest_detectable", "gained", "lost")
        row |= {name: getattr(comparison, name) for name in named}
        row |= {"low": low, "high": high, "p": comparison.p_value, "p_holm": pair.p_holm}
        yield row | {"verdict": None if pair.group == "bound" else pair.verdict}


def latex_table(tasks: Sequence[TaskFindings]) -> str:
    """The accuracy tables in LaTeX, for the package booktabs, with the numbers of the other reports."""
    return "\n".join(latex_grid(accuracy_grid(task)) for task in tasks)


def latex_grid(grid: Grid) -> str:
    """One table. A group's heading is a row over all columns."""
    width = len(grid.headings)
    lines = [f"% {in_latex(grid.title)}", rf"\begin{{tabular}}{{l{'r' * (width - 2)}l}}", r"\toprule"]
    lines += [_latex_row(grid.headings), r"\midrule"]
    for heading, rows in grid.groups.items():
        if heading:
            lines += [r"\addlinespace", rf"\multicolumn{{{width}}}{{l}}{{\emph{{{in_latex(heading)}}}}} \\"]
        lines += [_latex_row(row) for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(map(in_latex, cells))} \\\\"


def in_latex(text: str) -> str:
    """The text on one line of LaTeX, in which none of its characters is a command."""
    return "".join(LATEX.get(letter, letter) for letter in re.sub("[ \t\r\n]+", " ", text))
