"""`armlet confirm`: measures a study's best setting on its test items, once and on record."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from armlet.commands.engines import local_engine
from armlet.commands.findings import announce_power, show_findings
from armlet.commands.options import ComputeOptions, JsonOption, check_folder
from armlet.evaluation.search.study import confirm_study, plan_confirmation, read_study, record_confirmation


def confirm(
    study: Annotated[Path, Argument(help="The study's folder, from `armlet tune`.")],
    out: Annotated[Path | None, Option(help="Folder for the report; the study's folder by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a study's best setting on its test items, with placebos; possible once, and recorded."""
    check_folder(out or study)
    study_result = read_study(study)
    plan = plan_confirmation(study, study_result)
    if not as_json:
        announce_power(plan)
    arguments = study_result.arguments
    engine = local_engine(arguments.model, ComputeOptions(arguments.seed, arguments.dtype, arguments.device))
    finished = confirm_study(study, study_result, plan, engine)
    folder, search_map = out or finished.folder, study_result.map()
    show_findings(finished.findings, folder, as_json=as_json, map=search_map, interrupted=finished.interrupted)
    record_confirmation(study, study_result, finished)
