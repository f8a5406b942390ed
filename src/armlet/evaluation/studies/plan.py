"""The cells and treatments of a study, shown before the run."""

from rich.table import Table

from armlet.evaluation.studies.definition import Cell, Study
from armlet.presentation.numbers import DASH, points
from armlet.presentation.tables import titled_table

PLAN_HEADINGS = ("model", "task", "seed", "treatment", "claimed, points")  # the last only with claims


def plan_table(study: Study) -> Table:
    """One row for each treatment in each cell, with what the source claims."""
    columns = len(PLAN_HEADINGS) if study.claims else -1
    table = titled_table(study.title, PLAN_HEADINGS[:columns])
    for cell in study.cells():
        for treatment in cell.treatments:
            table.add_row(*_cell_texts(study, cell, treatment)[:columns])
    return table


def plan_sentences(study: Study, sha256: str) -> list[str]:
    """The hypothesis, the source, the hash, and what is left out."""
    omitted = [f"not run: {omission.part} ({omission.reason})" for omission in study.not_run()]
    return [f"hypothesis: {study.hypothesis}", f"source: {study.source}", f"sha256: {sha256}", *omitted]


def plan_content(study: Study, sha256: str) -> dict[str, object]:
    """The plan as plain values for JSON."""
    rows = [_cell_texts(study, cell, treatment) for cell in study.cells() for treatment in cell.treatments]
    cells = [dict(zip(PLAN_HEADINGS, row, strict=True)) for row in rows]
    return {"sha256": sha256, "title": study.title, "cells": cells, "not_run": [vars(o) for o in study.not_run()]}


def _cell_texts(study: Study, cell: Cell, treatment: str) -> list[str]:
    claim = study.claim(cell, treatment)
    claimed = DASH if claim is None else points(claim.difference / 100)
    return [cell.model_name, cell.task_name, str(cell.seed), treatment, claimed]
