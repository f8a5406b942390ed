"""Runs a search in its folder: a search on tuning items, and a measurement of the best setting on test items."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

from armlet.attachment.config import all_placements, parse_config
from armlet.attachment.origin import Origin
from armlet.checkpoints.identity import LOADED
from armlet.evaluation.batches import count_answers, keep_date, run_and_analyse, was_interrupted
from armlet.evaluation.conditions.conditions import Condition, Treatment, conditions
from armlet.evaluation.engines.engine import Engine
from armlet.evaluation.plan import Plan, make_plan
from armlet.evaluation.result import Findings
from armlet.evaluation.search.results import SEARCH_FILE, Budget, Search, SearchArguments, SearchTask
from armlet.evaluation.search.search import Space, search, take
from armlet.evaluation.search.trials import TrialResult, best
from armlet.evaluation.tasks.examples import make_form
from armlet.evaluation.tasks.problems import Task
from armlet.presentation.files import json_text, write_json
from armlet.presentation.interruption import until_interrupted
from armlet.presentation.progress import progress
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policies import parse_policy, policy_text
from armlet.redistribution.python_file import settings_text
from armlet.redistribution.rows import Policy
from armlet.runs.folder import Record, default_run_folder, open_run_folder, recorded_manifest
from armlet.runs.machine import machine

Content = TypeVar("Content")

CONFIRMED_FILE, TEST_FOLDER = "confirmed.json", "test"
"""In a search's folder: the record that its test items are used, and their run."""


def plan_tuning(arguments: SearchArguments, tasks: Sequence[Task]) -> Plan:
    """The plan for the tuning items of tasks, with only the baseline.

    Raises ArgumentError if a task has no item for one of the two parts.
    """
    make_form(tasks, arguments.shots, arguments.examples, arguments.template)
    for task in tasks:
        take(task, "test")  # refused before the search, not after it
    tasks = [take(task, "tuning") for task in tasks]
    temperature = float(all(task.kind == "choice" for task in tasks))
    return _plan(arguments, tasks, conditions([], [], temperature=temperature, placebos=False))


def run_search(space: Space, plan: Plan, engine: Engine, arguments: SearchArguments, folder: Path | None) -> Search:
    """Runs the parts of the search that are not yet in its folder, and writes search.json there.

    `plan` is the result of `plan_tuning` for the same arguments. The default folder is named after the search.

    Raises:
        ArgumentError: the test items of the search have already been used.
        KeyboardInterrupt: Ctrl-C, before the first trial was finished.
    """
    searched = {"search": space.to_dict()}
    folder = folder or default_run_folder(plan.manifest(engine) | searched)
    keep_date(engine, recorded_manifest(folder).get("engine"))
    manifest = plan.manifest(engine) | searched
    if (folder / CONFIRMED_FILE).exists():
        raise ArgumentError(f"{folder}: the test items of this search have been used; use another run folder or seed")
    trials: list[TrialResult] = []
    answers = (1 + len(space.grid()) + space.trials) * count_answers(plan)
    with open_run_folder(folder, manifest, machine(), answers=answers) as journal:
        bar = progress("searching", answers, done=len(journal.rows))
        with bar as tick, until_interrupted() as interruption:
            trials.extend(search(space, plan, engine, journal, tick))
        is_complete = len(trials) == len(space.grid()) + space.trials
        interrupted = not is_complete and was_interrupted(interruption, journal, answers, trials)
    result = _search(folder, trials, space, plan, manifest, arguments, interrupted)
    write_json(folder / SEARCH_FILE, result.to_dict())
    return result


def read_search(folder: Path) -> Search:
    """Reads a finished search whose test items are unused; an interrupted confirmation may be resumed.

    Raises ArgumentError if the folder contains no search, its search was interrupted, or its test items have been used.
    """
    search = _read_json(folder / SEARCH_FILE, partial(Search.from_dict, folder))
    record = folder / CONFIRMED_FILE
    if record.exists() and _read_json(record, itemgetter("verdicts")) is not None:
        report = folder / TEST_FOLDER / "report.html"
        raise ArgumentError(f"{folder}: its test items have been used; the report is {report}")
    if search.interrupted:
        raise ArgumentError(f"{folder}: the search was interrupted; let `armlet tune` finish it first")
    return search


def plan_confirmation(folder: Path, search: Search, tasks: Sequence[Task], policy: str | None = None) -> Plan:
    """The plan for the test items of the search's tasks, for the best setting and its placebos.

    policy: the text that named a policy in a file.

    Raises ArgumentError if the tasks, the policy or its code are not those of the search.
    """
    (arguments,) = all_placements(parse_config(dict(search.armlet)))
    treatment = Treatment(**arguments)
    if policy is not None and not _is_named_by(treatment.policy, policy):
        expected = policy_text(treatment.policy)
        raise ArgumentError(f"policy: expected {expected!r}, found {policy!r}; the settings are those of the search")
    if search.space["treatment"].get("code") != treatment.plain().get("code"):
        raise ArgumentError(f"{folder}: the code of the policy {treatment.policy.name} changed after the search")
    plan = _plan(search.arguments, [take(task, "test") for task in tasks], conditions([treatment], []))
    tuned = {task.name: {**task.source, "part": "test"} for task in search.tasks}
    if tuned != {task.name: dict(task.source) for task in plan.tasks}:  # their order has no effect
        names = ", ".join(task.name for task in search.tasks)
        raise ArgumentError(f"{folder}: the items of {names} changed after the search; restore them")
    if (plan.form.facts() or None) != search.prompts:
        raise ArgumentError(
            f"{folder}: the examples in {search.arguments.examples} changed after the search; restore them"
        )
    return plan


def _is_named_by(policy: Policy, text: str) -> bool:
    """Whether a text names the class of a policy, and no other settings."""
    named = parse_policy(text)
    return type(named) is type(policy) and (not settings_text(text) or named == policy)


def check_origin(folder: Path, search: Search, *, loaded: bool) -> None:
    """Raises ArgumentError unless both the search and the confirmation have a loaded model or tokenizer, or neither.

    The fingerprints of a loaded model and of files are never equal, so the two cannot be compared.
    """
    if str(search.engine.get("sha256")).startswith(LOADED) == loaded:
        return
    if loaded:
        advice = f"read {search.engine['model']} from its files; leave the model and the tokenizer out"
    else:
        advice = "used a loaded model or tokenizer; pass both again: confirm(search, model, tokenizer)"
    raise ArgumentError(f"{folder}: the search {advice}")


def confirm_search(folder: Path, search: Search, plan: Plan, engine: Engine) -> Findings:
    """Measures the best setting, which ends the search; raises ArgumentError for another model."""
    keep_date(engine, search.engine)
    if plan.manifest(engine)["engine"] != search.engine:
        changed = "its weights, settings, hooks, dtype or device changed, or the threads"
        raise ArgumentError(f"{folder}: the model is not the one used in the search; {changed}")
    record_confirmation(folder, search, None)
    return replace(run_and_analyse(plan, engine, folder / TEST_FOLDER), search=search)


def record_confirmation(folder: Path, search: Search, findings: Findings | None) -> None:
    """Records that the test items are used; `findings` is None before the run, and set once its report is written."""
    verdicts = findings and [verdict.sentence for verdict in findings.verdicts]
    summary = search.summary()
    write_json(folder / CONFIRMED_FILE, {"verdicts": verdicts, "best": summary["best"], "budget": summary["budget"]})


def _plan(arguments: SearchArguments, tasks: Sequence[Task], compared: Sequence[Condition]) -> Plan:
    return make_plan(
        tasks,
        compared,
        built_in=arguments.model in (None, "abacus"),
        seed=arguments.seed,
        max_new_tokens=arguments.max_new_tokens,
        system=arguments.system,
        allow_code=arguments.allow_code,
        batch=arguments.batch,
        shots=arguments.shots,
        examples=arguments.examples,
        template=arguments.template,
    )


def _search(
    folder: Path,
    trials: Sequence[TrialResult],
    space: Space,
    plan: Plan,
    manifest: Record,
    arguments: SearchArguments,
    interrupted: bool,
) -> Search:
    items, chosen = [problem.content_hash() for task in plan.tasks for problem in task.problems], best(trials)
    digest = hashlib.sha256(json_text(manifest).encode()).hexdigest()
    origin = Origin("tune", folder.name, tuple(task.name for task in plan.tasks), digest, tuple(sorted(set(items))))
    return Search(
        folder=folder,
        arguments=arguments,
        engine=manifest["engine"],
        space=space.to_dict(),
        tasks=[SearchTask(task.name, len(task.problems), dict(task.source)) for task in plan.tasks],
        budget=Budget(len(trials), len(items), (1 + len(trials)) * len(items)),
        armlet=space.treatment_at(chosen.values, chosen.layers).content(),
        interrupted=interrupted,
        trials=trials,
        searched=space.names,
        mapped=list(range(min(len(trials), len(space.grid())))),
        origin=origin.plain(),
        prompts=manifest.get("prompts"),
    )


def _read_json(path: Path, read: Callable[[Record], Content]) -> Content:
    """The result of `read` for a file of a search; raises ArgumentError if anything is wrong with the file."""
    try:
        return read(dict(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError, LookupError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ArgumentError(f"{path.parent}: no finished search of `armlet tune` ({path.name}: {reason})") from error
