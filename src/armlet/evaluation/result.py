"""The results of `evaluate`, `tune` and `confirm`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from armlet.evaluation.report.findings import Report
from armlet.evaluation.report.page import write
from armlet.evaluation.report.sentences import bands_without_effect, failed_checks
from armlet.evaluation.report.tables import summary_table
from armlet.evaluation.search.results import STUDY_FILE, StudyResult
from armlet.evaluation.search.tables import trials_table
from armlet.presentation.files import csv_text, write_json, write_text
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
        """The verdicts."""
        return [verdict.sentence for verdict in self.verdicts]

    def figure(self) -> "Figure":
        """The forest plot of all differences; raises ArgumentError if nothing was compared."""
        from armlet.evaluation.report.figures import draw_forest

        return draw_forest(self.tasks, title="Difference from the baseline")

    def _figure_html(self) -> str:
        return super()._figure_html() if any(task.comparisons for task in self.tasks) else ""

    def save(self, directory: str | Path) -> list[Path]:
        """Writes report.json, report.md and report.html."""
        return write(self, Path(directory), map=self.study.map() if self.study else None)


def make_findings(report: Report, folder: Path | None = None, *, interrupted: bool = False) -> Findings:
    """The findings of a report, after a note on stderr for each check that failed and each band without effect."""
    for warning in (*failed_checks(report), *bands_without_effect(report)):
        note(warning, style="yellow")
    return Findings(**vars(report), folder=folder, interrupted=interrupted)


@dataclass(frozen=True, repr=False, eq=False)
class Study(StudyResult, Result):
    """A search for the best setting, measured on the tuning items only."""

    folder: Path = Path()  # the study's folder, for `confirm`

    def tables(self) -> list[Table]:
        """The best trials."""
        return [trials_table(self)]

    def sentences(self) -> list[str]:
        """What to do next."""
        if self.interrupted:
            return [f"the search was interrupted: the same call resumes it in {self.folder}, before armlet confirm"]
        advice = "the best setting looks better than it is on the items that chose it; on the others: armlet confirm"
        return [f"{advice} {self.folder}"]

    def figure(self) -> "Figure":
        """The differences on the map's grid; along the values if one setting was searched."""
        from armlet.evaluation.report.figures import draw_curve, draw_map

        searched = self.map()
        title = f"{self.space['treatment']['policy']} on the tuning items"
        return draw_map(searched) if searched else draw_curve(self.trials, self.searched[0], title=title)

    def save(self, directory: str | Path) -> list[Path]:
        """Writes study.json, trials.csv, the best setting as armlet.json, and sensitivity.png and sensitivity.svg."""
        from armlet.presentation.style import save

        folder = Path(directory)
        return [
            write_json(folder / STUDY_FILE, self.to_dict()),
            write_text(folder / "trials.csv", csv_text([trial.to_dict() for trial in self.trials])),
            write_json(folder / "armlet.json", self.armlet),
            *save(self.figure(), folder, "sensitivity"),
        ]
