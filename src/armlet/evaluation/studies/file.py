"""Reads a study's file, in TOML, and checks it before anything is run."""

import hashlib
import inspect
import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from armlet.evaluation.run import evaluate
from armlet.evaluation.studies.definition import Settings, Study
from armlet.redistribution.errors import ArgumentError

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
        tables = tomllib.loads(content.decode())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ArgumentError(f"study: {path} cannot be read ({reason})") from error
    try:
        study = TypeAdapter(Study).validate_json(json.dumps(tables, default=str))
        _check(study)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ArgumentError(f"study: {path}: {place}: {first['msg']}, found {first['input']!r:.60}") from error
    except ArgumentError as error:
        raise ArgumentError(f"study: {path}: {error}") from error
    return study, hashlib.sha256(content).hexdigest()


def _check(study: Study) -> None:
    """Refuses settings that do not exist, parts that are named twice, and names of parts that do not exist."""
    models = _distinct("models", [part.model for part in study.models])
    tasks = _distinct("tasks", [part.task for part in study.tasks])
    treatments = _distinct("treatments", [part.name for part in study.treatments])
    _distinct("seeds", study.seeds)
    for place, settings in (("settings", study.settings), *_settings_of_parts(study)):
        _among(f"{place}", settings, CELL_SETTINGS)
    for model in study.models:
        _among(f"models: {model.model}: tasks", model.tasks, tasks)
    for treatment in study.treatments:
        place = f"treatments: {treatment.name}"
        if [treatment.policy, treatment.function, treatment.filler].count(None) != 2:
            raise ArgumentError(f"{place}: expected either a policy, a function or a filler")
        _among(f"{place}: settings", treatment.settings, PLACE if treatment.policy else ())
        _among(f"{place}: models", treatment.models, models)
        _among(f"{place}: tasks", treatment.tasks, tasks)
    for claim in study.claims:
        for place, name, names in (
            ("model", claim.model, models),
            ("task", claim.task, tasks),
            ("treatment", claim.treatment, treatments),
        ):
            _among(f"claims: {place}", [name], names)
    cells = study.cells()
    if not cells:
        raise ArgumentError("no treatment applies to any model and task")
    _distinct("cells", [cell.name for cell in cells])  # such as those of two files of one name in two folders
    for cell in cells:
        cell.condition_names()


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
