"""Two runs of lm-eval with `--log_samples` on the same items: one without ARM and one with it, as findings."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from armlet.evaluation.conditions.conditions import BASELINE
from armlet.evaluation.report.analysis import analyse
from armlet.evaluation.report.answers import AskedItem, ConditionAnswers, GradedAnswer, TaskAnswers
from armlet.evaluation.report.findings import Findings, LayerActivity
from armlet.evaluation.settings import ConditionSettings, Facts, RunSettings, TaskSettings
from armlet.integrations.lm_eval.samples import LoggedSample, SamplesFile, find_samples, listed, read_samples
from armlet.redistribution.errors import ArgumentError

DEFAULT_METRICS = ("acc", "exact_match")
"""What is compared where no metric is named: the first that both runs have."""

BY_LENGTH = "acc_norm"
"""Multiple choice by likelihoods per length, reported beside `acc`."""

TREATED = "treated"

DECISIVE = ("model", "model_args", "model_dtype", "model_sha", "batch_size", "device", "gen_kwargs", "limit")
"""Settings of a run of lm-eval that decide its answers."""


@dataclass(frozen=True)
class LoggedRun:
    """One run of lm-eval.

    Args:
        files: of samples, by task.
        samples: by task and doc_id.
        config: the settings that lm-eval recorded, and under "armlet" how ARM was attached.
        version: of lm-eval.
    """

    files: Mapping[str, SamplesFile]
    samples: Mapping[str, Mapping[int, LoggedSample]]
    config: Mapping[str, Any]
    version: str | None

    @classmethod
    def read(cls, directory: str | Path, filter: str | None) -> "LoggedRun":
        """Reads the folder that --output_path named."""
        files = find_samples(Path(directory))
        results = next(iter(files.values())).results()
        samples = {task: read_samples(file.path, filter) for task, file in files.items()}
        return cls(files, samples, results.get("config", {}), results.get("lm_eval_version"))

    @property
    def arm(self) -> Mapping[str, Any]:
        """What the model type "armlet" recorded; empty where ARM was left out."""
        return self.config.get("armlet") or {}

    def model_args(self) -> dict[str, str]:
        """What decides the model and its precision, as far as it is recorded."""
        given = self.config.get("model_args")
        named = given if isinstance(given, dict) else {}
        args = {key: str(named[key]) for key in ("pretrained", "revision") if named.get(key)}
        return args | {key: str(self.config[key]) for key in ("model_dtype", "model_sha") if self.config.get(key)}


def compare_runs(
    baseline: str | Path,
    treated: str | Path,
    *,
    metric: str | None = None,
    filter: str | None = None,
    seed: int = 0,
) -> Findings:
    """The findings of two runs; items that only one of them has are left out, and make them incomplete.

    Args:
        baseline: the folder of the run without ARM.
        treated: the one with it.
        metric: of lm-eval, from 0 to 1 with higher as better; None for the first of `DEFAULT_METRICS`.
        filter: as in `read_samples`.
        seed: of the bootstrap.

    Raises:
        ArgumentError: as `find_samples` and `read_samples`; no task in common; runs that differ by more or by less
            than ARM; another item, prompt or target under the same doc_id; a metric that a task does not have, or that
            is no share.
    """
    runs = {BASELINE: LoggedRun.read(baseline, filter), TREATED: LoggedRun.read(treated, filter)}
    before, after = runs.values()
    tasks = [task for task in before.samples if task in after.samples]
    if not tasks:
        raise ArgumentError(f"{baseline} and {treated}: have no task in common ({listed(before.samples)} there)")
    _check_sides(before, after)
    metrics = {task: _check_pair(task, before, after, metric) for task in tasks}
    answers = [_pair_answers(task, before, after, metrics[task]) for task in tasks]
    return analyse(_settings(runs, metrics), answers, {}, seed=seed)


def _check_sides(before: LoggedRun, after: LoggedRun) -> None:
    """Refuses a baseline that had ARM, and runs that differ by more than ARM, or not even by it."""
    if before.arm:
        raise ArgumentError("the run named first had ARM attached: name the one without it first")
    if after.config.get("model") == "armlet" and not after.arm:
        raise ArgumentError("neither run had ARM attached: give the second one a policy")
    sides = [run.model_args() for run in (before, after)]
    for key in sorted(sides[0].keys() | sides[1].keys()):
        first, second = (side.get(key) for side in sides)
        if first != second:
            raise ArgumentError(
                f"the runs differ by more than ARM: {key} is {first!r} in the first, {second!r} in the other"
            )


def _common(task: str, before: LoggedRun, after: LoggedRun) -> list[tuple[LoggedSample, LoggedSample]]:
    """The items that both runs have, in the order of their numbers."""
    sides = before.samples[task], after.samples[task]
    return [(sides[0][id], sides[1][id]) for id in sorted(sides[0].keys() & sides[1].keys())]


def _check_pair(task: str, before: LoggedRun, after: LoggedRun, metric: str | None) -> str:
    """The metric by which the two runs of a task can be compared; refuses runs that were not asked the same."""
    pairs = _common(task, before, after)
    if not pairs:
        raise ArgumentError(f"{task}: the runs have no item in common")
    for first, second in pairs:
        unlike = [key for key in first.asked if first.asked[key] != second.asked[key]]
        if unlike:
            raise ArgumentError(
                f"{task}, doc_id {first.doc_id}: the runs were not asked the same ({listed(unlike)} differs); "
                "run both with the same task, few-shot examples, template and generation arguments"
            )
    chosen = _choose_metric(task, [sample for pair in pairs for sample in pair], metric)
    if not after.files[task].results().get("higher_is_better", {}).get(task, {}).get(chosen, True):
        raise ArgumentError(f"{task}: of {chosen} less is better; name another with --metric")
    return chosen


def _choose_metric(task: str, samples: Sequence[LoggedSample], metric: str | None) -> str:
    shared = [key for key in samples[0].metrics if all(key in sample.metrics for sample in samples)]
    chosen = metric or next((key for key in DEFAULT_METRICS if key in shared), None)
    if chosen not in shared:
        wanted = metric or " or ".join(DEFAULT_METRICS)
        known = f"name one of {listed(shared)} with --metric" if shared else "there is none"
        raise ArgumentError(f"{task}: no metric {wanted} in both runs; {known}")
    if not all(0 <= sample.metrics[chosen] <= 1 for sample in samples):
        raise ArgumentError(f"{task}: {chosen} is no share from 0 to 1; name another with --metric")
    return chosen


def _pair_answers(task: str, before: LoggedRun, after: LoggedRun, metric: str) -> TaskAnswers:
    pairs = _common(task, before, after)
    # ARM's report is of a whole run: it is that of a task only where the run has no other.
    report = after.arm.get("report", {}) if len(after.samples) == 1 else {}
    activity = {layer: LayerActivity(**counts) for layer, counts in report.items()}
    sides = [[[_graded_answer(pair[side], metric)] for pair in pairs] for side in (0, 1)]
    return TaskAnswers(
        name=task,
        kind=_answer_kind(before.samples[task]),
        planned_items=len(before.samples[task].keys() | after.samples[task].keys()),
        items=[AskedItem(str(sample.doc_id), sample.question, sample.gold) for sample, _ in pairs],
        conditions=[
            ConditionAnswers(condition, items, arm)
            for condition, items, arm in zip(_conditions(after), sides, ({}, activity), strict=True)
        ],
    )


def _graded_answer(sample: LoggedSample, metric: str) -> GradedAnswer:
    return GradedAnswer(sample.metrics[metric], sample.answer, correct_normalised=sample.metrics.get(BY_LENGTH))


def _answer_kind(samples: Mapping[int, LoggedSample]) -> str:
    return "choice" if all(sample.chosen for sample in samples.values()) else "text"


def _conditions(treated: LoggedRun) -> list[ConditionSettings]:
    treatment = treated.arm.get("attached")
    return [ConditionSettings(BASELINE, BASELINE), ConditionSettings(TREATED, TREATED, treatment=treatment)]


def _settings(runs: Mapping[str, LoggedRun], metrics: Mapping[str, str]) -> RunSettings:
    """What lm-eval recorded of the two runs."""
    config = runs[BASELINE].config
    model = config.get("model_args", {})
    engine = {"model": model.get("pretrained", "model") if isinstance(model, dict) else str(model)}
    return RunSettings(
        engine=engine | {f"{name} run": _decisive(run.config) for name, run in runs.items()},
        tasks=list(_tasks(runs, metrics)),
        conditions=_conditions(runs[TREATED]),
        sampling={},
        systems={},
        graders={"lm-eval": listed(dict.fromkeys(metrics.values()))},
        batch=config.get("batch_size"),
        versions={"armlet": metadata.version("armlet")}
        | {f"lm_eval ({name})": run.version for name, run in runs.items()},
    )


def _decisive(config: Mapping[str, Any]) -> Facts:
    return {key: config[key] for key in DECISIVE if config.get(key) not in (None, "", {})}


def _tasks(runs: Mapping[str, LoggedRun], metrics: Mapping[str, str]) -> Iterator[TaskSettings]:
    """The tasks of both runs, and then those of one alone, which have no metric."""
    names = dict.fromkeys([*metrics, *(task for run in runs.values() for task in run.samples)])
    for task in names:
        sides = {name: run for name, run in runs.items() if task in run.samples}
        samples = {id: sample for run in sides.values() for id, sample in run.samples[task].items()}
        text = json.dumps([samples[id].asked for id in sorted(samples)], sort_keys=True)
        yield TaskSettings(
            name=task,
            kind=_answer_kind(samples),
            items=len(samples),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            source={name: run.files[task].path.name for name, run in sides.items()} | {"metric": metrics.get(task)},
        )
