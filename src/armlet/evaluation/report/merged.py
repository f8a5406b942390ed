"""One report of several runs: the same model and conditions on other tasks, other items, or with other seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from armlet.evaluation.grading.graders import EQUAL
from armlet.evaluation.report.analysis import analyse
from armlet.evaluation.report.answers import ConditionAnswers, TaskAnswers, add_activity, read_answers
from armlet.evaluation.report.findings import LayerActivity
from armlet.evaluation.result import Findings, make_findings
from armlet.evaluation.settings import RunSettings, TaskSettings
from armlet.evaluation.tasks.stored import read_stored_tasks
from armlet.presentation.arguments import required_path, several
from armlet.redistribution.errors import ArgumentError
from armlet.runs.folder import RunFolder, differences, read_run_folder, readable

OF_EACH_RUN = ("tasks", "machines", "versions", "batch", "budget")
"""Settings that may differ between merged runs, because each comparison stays inside one run."""

BY_KIND = ("sampling", "systems", "graders")
"""Settings by kind of task, of which only those of the same kind are compared."""


def merge_runs(runs: str | Path | Sequence[str | Path], *, seed: int = 0) -> Findings:
    """One report of the answers in run folders of `evaluate`, with Holm's correction over all of their comparisons.

    Runs may differ by their tasks, items and seeds. Different items of a task are pooled; answers to the same items
    with other seeds become further samples of these items. A single run is reported again.

    Args:
        runs: one or several run folders; of an unfinished run, the answered items count.
        seed: seed of the bootstrap.

    Raises:
        ArgumentError: the runs differ in other settings, share some but not all items of a task, or are the same run;
            or a folder has no run of `evaluate`, or is of an older version, which did not store the problems.
        RunError: a folder is not a run folder.
    """
    folders = [required_path("runs", run) for run in several(runs)]
    if not folders:
        raise ArgumentError("runs: expected at least one run folder, found none")
    journals = [read_run_folder(folder) for folder in folders]
    for journal in journals:
        _check_evaluation(journal)
        _check_mergeable(journals[0], journal)
    answers, tasks = _pooled(journals)
    report = analyse(_merged_settings(journals, tasks), answers, {**EQUAL}, seed=seed)
    return make_findings(report, folders[0] if len(folders) == 1 else None)


def _pooled(journals: Sequence[RunFolder]) -> tuple[list[TaskAnswers], list[TaskSettings]]:
    """The answers to each task in all runs, and its settings."""
    answers, tasks = dict[str, TaskAnswers](), dict[str, TaskSettings]()
    asked: dict[str, list[object]] = {}
    for journal in journals:
        settings = RunSettings.from_manifest(journal.manifest)
        for task, described in zip(read_stored_tasks(journal.folder, settings), settings.tasks, strict=True):
            decides = (settings.engine, settings.conditions, settings.sampling.get(task.kind), described.sha256)
            if decides in asked.setdefault(task.name, []):
                problem = f"another run has the same items of {task.name} with the same seed"
                raise ArgumentError(f"{journal.folder}: {problem}; name it once")
            asked[task.name].append(decides)
            read = read_answers(journal, task, settings.conditions)
            joined = _joined(answers[task.name], read, journal.folder) if task.name in answers else read
            answers[task.name] = joined
            tasks[task.name] = _joined_settings(tasks.get(task.name), described, joined.planned_items)
    return [*answers.values()], [*tasks.values()]


def _check_evaluation(journal: RunFolder) -> None:
    if not {"tasks", "conditions", "engine"} <= journal.manifest.keys():
        raise ArgumentError(f"{journal.folder}: is not a run of `evaluate`")
    if "search" in journal.manifest:
        raise ArgumentError(f"{journal.folder}: is a search; its confirmation, in the folder test, can be reported")


def _check_mergeable(first: RunFolder, other: RunFolder) -> None:
    """Raises ArgumentError if two runs differ by more than tasks, items, seeds, machine and versions."""
    changes: list[tuple[str, str]] = []
    for key in dict.fromkeys((*first.manifest, *other.manifest)):
        sides: list[Any] = [run.manifest.get(key) for run in (first, other)]
        if key in BY_KIND:
            sides = [{kind: side[kind] for kind in sides[0].keys() & sides[1].keys()} for side in sides]
        if key not in OF_EACH_RUN:
            changes += differences(sides[0], sides[1], key)
    kept = [(place, change) for place, change in changes if place.rpartition(".")[2] != "seed"]
    if kept:
        changed = "; ".join(readable(kept)[:3])
        raise ArgumentError(f"{other.folder}: cannot be merged with {first.folder}, because they differ: {changed}")


def _joined(first: TaskAnswers, second: TaskAnswers, folder: Path) -> TaskAnswers:
    """The answers of two runs to one task: further items, or further samples of the same items."""
    ids = [[item.id for item in answers.items] for answers in (first, second)]
    shared = set(ids[0]) & set(ids[1])
    pairs = list(zip(first.conditions, second.conditions, strict=True))
    if not shared:
        items, planned = [*first.items, *second.items], first.planned_items + second.planned_items
        return replace(first, planned_items=planned, items=items, conditions=[_further_items(*pair) for pair in pairs])
    if list(first.items) != list(second.items):
        problem = f"{len(shared):,} of its {len(ids[1]):,} items are in another run, too, which has {len(ids[0]):,}"
        if set(ids[0]) == set(ids[1]):
            problem = "its items have the ids of another run's, but other questions or answers"
        advice = "run it again with another --seed, for other items, or with that run's items and --items"
        raise ArgumentError(f"{folder}: {first.name}: {problem}; {advice}")
    return replace(first, conditions=[_further_samples(*pair) for pair in pairs])


def _further_items(first: ConditionAnswers, second: ConditionAnswers) -> ConditionAnswers:
    return replace(first, items=[*first.items, *second.items], arm=_added(first.arm, second.arm))


def _further_samples(first: ConditionAnswers, second: ConditionAnswers) -> ConditionAnswers:
    items = [[*samples, *more] for samples, more in zip(first.items, second.items, strict=True)]
    return replace(first, items=items, arm=_added(first.arm, second.arm))


def _added(first: Mapping[str, LayerActivity], second: Mapping[str, LayerActivity]) -> dict[str, LayerActivity]:
    """The sum of ARM's activity in two runs, by layer."""
    nothing = LayerActivity(0, 0, 0.0, 0)
    return {
        layer: add_activity(first.get(layer, nothing), vars(second.get(layer, nothing)))
        for layer in {**first, **second}
    }


def _joined_settings(first: TaskSettings | None, second: TaskSettings, items: int) -> TaskSettings:
    """The settings of a task in two runs; hashes and sources of both, if they differ."""
    if first is None:
        return second
    hashes, source = _both(first.sha256, second.sha256), _either(first.source, second.source)
    return replace(second, items=items, sha256=hashes, source=source)


def _merged_settings(journals: Sequence[RunFolder], tasks: Sequence[TaskSettings]) -> RunSettings:
    """The settings of the first run, with the tasks of all runs, and with all values of settings that differ."""
    merged: dict[str, Any] = journals[0].manifest
    for journal in journals[1:]:
        merged = _either(merged, journal.manifest)
    listed = [machine for journal in journals for machine in journal.manifest["machines"]]
    machines = [machine for number, machine in enumerate(listed) if machine not in listed[:number]]
    kept = {name: merged[name] for name in ("engine", *BY_KIND, "batch", "versions")}
    first = RunSettings.from_manifest(journals[0].manifest)
    return replace(first, **kept, tasks=tasks, machines=machines, budget=merged.get("budget"))


def _either(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of two runs in one, with both values where they differ."""
    shared = {key: _both(first[key], second[key]) for key in first.keys() & second.keys()}
    return {key: shared.get(key, value) for key, value in {**first, **second}.items()}


def _both(first: Any, second: Any) -> Any:
    if first == second:
        return first
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return _either(first, second)
    return ", ".join(dict.fromkeys([*str(first).split(", "), str(second)]))
