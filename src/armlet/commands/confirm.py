"""`armlet confirm`: measures a search's best setting on its test items, once and on record."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from armlet import evaluation
from armlet.commands.options import JsonOption, saying_where_to_resume, show
from armlet.commands.policy_help import policy_option
from armlet.evaluation.options import MarginOption


def confirm(
    search: Annotated[Path, Argument(help="The search's folder, from `armlet tune`.")],
    policy: Annotated[
        str | None, policy_option("The file.py:Class of the search, if its policy is in a file, which is run again.")
    ] = None,
    margin: MarginOption = None,
    out: Annotated[Path | None, Option(help="Folder for the report; by default the run in that folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a search's best setting on its test items, with placebos; possible once, and recorded."""
    with saying_where_to_resume():
        findings = evaluation.confirm(search, policy=policy, margin=margin, out=out)
    show(findings, out or findings.folder, as_json)
