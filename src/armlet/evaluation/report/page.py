"""The report of a run: report.json for programs, report.md for a repository, report.html for a reader."""

import html
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from armlet.evaluation.report import sentences, tables
from armlet.evaluation.report.findings import Findings
from armlet.evaluation.search.results import SearchMap
from armlet.presentation.files import write_json, write_text

REPORT_FILES = ("report.json", "report.md", "report.html")

SHOWN_IN_MARKDOWN, SHOWN_IN_HTML = 5, 20
"""Discordant items: of each condition, and of each condition and kind."""

LONGEST_IN_MARKDOWN, LONGEST_IN_HTML = 300, 1500
"""Characters of a text; what is longer is cut."""

FOLDED_FROM = 12
"""A table with more rows than this is folded."""

VERDICT_MARKS = {"helped": "▲", "hurt": "▼", "no difference shown": "○"}

BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Characters that change the direction of the text after them; in one line, of our own words too."""


def write(findings: Findings, folder: Path, *, map: SearchMap | None = None) -> list[Path]:
    """Writes the three files; the same findings give the same bytes.

    Args:
        findings: of `analyse`.
        folder: made if need be.
        map: of a search, shown after the forest plot and stored in report.json under "map".

    Returns:
        The paths: JSON, Markdown, HTML.

    Raises:
        WriteError: a file cannot be written.
    """
    data, short, long = (folder / name for name in REPORT_FILES)
    content = {**findings.to_dict(), **({"map": map.to_dict()} if map else {})}
    return [
        write_json(data, content),
        write_text(short, markdown(findings, map)),
        write_text(long, page(findings, _draw_figures(findings, map))),
    ]


def markdown(findings: Findings, map: SearchMap | None = None) -> str:
    """The report in short."""
    template = _environment(in_markdown).get_template("report.md.jinja")
    text = template.render(findings=findings, map=map, shown=SHOWN_IN_MARKDOWN, longest_text=LONGEST_IN_MARKDOWN)
    return text.rstrip("\n") + "\n"


def page(findings: Findings, figures: Mapping[str, str]) -> str:
    """The report as one HTML page that needs no network and runs no script.

    Args:
        findings: of `analyse`.
        figures: inline SVG by what each shows in a sentence; the forest plot first.
    """
    template = _environment(escape).get_template("report.html.jinja")
    return template.render(
        findings=findings,
        figures={label: _with_unique_ids(svg, number) for number, (label, svg) in enumerate(figures.items())},
        shown=SHOWN_IN_HTML,
        longest_text=LONGEST_IN_HTML,
        folded_from=FOLDED_FROM,
        marks=VERDICT_MARKS,
    )


def in_markdown(value: object) -> Markup:
    """One line of Markdown that is text and nothing else: no table cell ends, no tag or link begins in it."""
    if isinstance(value, Markup):
        return value
    line = " ".join(BIDI_CONTROLS.sub("\ufffd", str(value)).split())
    line = re.sub(r"([\\`*_|$])", r"\\\1", html.escape(line, quote=False))
    return Markup(line.replace("](", "]\\("))


@cache
def _environment(escaped: Callable[[object], Markup]) -> Environment:
    """Templates whose every value passes `escaped`: autoescape leaves its `Markup` alone."""
    environment = Environment(
        loader=PackageLoader("armlet.evaluation.report"),
        autoescape=True,
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    of_task = (tables.samples_grid, tables.changes, sentences.arm_checks)
    environment.filters |= {function.__name__: function for function in of_task}
    environment.globals |= {"sentences": sentences, "tables": tables}
    return environment


def _draw_figures(findings: Findings, map: SearchMap | None) -> dict[str, str]:
    from armlet.evaluation.report.figures import draw_forest, draw_map
    from armlet.presentation.style import svg_text

    figures: dict[str, str] = {}
    if any(task.comparisons for task in findings.tasks):
        forest = draw_forest(findings.tasks, title="Difference from the baseline")
        figures["Forest plot of differences; the table of accuracy has its numbers"] = svg_text(forest)
    if map:
        label = f"Map of differences over {map.x} and {map.y}; report.md has its numbers"
        figures[label] = svg_text(draw_map(map))
    return figures


def _with_unique_ids(svg: str, number: int) -> Markup:
    """Two drawings use the same ids; on one page they must differ."""
    return Markup(re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>f{number}-", svg))
