"""Runs a study in its folder: a search on tuning items, and a measurement of the best setting on test items."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from armlet.attachment.config import parse_config
from armlet.evaluation.conditions.conditions import Condition, Treatment, conditions
from armlet.evaluation.engines.engine import Engine
from armlet.evaluation.plan import Plan, collect_tasks, make_plan
from armlet.evaluation.batches import FinishedRun, count_answers, run_and_analyse
from armlet.evaluation.search.results import Budget, StudyArguments, StudyResult, StudyTask, TrialResult, best
from armlet.evaluation.search.search import ItemsPart, Space, search, take
from armlet.evaluation.settings import Facts
from armlet.evaluation.tasks.problems import Task
from armlet.presentation.files import csv_text, write_json, write_text
from armlet.presentation.interruption import until_interrupted
from armlet.presentation.terminal import progress
from armlet.redistribution.errors import ArgumentError
from armlet.runs.folder import default_run_folder, open_run_folder
from armlet.runs.machine import machine

Content = TypeVar("Content")

STUDY_FILE, CONFIRMED_FILE, TEST_FOLDER = "study.json", "confirmed.json", "test"
"""The contents of a study's folder: its result, the record that its test items are used, and their run."""


def plan_tuning(arguments: StudyArguments) -> Plan:
    """The plan for the tuning items, with only the baseline."""
    tasks = _take_tasks(arguments, "tuning")
    temperature = float(all(task.kind == "choice" for task in tasks))
    return _plan(arguments, tasks, conditions([], [], temperature=temperature, placebos=False))


def run_study(
    space: Space, plan: Plan, engine: Engine, arguments: StudyArguments, folder: Path | None
) -> tuple[StudyResult | None, Path]:
    """Runs the parts of the study that are not yet in its folder, and writes study.json there.

    `plan` is the result of `plan_tuning` for the same arguments. The default folder is named after the study.

    Returns:
        The study (None if it was interrupted before its first trial ended) and its folder.

    Raises ArgumentError if the test items of the study have already been used.
    """
    manifest = plan.manifest(engine) | {"study": space.to_dict()}
    folder = folder or default_run_folder(manifest)
    if (folder / CONFIRMED_FILE).exists():
        raise ArgumentError(f"{folder}: the test items of this study have been used; use another --run or --seed")
    trials: list[TrialResult] = []
    total = (1 + len(space.grid()) + space.trials) * count_answers(plan)
    journals, bar = open_run_folder(folder, manifest, machine()), progress("searching", total)
    with journals as journal, bar as tick, until_interrupted() as interruption:
        trials.extend(search(space, plan, engine, journal, tick))
    if not trials:
        return None, folder
    study = _result(trials, space, plan, manifest["engine"], arguments, interruption.happened)
    write_json(folder / STUDY_FILE, study.to_dict())
    return study, folder


def write_study(study: StudyResult, folder: Path) -> list[Path]:
    """Writes the table of trials, the best setting as `armlet.json`, and the map; returns the paths."""
    from armlet.evaluation.report.figures import draw_map
    from armlet.presentation.style import save

    paths = [
        write_text(folder / "trials.csv", csv_text([trial.to_dict() for trial in study.trials])),
        write_json(folder / "armlet.json", study.armlet),
    ]
    sensitivity = study.map()
    return paths + (save(draw_map(sensitivity), folder, "sensitivity") if sensitivity else [])


def read_study(folder: Path) -> StudyResult:
    """Reads a finished study whose test items are unused; an interrupted confirmation may be resumed.

    Raises ArgumentError if the folder contains no study, its search was interrupted, or its test items have been used.
    """
    study = _read_json(folder / STUDY_FILE, StudyResult.from_dict)
    record = folder / CONFIRMED_FILE
    if record.exists() and _read_json(record, itemgetter("verdicts")) is not None:
        report = folder / TEST_FOLDER / "report.html"
        raise ArgumentError(f"{folder}: its test items have been used; the report is {report}")
    if study.interrupted:
        raise ArgumentError(f"{folder}: the search was interrupted; let `armlet tune` finish it first")
    return study


def plan_confirmation(folder: Path, study: StudyResult) -> Plan:
    """The plan for the test items, for the best setting and its placebos; raises ArgumentError if the items changed."""
    treatment = Treatment(**parse_config(dict(study.armlet)))
    plan = _plan(study.arguments, _take_tasks(study.arguments, "test"), conditions([treatment], []))
    for tuned, task in zip(study.tasks, plan.tasks, strict=True):
        if {**tuned.source, "part": "test"} != dict(task.source):
            raise ArgumentError(f"{folder}: the items of {task.name} changed after the search; restore its file")
    return plan


def confirm_study(folder: Path, study: StudyResult, plan: Plan, engine: Engine) -> FinishedRun:
    """Measures the best setting, which ends the search; raises ArgumentError for another model."""
    if plan.manifest(engine)["engine"] != study.engine:
        raise ArgumentError(f"{folder}: the model is not the one used in the search; its weights or its dtype changed")
    record_confirmation(folder, study, None)
    finished = run_and_analyse(plan, engine, folder / TEST_FOLDER)
    return replace(finished, findings=replace(finished.findings, study=study))


def record_confirmation(folder: Path, study: StudyResult, finished: FinishedRun | None) -> None:
    """Records that the test items are used; `finished` is None before the run, and set once its report is written."""
    verdicts = finished and [verdict.sentence for verdict in finished.findings.verdicts]
    summary = study.summary()
    write_json(folder / CONFIRMED_FILE, {"verdicts": verdicts, "best": summary["best"], "budget": summary["budget"]})


def _take_tasks(arguments: StudyArguments, part: ItemsPart) -> list[Task]:
    files = [Path(file) for file in arguments.data]
    tasks = collect_tasks(arguments.task, files, arguments.items, arguments.difficulty, arguments.seed)
    return [take(task, part) for task in tasks]


def _plan(arguments: StudyArguments, tasks: Sequence[Task], compared: Sequence[Condition]) -> Plan:
    return make_plan(
        tasks,
        compared,
        built_in=arguments.model in (None, "abacus"),
        seed=arguments.seed,
        max_new_tokens=arguments.max_new_tokens,
        system=arguments.system,
        allow_code=arguments.allow_code,
        batch=arguments.batch,
    )


def _result(
    trials: Sequence[TrialResult], space: Space, plan: Plan, engine: Facts, arguments: StudyArguments, interrupted: bool
) -> StudyResult:
    items, chosen = sum(len(task.problems) for task in plan.tasks), best(trials)
    return StudyResult(
        arguments=arguments,
        engine=engine,
        space=space.to_dict(),
        tasks=[StudyTask(task.name, len(task.problems), dict(task.source)) for task in plan.tasks],
        budget=Budget(len(trials), items, (1 + len(trials)) * items),
        armlet=space.treatment_at(chosen.values, chosen.layers).plain(),
        interrupted=interrupted,
        trials=trials,
        searched=space.names,
        mapped=list(range(min(len(trials), len(space.grid())))),
    )


def _read_json(path: Path, read: Callable[[dict[str, Any]], Content]) -> Content:
    """The result of `read` for a file of a study; raises ArgumentError if anything is wrong with the file."""
    try:
        return read(dict(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError, LookupError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ArgumentError(f"{path.parent}: no finished study of `armlet tune` ({path.name}: {reason})") from error
