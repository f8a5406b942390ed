"""Writes the report of a run for programs, repositories, readers and papers, with its forest plot and table."""

import html
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from armlet.evaluation.report import sentences, tables
from armlet.evaluation.report.findings import Report
from armlet.evaluation.report.judging import judging
from armlet.evaluation.report.limitations import general_limitations, limited_verdicts
from armlet.evaluation.report.page_figures import FOREST_TITLE, PageFigure, has_forest, page_figures
from armlet.evaluation.report.paper import latex_table, table_rows
from armlet.evaluation.search.trials import SearchMap
from armlet.presentation.files import csv_text, write_json, write_text
from armlet.presentation.page import policy_inks
from armlet.statistics.comparison import UNDECIDED

REPORT_FILES = ("report.json", "report.md", "report.html")

SHOWN_IN_MARKDOWN, SHOWN_IN_HTML = 5, 20
"""The largest number of discordant items shown, for each condition, and for each condition and kind."""

MAX_TEXT_IN_MARKDOWN, MAX_TEXT_IN_HTML = 300, 1500
"""Characters of a text; longer texts are truncated."""

MAX_UNFOLDED_ROWS = 12  # a table with more rows is folded

VERDICT_MARKS = {"helped": "▲", "hurt": "▼", UNDECIDED: "○"}  # any other verdict is that there is no difference: ●

BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Characters that reverse the text after them, which in a single line includes the report's own words."""


def write(findings: Report, folder: Path, *, map: SearchMap | None = None) -> list[Path]:
    """Writes the report, its table and its forest plot; the same findings are written as the same bytes.

    Args:
        findings: the result of `analyse`.
        folder: the folder for the files, which is created if necessary.
        map: the map of a search, shown after the forest plot and stored in report.json under "map".

    Returns:
        The paths of the JSON, Markdown and HTML files, of the table as CSV and LaTeX unless no item is answered, and of
        the forest plot as PNG, SVG and PDF if anything was compared.

    Raises WriteError, or OSError for a figure, if a file cannot be written.
    """
    json_file, markdown_file, html_file = (folder / name for name in REPORT_FILES)
    content = {**findings.to_dict(), **({"map": map.to_dict()} if map else {})}
    paths = [
        write_json(json_file, content),
        write_text(markdown_file, markdown(findings, map)),
        write_text(html_file, page(findings, page_figures(findings, map))),
    ]
    if findings.tasks:
        paths.append(write_text(folder / "table.csv", csv_text(table_rows(findings.tasks))))
        paths.append(write_text(folder / "table.tex", latex_table(findings.tasks)))
    if has_forest(findings):
        from armlet.evaluation.report.figures import draw_forest
        from armlet.presentation.style import save

        paths += save(draw_forest(findings.tasks, title=FOREST_TITLE), folder, "forest", ("png", "svg", "pdf"))
    return paths


def markdown(findings: Report, map: SearchMap | None = None) -> str:
    """The report as Markdown, shorter than the page."""
    template = _environment(in_markdown).get_template("report.md.jinja")
    text = template.render(findings=findings, map=map, shown=SHOWN_IN_MARKDOWN, max_text=MAX_TEXT_IN_MARKDOWN)
    return text.rstrip("\n") + "\n"


def study_markdown(findings: object) -> str:
    """The report of a study, a `StudyFindings`, as Markdown."""
    return _environment(in_markdown).get_template("study.md.jinja").render(findings=findings)


def page(findings: Report, figures: Sequence[PageFigure]) -> str:
    """The report as one HTML page that needs no network and runs no script.

    Args:
        findings: the result of `analyse`.
        figures: the result of `page_figures`.
    """
    template = _environment(escape).get_template("report.html.jinja")
    return template.render(
        findings=findings,
        figures=figures,
        inks=policy_inks,
        shown=SHOWN_IN_HTML,
        max_text=MAX_TEXT_IN_HTML,
        max_unfolded_rows=MAX_UNFOLDED_ROWS,
        marks={verdict.outcome: _mark(verdict.outcome) for verdict in findings.verdicts},
    )


def _mark(outcome: str) -> str:
    """A verdict's mark; a filled circle for one that no difference exceeds a margin."""
    return next((mark for start, mark in VERDICT_MARKS.items() if outcome.startswith(start)), "●")


def in_markdown(value: object) -> Markup:
    """Escapes a value as one line of plain text in Markdown: it cannot end a table cell or start a tag or link."""
    if isinstance(value, Markup):
        return value
    line = " ".join(BIDI_CONTROLS.sub("\ufffd", str(value)).split())
    line = re.sub(r"([\\`*_|$])", r"\\\1", html.escape(line, quote=False))
    return Markup(line.replace("](", "]\\("))


@cache
def _environment(escaped: Callable[[object], Markup]) -> Environment:
    """The templates, with `escaped` applied to every value; autoescape does not change its `Markup`."""
    environment = Environment(
        loader=PackageLoader("armlet.evaluation.report"),
        autoescape=True,
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    task_filters = (tables.samples_grid, tables.changes, sentences.arm_checks)
    environment.filters |= {function.__name__: function for function in task_filters}
    texts = (limited_verdicts, general_limitations, judging)
    environment.globals |= {"sentences": sentences, "tables": tables} | {f.__name__: f for f in texts}
    return environment
