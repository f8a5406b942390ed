"""The problems of a run, kept in its folder, so that its answers can be analysed again."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from armlet.evaluation.settings import RunSettings, TaskSettings
from armlet.evaluation.tasks.problems import Problem, Task
from armlet.presentation.files import write_text
from armlet.redistribution.errors import ArgumentError

TASKS_FILE = "tasks.jsonl"


def store_tasks(folder: Path, tasks: Sequence[Task]) -> None:
    """Writes the problems of a run into its folder, unless they are there."""
    if not (folder / TASKS_FILE).exists():
        lines = [{"task": task.name, **asdict(problem)} for task in tasks for problem in task.problems]
        write_text(folder / TASKS_FILE, "".join(f"{json.dumps(line)}\n" for line in lines))


def read_stored_tasks(folder: Path, settings: RunSettings) -> list[Task]:
    """The tasks of a run from its folder; raises ArgumentError if they are not there, or not those of the run."""
    path = folder / TASKS_FILE
    if not path.exists():
        advice = "run its command again, which answers nothing twice and adds it"
        raise ArgumentError(f"{folder}: has no {TASKS_FILE}, which runs of older versions lack; {advice}")
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        problems: dict[str, list[Problem]] = {}
        for line in lines:
            name = line.pop("task")
            problems.setdefault(name, []).append(Problem(**{**line, "choices": tuple(line["choices"])}))
        return [_checked_task(task, problems[task.name]) for task in settings.tasks]
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise ArgumentError(f"{path}: does not have the problems of the run ({error})") from error


def _checked_task(settings: TaskSettings, problems: Sequence[Problem]) -> Task:
    task = Task(settings.name, settings.kind, tuple(problems), settings.source)  # type: ignore[arg-type] - as stored
    if task.fingerprint() != settings.sha256:
        raise ValueError(f"the sha256 of {settings.name} differs")
    return task
