"""Writes the report of a run: report.json for programs, report.md for repositories, report.html for readers."""

import html
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from armlet.evaluation.report import sentences, tables
from armlet.evaluation.report.findings import Report
from armlet.evaluation.search.trials import SearchMap
from armlet.presentation.files import write_json, write_text
from armlet.statistics.comparison import UNDECIDED

REPORT_FILES = ("report.json", "report.md", "report.html")

SHOWN_IN_MARKDOWN, SHOWN_IN_HTML = 5, 20
"""The largest number of discordant items shown, for each condition, and for each condition and kind."""

MAX_TEXT_IN_MARKDOWN, MAX_TEXT_IN_HTML = 300, 1500
"""Characters of a text; longer texts are truncated."""

MAX_UNFOLDED_ROWS = 12  # a table with more rows is folded

VERDICT_MARKS = {"helped": "▲", "hurt": "▼", UNDECIDED: "○"}

BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Characters that reverse the text after them, which in a single line includes the report's own words."""


def write(findings: Report, folder: Path, *, map: SearchMap | None = None) -> list[Path]:
    """Writes the three files; the same findings are written as the same bytes.

    Args:
        findings: the result of `analyse`.
        folder: the folder for the files, which is created if necessary.
        map: the map of a search, shown after the forest plot and stored in report.json under "map".

    Returns:
        The paths of the JSON, Markdown and HTML files.

    Raises WriteError if a file cannot be written.
    """
    json_file, markdown_file, html_file = (folder / name for name in REPORT_FILES)
    content = {**findings.to_dict(), **({"map": map.to_dict()} if map else {})}
    return [
        write_json(json_file, content),
        write_text(markdown_file, markdown(findings, map)),
        write_text(html_file, page(findings, _draw_figures(findings, map))),
    ]


def markdown(findings: Report, map: SearchMap | None = None) -> str:
    """The report as Markdown, shorter than the page."""
    template = _environment(in_markdown).get_template("report.md.jinja")
    text = template.render(findings=findings, map=map, shown=SHOWN_IN_MARKDOWN, max_text=MAX_TEXT_IN_MARKDOWN)
    return text.rstrip("\n") + "\n"


def page(findings: Report, figures: Mapping[str, str]) -> str:
    """The report as one HTML page that needs no network and runs no script.

    Args:
        findings: the result of `analyse`.
        figures: inline SVG figures by their descriptions, the forest plot first.
    """
    template = _environment(escape).get_template("report.html.jinja")
    return template.render(
        findings=findings,
        figures={label: _with_unique_ids(svg, number) for number, (label, svg) in enumerate(figures.items())},
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
    environment.globals |= {"sentences": sentences, "tables": tables}
    return environment


def _draw_figures(findings: Report, map: SearchMap | None) -> dict[str, str]:
    from armlet.evaluation.report.figures import draw_forest
    from armlet.evaluation.search.figures import draw_map
    from armlet.presentation.style import svg_text

    figures: dict[str, str] = {}
    if any(task.comparisons for task in findings.tasks):
        forest = draw_forest(findings.tasks, title="Difference from the baseline")
        figures["Forest plot of differences; the accuracy tables contain its numbers"] = svg_text(forest)
    if map:
        label = f"Map of differences over {map.x} and {map.y}; report.md contains its numbers"
        figures[label] = svg_text(draw_map(map))
    return figures


def _with_unique_ids(svg: str, number: int) -> Markup:
    """Makes the ids in a figure different from those of other figures on the page."""
    return Markup(re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>f{number}-", svg))
