"""`armlet confirm`: the one use of a study's test items, on record."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from armlet.commands.engines import local_engine
from armlet.commands.findings import announce_power, show_findings
from armlet.commands.options import ComputeOptions, JsonOption, check_folder
from armlet.evaluation.search.study import confirm_study, plan_confirmation, read_study, record_confirmation


def confirm(
    study: Annotated[Path, Argument(help="The folder of `armlet tune`.")],
    out: Annotated[Path | None, Option(help="Where the report goes; into the folder by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a study's best setting on its test items: once, with placebos, on record."""
    check_folder(out or study)
    searched = read_study(study)
    plan = plan_confirmation(study, searched)
    if not as_json:
        announce_power(plan)
    asked = searched.arguments
    engine = local_engine(asked.model, ComputeOptions(asked.seed, asked.dtype, asked.device))
    finished = confirm_study(study, searched, plan, engine)
    show_findings(
        finished.findings, out or finished.folder, as_json=as_json, map=searched.map(), interrupted=finished.interrupted
    )
    record_confirmation(study, searched, finished)
