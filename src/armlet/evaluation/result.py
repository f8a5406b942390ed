"""The result of `evaluate` and `confirm`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from armlet.evaluation.report.findings import Report
from armlet.evaluation.report.limitations import general_limitations, limited_verdicts
from armlet.evaluation.report.page import write
from armlet.evaluation.report.sentences import bands_without_effect, failed_checks, missing_items
from armlet.evaluation.report.tables import summary_table
from armlet.presentation.arguments import output_folder
from armlet.presentation.result import Result
from armlet.presentation.terminal import note

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class Findings(Report, Result):
    """What a run found: for each task the accuracy under each condition, paired comparisons, and verdicts."""

    folder: Path | None = None  # the run folder
    interrupted: bool = False

    def tables(self) -> list[Table]:
        """A table for each task."""
        return [summary_table(task) for task in self.tasks]

    def sentences(self) -> list[str]:
        """What is missing, and the verdicts of each task, with what limits them below."""
        tasks, missing = limited_verdicts(self), missing_items(self)
        lines = [line for verdicts, limits in tasks for line in (*(v.sentence for v in verdicts), *limits)]
        if missing:
            lines = [missing, *(lines if self.verdicts else ("there are no verdicts", *lines))]
        return [*lines, *general_limitations(self)]

    def figure(self) -> "Figure":
        """The forest plot of all differences; raises ArgumentError if nothing was compared."""
        from armlet.evaluation.report.figures import draw_forest

        return draw_forest(self.tasks, title="Difference from the baseline")

    def _figure_html(self) -> str:
        return super()._figure_html() if any(task.comparisons for task in self.tasks) else ""

    def save(self, directory: str | Path) -> list[Path]:
        """Writes the report as JSON, Markdown and HTML, its table as CSV and LaTeX, and forest.png, .svg and .pdf."""
        return write(self, output_folder("directory", directory), map=self.search.map() if self.search else None)


def make_findings(report: Report, folder: Path | None = None, *, interrupted: bool = False) -> Findings:
    """The findings of a report, after a note on stderr for each check that failed and each band without effect."""
    for warning in (*failed_checks(report), *bands_without_effect(report)):
        note(warning, style="yellow")
    return Findings(**vars(report), folder=folder, interrupted=interrupted)
