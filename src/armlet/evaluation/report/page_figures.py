"""The figures of a report's page: inline SVG in the page's colours, for wide pages and for narrow ones."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from armlet.evaluation.report.findings import Report
from armlet.evaluation.search.trials import SearchMap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOREST_TITLE = "Difference from the baseline"


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page."""

    label: str
    svg: Markup
    width: str  # the pages that show it: "wide" or "narrow"


def has_forest(findings: Report) -> bool:
    """Whether there is a difference to draw."""
    return any(task.comparisons for task in findings.tasks)


def page_figures(findings: Report, map: SearchMap | None) -> list[PageFigure]:
    """The forest plot and the map, each in a layout for wide pages and in one for narrow pages."""
    from armlet.evaluation.report.figures import NARROW, WIDE, draw_forest
    from armlet.evaluation.search.figures import draw_map
    from armlet.presentation.style import svg_text

    drawn: list[tuple[str, Figure, str]] = []
    layouts = ((WIDE, "wide"), (NARROW, "narrow"))
    if has_forest(findings):
        label = "Forest plot of differences; the accuracy tables contain its numbers"
        drawn += [(label, draw_forest(findings.tasks, title=FOREST_TITLE, layout=how), width) for how, width in layouts]
    if map:
        label = f"Map of differences over {map.x} and {map.y}; report.md contains its numbers"
        drawn += [(label, draw_map(map, narrow=width == "narrow"), width) for _, width in layouts]
    inks = _inks()
    return [
        PageFigure(label, _in_page(svg_text(figure), number, inks), width)
        for number, (label, figure, width) in enumerate(drawn)
    ]


def _inks() -> dict[str, str]:
    """The page's variable for each colour of a figure that differs in dark mode."""
    from armlet.evaluation.report.figures import UNDETECTABLE
    from armlet.evaluation.search.figures import DARK
    from armlet.presentation.style import COLOURS, GREY

    inks = {"#000000": "--ink", DARK: "--ink", GREY: "--soft", UNDETECTABLE: "--band", "#ffffff": "--page"}
    return inks | {colour.lower(): f"--{name.lower()}" for name, colour in COLOURS.items()}


def _in_page(svg: str, number: int, inks: Mapping[str, str]) -> Markup:
    """Makes the ids in a figure unique on the page, and replaces its colours by the variables in `inks`."""
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>f{number}-", svg)
    return Markup(re.sub("|".join(inks), lambda colour: f"var({inks[colour[0]]})", svg))
