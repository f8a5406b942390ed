"""`armlet confirm`: the one use of a study's test items, on record."""

from pathlib import Path
from typing import Annotated

import typer

from armlet.commands.arguments import JsonOption, check_folder
from armlet.commands.evaluating import local_engine, perform, say_planned, show
from armlet.evaluation.search.study import CONFIRMED, TEST, check_unused, read_study, study_map, study_plan
from armlet.presentation.files import write_json
from armlet.presentation.terminal import INTERRUPTED
from armlet.redistribution.errors import ArgumentError


def confirm(
    study: Annotated[Path, typer.Argument(help="The folder of `armlet tune`.")],
    out: Annotated[Path | None, typer.Option(help="Where the report goes; into the folder by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a study's best setting on its test items: once, with placebos, on record."""
    from armlet.attachment.config import parse_config
    from armlet.evaluation.conditions.conditions import Treatment, conditions

    check_folder(out or study)
    found = read_study(study)
    check_unused(study)
    if found["interrupted"]:
        raise ArgumentError(f"{study}: the search was interrupted; let `armlet tune` finish it first")
    arguments = found["arguments"]
    treatment = Treatment(**parse_config(found["best"]["armlet"]))
    plan = study_plan(arguments, "test", conditions([treatment], []))
    for before, now in zip(found["tasks"], plan.tasks, strict=True):
        if before["source"] | {"part": "test"} != dict(now.source):
            raise ArgumentError(f"{study}: the items of {now.name} are not those of the search; restore its file")
    if not as_json:
        say_planned(plan)
    engine = local_engine(arguments["model"], arguments["dtype"], arguments["device"], arguments["seed"])
    if plan.manifest(engine)["engine"] != found["engine"]:
        raise ArgumentError(f"{study}: the model is not the one of the search; its weights or its dtype have changed")
    chosen = {"best": found["best"], "budget": found["budget"]}
    write_json(study / CONFIRMED, {"verdicts": None, **chosen})  # from here on no search can be changed by what is seen
    measured, folder, interrupted = perform(plan, engine, study / TEST)
    measured["study"] = chosen | {"tasks": found["tasks"]}
    show(measured, out or folder, as_json=as_json, map=study_map(found))
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    write_json(study / CONFIRMED, {"verdicts": measured["verdicts"], **chosen})
