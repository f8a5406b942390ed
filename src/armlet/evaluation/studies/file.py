"""Reads a study's file, in TOML, and checks it before anything is run."""

import hashlib
import inspect
import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from armlet.checkpoints.pretrained import dtype_name
from armlet.evaluation.conditions.interventions import TREATMENT
from armlet.evaluation.grading.graders import graders
from armlet.evaluation.options import ConditionOptions, GradedAnswerOptions, refuse_sampling
from armlet.evaluation.run import evaluate
from armlet.evaluation.studies.cells import located, relative, relative_settings
from armlet.evaluation.studies.definition import Cell, Settings, Study, is_path
from armlet.evaluation.tasks.examples import make_form
from armlet.evaluation.tasks.sources import ARITHMETIC, collect_tasks
from armlet.presentation.arguments import LARGEST_SEED, number_in, plain_value, whole_number, whole_number_or_none
from armlet.presentation.options import OptionGroup
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.python_file import read_file_object

GivenGroup = TypeVar("GivenGroup", bound=OptionGroup)

PLACE = ("layers", "scope", "site", "experts")
"""The arguments of `evaluate` that are settings of a study's policy."""

MANAGED = (
    *("model", "tokenizer", "treatments", *PLACE, "task", "filler", "count", "position", "engine", "run", "seed"),
    *("margin", "budget", "best_of", "combine"),
)
"""The arguments of `evaluate` that a study sets itself, and those whose conditions or items it would not name."""

CELL_SETTINGS = tuple(name for name in inspect.signature(evaluate).parameters if name not in MANAGED)
"""The arguments of `evaluate` that are settings of a study, of its models and of its tasks."""


def read_study(path: Path) -> tuple[Study, str]:
    """Reads a study, and the sha256 of its file.

    Raises ArgumentError if the file cannot be read, or with the place of a value that is wrong.
    """
    try:
        content = path.read_bytes()
        tables = tomllib.loads(content.decode("utf-8-sig"))  # Windows programs write a byte order mark
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ArgumentError(f"study: {path} cannot be read ({reason})") from error
    try:
        study = TypeAdapter(Study).validate_json(json.dumps(tables, default=str))
        _check(study, path.parent)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ArgumentError(f"study: {path}: {place}: {first['msg']}, found {first['input']!r:.60}") from error
    except ArgumentError as error:
        raise ArgumentError(f"study: {path}: {error}") from error
    return study, hashlib.sha256(content).hexdigest()


def _check(study: Study, base: Path) -> None:
    """Refuses names and values that no cell could use; paths are relative to `base`."""
    for name in ("title", "source", "hypothesis"):
        if not getattr(study, name).strip():
            raise ArgumentError(f"{name}: expected text, found {getattr(study, name)!r}")
    ConditionOptions(margin=study.margin)
    models = _distinct("models", [part.model for part in study.models])
    tasks = _distinct("tasks", [part.task for part in study.tasks])
    treatments = _distinct("treatments", [part.name for part in study.treatments])
    for seed in _distinct("seeds", study.seeds):
        whole_number("seeds", seed, 0, LARGEST_SEED)
    for place, settings in (("settings", study.settings), *_settings_of_parts(study)):
        _among(f"{place}", settings, CELL_SETTINGS)
    for model in study.models:
        _among(f"models: {model.model}: tasks", model.tasks, tasks)
        whole_number(f"models: {model.model}: cpus", model.cpus, 1)
        whole_number(f"models: {model.model}: gpus", model.gpus, 0)
    for treatment in study.treatments:
        place = f"treatments: {treatment.name}"
        kinds = [kind for kind in ("policy", "function", "filler") if getattr(treatment, kind) is not None]
        if len(kinds) != 1:
            stated = " and ".join(kinds) or "none"
            raise ArgumentError(f"{place}: expected either a policy, a function or a filler, found {stated}")
        _among(f"{place}: settings", treatment.settings, PLACE if treatment.policy else ())
        _among(f"{place}: models", treatment.models, models)
        _among(f"{place}: tasks", treatment.tasks, tasks)
    for claim in study.claims:
        _among("claims: model", [claim.model], models)
        _among("claims: task", [claim.task], tasks)
        _among("claims: treatment", [claim.treatment], treatments)
        number_in("claims: difference", claim.difference, -100, 100)
        number_in("claims: baseline", claim.baseline or 0, 0, 100)
    _check_cells(study, base)
    _check_claims(study)


def _check_cells(study: Study, base: Path) -> None:
    cells = study.cells()
    if not cells:
        raise ArgumentError("no treatment applies to any model and task")
    _distinct("cells", [cell.name for cell in cells])  # such as those of two files of one name in two folders
    for cell in cells:
        cell.condition_names()
        if cell.seed == study.seeds[0]:
            _check_cell(study, cell, base)


def _check_cell(study: Study, cell: Cell, base: Path) -> None:
    """Refuses what `evaluate` would refuse without a model and without downloading its items."""
    try:
        for treatment in cell.treatments.values():
            if isinstance(treatment, str):
                named = read_file_object(str(located(base, treatment)), option=TREATMENT, kind="function")
                if named.has_class("move"):
                    problem = f"{named.name} is a policy, which a study takes by the name that a package registers"
                    raise named.refused(problem)
        _check_settings(cell, base, relative_settings(base, study.settings_of(cell)))
    except ArgumentError as error:
        raise ArgumentError(f"the cell {cell.name}: {error}") from error


def _check_settings(cell: Cell, base: Path, settings: Settings) -> None:
    comparison, answers = _options(ConditionOptions, settings), _options(GradedAnswerOptions, settings)
    comparison.conditions([], [])
    graders(answers.grader, ["maths"])
    make_form([], answers.shots, answers.examples, answers.template, letters=answers.letters)
    items = whole_number_or_none("items", settings.get("items"), 1)
    difficulty = whole_number_or_none("difficulty", settings.get("difficulty"), 0)
    plain_value("keep_tuning_items", settings.get("keep_tuning_items", False), bool)
    dtype_name(str(settings.get("dtype", "auto")))
    if is_path(cell.task.task) or cell.task.task == ARITHMETIC:  # any other task is on a hub
        tasks = collect_tasks(relative(base, cell.task.task), items, difficulty, cell.seed)
        refuse_sampling(tasks, answers, comparison)


def _options(group: type[GivenGroup], settings: Settings) -> GivenGroup:
    """The group with those settings that are its fields; raises ArgumentError for a value that it refuses."""
    names = inspect.signature(group).parameters
    return group(**{name: value for name, value in settings.items() if name in names})


def _check_claims(study: Study) -> None:
    """Refuses claims that no cell tests, and two claims about one treatment in one place."""
    claimed, places = [", ".join((claim.model, claim.task, claim.treatment)) for claim in study.claims], study.places()
    if claimed:
        _distinct("claims", claimed)
    for place in claimed:
        if place not in places:
            raise ArgumentError(f"claims: no cell tests {place!r}; leave the claim out, or apply the treatment there")


def _settings_of_parts(study: Study) -> Iterable[tuple[str, Settings]]:
    yield from ((f"models: {part.model}: settings", part.settings) for part in study.models)
    yield from ((f"tasks: {part.task}: settings", part.settings) for part in study.tasks)


def _distinct(place: str, names: Sequence[object]) -> Sequence[object]:
    name, count = Counter(names).most_common(1)[0] if names else (None, 0)
    if count != 1:
        raise ArgumentError(f"{place}: {f'{name!r} occurs {count} times' if count else 'expected at least one'}")
    return names


def _among(place: str, names: Iterable[object], expected: Iterable[object]) -> None:
    for name in names:
        if name not in expected:
            raise ArgumentError(f"{place}: expected one of {', '.join(map(str, expected)) or 'none'}, found {name!r}")
