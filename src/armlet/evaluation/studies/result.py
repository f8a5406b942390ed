"""The result of `study`: every treatment in every cell, next to what the source claims, with Holm's correction."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from armlet.evaluation.report.analysis import correct_by_holm
from armlet.evaluation.report.findings import NoiseFloor
from armlet.evaluation.report.judging import judging_sentences
from armlet.evaluation.report.limitations import beyond_margin, task_limitations
from armlet.evaluation.report.page import study_markdown
from armlet.evaluation.report.paper import latex_grid
from armlet.evaluation.report.sentences import noise_sentence
from armlet.evaluation.report.tables import Grid
from armlet.evaluation.studies.cells import CellOutcome
from armlet.evaluation.studies.definition import Cell, Study
from armlet.evaluation.studies.rows import CELL_COLUMNS, ROW_HEADINGS, StudyRow
from armlet.presentation.arguments import output_folder
from armlet.presentation.files import csv_text, write_json, write_text
from armlet.presentation.numbers import with_count
from armlet.presentation.result import Result
from armlet.presentation.tables import titled_table
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class StudyFindings(Result):
    """The findings of a study."""

    study: Study
    sha256: str  # of the study's file
    rows: Sequence[StudyRow]
    floors: Mapping[str, NoiseFloor]  # by the name of the cell
    limitations: Sequence[str]  # what limits the verdicts of single cells
    failures: Mapping[str, str]  # the reasons, by the name of the cell
    cells: int  # the number of cells of the study
    finished: int  # the number of finished cells
    planned: int  # the number of comparisons in all cells, which Holm's correction counts
    untested: Sequence[str]  # the claims about unfinished cells
    folder: Path
    interrupted: bool = False

    def sentence(self) -> str:
        """The study in one sentence."""
        verdicts = Counter(row.pair.verdict for row in self.rows)
        counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
        claims = Counter(row.claim_is for row in self.rows if row.claim)
        total = with_count(sum(claims.values()) + len(self.untested), "claim")
        untested = f", {len(self.untested)} not tested ({'; '.join(self.untested)})" if self.untested else ""
        inside = f"; of {total}, {claims['inside']} inside its interval{untested}" if claims or untested else ""
        over = f"{with_count(len(self.rows), 'comparison')} in {with_count(self.finished, 'cell')}"
        missing = f" {self.planned} planned, as if the missing ones showed nothing" * (len(self.rows) < self.planned)
        outcome = f"Found: of {over}, after Holm's correction over all{missing}: {counts}{inside}."
        return f'Hypothesis: "{self.study.hypothesis}" {outcome}'

    def sentences(self) -> list[str]:
        """The sentence, the noise floor, and what is missing."""
        floors = [f"{name}: {noise_sentence(floor)}" for name, floor in self.floors.items()]
        failed = [f"failed: {name} ({reason})" for name, reason in self.failures.items()]
        unfinished = self.cells - self.finished - len(self.failures)
        rest = [f"partial: {unfinished} of {with_count(self.cells, 'cell')} not finished"] if unfinished else []
        missing = [f"not run: {omission.part} ({omission.reason})" for omission in self.study.not_run()]
        margin = None if self.study.margin is None else self.study.margin / 100
        judged = judging_sentences(margin, several=self.planned > 1)
        beyond = beyond_margin(row.pair for row in self.rows)
        return [self.sentence(), judged, *beyond, *self.limitations, *floors, *rest, *failed, *missing]

    def grid(self) -> Grid:
        """One row for each treatment in each cell, as texts; without claims, there is no column for them."""
        columns = len(ROW_HEADINGS) if self.study.claims else -1
        rows = [row.texts()[:columns] for row in self.rows]
        return Grid(self.study.title, ROW_HEADINGS[:columns], {"": rows})

    def tables(self) -> list[Table]:
        """A table for each cell, with a row for each treatment, so that it fits into 80 columns."""
        grid, tables = self.grid(), list[Table]()
        for cell, texts in groupby(grid.groups[""], lambda texts: texts[:CELL_COLUMNS]):
            model, task, seed, items, baseline = cell
            title = f"{model}, {task}, seed {seed}: {items} items, baseline {baseline}"
            title = title if tables else f"{grid.title}\n{title}"
            tables.append(titled_table(title, grid.headings[CELL_COLUMNS:]))
            for row in texts:
                tables[-1].add_row(*row[CELL_COLUMNS:])
        return tables

    def other_names(self) -> dict[str, str]:
        """The treatments with another name in the reports of their cells, with this name, which depends on the cell."""
        names: dict[str, dict[str, None]] = {}
        for row in self.rows:
            condition = str(row.pair.treated)
            if condition.lower() != row.treatment.lower():
                names.setdefault(row.treatment, {})[condition] = None
        return {name: " or ".join(conditions) for name, conditions in names.items()}

    def figure(self) -> "Figure":
        """The forest plot of all cells, with the claims and the noise floors."""
        from armlet.evaluation.studies.figures import draw_study

        return draw_study(self.study.title, self.rows, self.floors)

    def to_dict(self) -> dict[str, object]:
        """The content of report.json, which does not depend on where the cells ran."""
        study = self.study
        return {
            "armlet": metadata.version("armlet"),
            "study": {
                "sha256": self.sha256,
                "title": study.title,
                "source": study.source,
                "hypothesis": study.hypothesis,
                "margin": study.margin,
            },
            "complete": self.finished == self.cells,
            "sentence": self.sentence(),
            "planned_comparisons": self.planned,
            "claims_not_tested": [*self.untested],
            "rows": [row.to_dict() for row in self.rows],
            "limitations": [*self.limitations],
            "noise_floors": {name: asdict(floor) for name, floor in self.floors.items()},
            "failed": dict(self.failures),
            "not_run": [vars(omission) for omission in study.not_run()],
        }

    def save(self, directory: str | Path) -> list[Path]:
        """Writes the report as JSON and Markdown, its table as CSV and LaTeX, and forest.png, .svg and .pdf."""
        from armlet.presentation.style import save

        folder = output_folder("directory", directory)
        rows = [dict(zip(ROW_HEADINGS, row.texts(), strict=True)) for row in self.rows]
        files = [
            write_json(folder / "report.json", self.to_dict()),
            write_text(folder / "report.md", study_markdown(self)),
            write_text(folder / "table.csv", csv_text(rows)),
            write_text(folder / "table.tex", latex_grid(self.grid())),
        ]
        return [*save(self.figure(), folder, "forest", ("png", "svg", "pdf")), *files]


def make_study_findings(
    study: Study, sha256: str, outcomes: Sequence[CellOutcome], folder: Path, *, interrupted: bool = False
) -> StudyFindings:
    """The findings of a study's cells, in any order.

    Raises ArgumentError if every cell failed.
    """
    cells = {cell.name: cell for cell in study.cells()}
    order = [*cells]
    sorted_outcomes = sorted(outcomes, key=lambda outcome: order.index(outcome.cell.name))
    failures = {o.cell.name: o.failure for o in sorted_outcomes if o.failure}
    finished = [(o.cell, o.findings) for o in sorted_outcomes if o.findings]
    if failures and not finished:
        name, reason = next(iter(failures.items()))
        raise ArgumentError(f"study: every cell failed; {name}: {reason}")
    missing = [cells[name] for name in order if name not in {cell.name for cell, _ in finished}]
    judged = sum(pair.judged for _, findings in finished for pair in findings.comparisons)
    planned = judged + sum(_most_comparisons(study, cell) for cell in missing)
    corrected = correct_by_holm([findings for _, findings in finished], planned)
    rows = []
    for (cell, _), findings in zip(finished, corrected, strict=True):
        names = cell.condition_names()
        for pair in findings.comparisons:
            if pair.judged and pair.treated.condition in names:
                treatment, selection = names[pair.treated.condition], pair.treated.selection
                claim = None if selection else study.claim(cell, treatment)  # claims are of single answers
                name = f"{treatment}, {selection}" if selection else treatment
                rows.append(StudyRow(cell.name, cell.model_name, cell.task_name, cell.seed, name, pair, claim))
    floors = {cell.name: findings.noise_floor for cell, findings in finished if findings.noise_floor}
    limitations = [f"{cell.name}: {text}" for cell, findings in finished for text in task_limitations(findings)]
    claimed = ((name, cell) for cell in missing for name in cell.treatments if study.claim(cell, name))
    untested = [f"{name} in {cell.name}" for name, cell in claimed]
    counts = {"cells": len(order), "finished": len(finished), "planned": planned, "untested": untested}
    facts = {"folder": folder, "interrupted": interrupted}
    return StudyFindings(study, sha256, rows, floors, limitations, failures, **counts, **facts)


def _most_comparisons(study: Study, cell: Cell) -> int:
    """The largest number of comparisons in an unfinished cell: several samples add each treatment's majority."""
    several = study.settings_of(cell).get("samples", 1) != 1
    return len(cell.treatments) * (1 + several)
