"""`armlet confirm`: measures a study's best setting on its test items, once and on record."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from armlet import evaluation
from armlet.commands.options import JsonOption, saying_where_to_resume, show


def confirm(
    study: Annotated[Path, Argument(help="The study's folder, from `armlet tune`.")],
    out: Annotated[Path | None, Option(help="Folder for the report; the run in the study's folder by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a study's best setting on its test items, with placebos; possible once, and recorded."""
    with saying_where_to_resume():
        findings = evaluation.confirm(study, out=out)
    show(findings, out or findings.folder, as_json)
