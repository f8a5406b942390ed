"""The folder of a study, which `tune` leaves and `confirm` reads: its files, its plan, its map."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from armlet.evaluation.plan import collect_tasks, make_plan
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from armlet.evaluation.conditions.conditions import Condition
    from armlet.evaluation.plan import Plan
    from armlet.evaluation.report.report import Map
    from armlet.evaluation.search.search import Part

STUDY, CONFIRMED, TEST = "study.json", "confirmed.json", "test"
"""In a study's folder: its result, the record that its test items are used, and the run that used them."""


def read_study(study: Path) -> dict[str, Any]:
    """The result that `tune` left in a folder.

    Raises:
        ArgumentError: it is no such folder.
    """
    return _read(study / STUDY, {"arguments", "engine", "tasks", "study", "budget", "interrupted", "best", "trials"})


def check_unused(study: Path) -> None:
    """Refuses a study whose test items have been measured; a measurement that was cut short may go on.

    Raises:
        ArgumentError: they have been, or the record of it is damaged.
    """
    record = study / CONFIRMED
    if record.exists() and _read(record, {"verdicts"})["verdicts"] is not None:
        raise ArgumentError(f"{study}: its test items have been used; the report is {study / TEST / 'report.html'}")


def _read(path: Path, keys: set[str]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        missing = sorted(keys - set(dict(found)))
    except (OSError, ValueError, TypeError) as error:
        raise ArgumentError(f"{path.parent}: is no folder of `armlet tune` ({path.name}: {error})") from error
    if missing:
        raise ArgumentError(f"{path.parent}: is no folder of `armlet tune` ({path.name} lacks {', '.join(missing)})")
    return found


def study_plan(arguments: Mapping[str, Any], part: "Part", compared: "Sequence[Condition]") -> "Plan":
    """The plan of one part of the items; of the baseline alone, or of the conditions given."""
    from armlet.evaluation.conditions.conditions import conditions
    from armlet.evaluation.search.search import take

    files = [Path(file) for file in arguments["data"]]
    every = (arguments[name] for name in ("items", "difficulty", "seed"))
    tasks = [take(task, part) for task in collect_tasks(arguments["task"], files, *every)]
    chosen = float(all(task.kind == "choice" for task in tasks))
    return make_plan(
        tasks,
        compared or conditions([], [], temperature=chosen, placebos=False),
        built_in=arguments["model"] in (None, "abacus"),
        **{name: arguments[name] for name in ("seed", "max_new_tokens", "system", "allow_code", "batch")},
    )


def study_map(result: dict[str, Any]) -> "Map | None":
    """The sensitivity map of a study; None where one setting alone was searched."""
    from armlet.evaluation.report.report import Map

    names = result["map"]["names"]
    if len(names) != 2:
        return None
    rows = [result["trials"][number] for number in result["map"]["trials"]]
    tasks = ", ".join(task["name"] for task in result["tasks"])
    return Map(rows, *names, title=f"{result['study']['treatment']['policy']} on the tuning items of {tasks}")
