"""The folder of a study, which `tune` leaves and `confirm` reads: its files, its plan, its map."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from armlet.commands.evaluating import collect_tasks, make_plan
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from armlet.evaluation.conditions import Condition
    from armlet.evaluation.report import Map
    from armlet.evaluation.run import Plan
    from armlet.evaluation.tune import Part

STUDY, CONFIRMED = "study.json", "confirmed.json"


def read_study(study: Path) -> dict[str, Any]:
    """The result that `tune` left in a folder.

    Raises:
        ArgumentError: it is no such folder.
    """
    path = study / STUDY
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{study}: is no folder of `armlet tune` ({path.name}: {error})") from error


def study_plan(arguments: Mapping[str, Any], part: "Part", compared: "Sequence[Condition]") -> "Plan":
    """The plan of one part of the items; of the baseline alone, or of the conditions given."""
    from armlet.evaluation.conditions import conditions
    from armlet.evaluation.tune import take

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
    from armlet.evaluation.report import Map

    names = result["map"]["names"]
    if len(names) != 2:
        return None
    rows = [result["trials"][number] for number in result["map"]["trials"]]
    tasks = ", ".join(task["name"] for task in result["tasks"])
    return Map(rows, *names, title=f"{result['study']['treatment']['policy']} on the tuning items of {tasks}")
