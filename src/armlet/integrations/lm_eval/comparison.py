"""Compares two runs of lm-eval with `--log_samples` on the same items, without and with ARM."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from armlet.evaluation.conditions.conditions import BASELINE, Role
from armlet.evaluation.options import ConditionOptions
from armlet.evaluation.report.analysis import analyse
from armlet.evaluation.report.answers import AskedItem, ConditionAnswers, GradedAnswer, TaskAnswers
from armlet.evaluation.report.findings import LayerActivity
from armlet.evaluation.result import Findings, make_findings
from armlet.evaluation.settings import ConditionSettings, RunSettings, TaskSettings
from armlet.integrations.lm_eval.recorded import model_arguments, recorded_model, shown_arguments
from armlet.integrations.lm_eval.samples import LoggedSample, find_samples, read_results, read_samples
from armlet.integrations.sides import check_same
from armlet.redistribution.errors import ArgumentError

TREATED: Role = "treated"
DEFAULT_METRICS = ("acc", "exact_match")  # without a named metric, the first of these that both runs have
BY_LENGTH = "acc_norm"  # multiple choice by log-likelihoods per length, reported next to `acc`

KEY_SETTINGS = ("model", "model_args", "model_dtype", "model_sha", "batch_size", "device", "gen_kwargs", "limit")
"""Settings of a run of lm-eval that affect its answers."""

Pairs = Sequence[tuple[LoggedSample, LoggedSample]]  # the items of a task that both runs have, ordered by doc_id


@dataclass(frozen=True)
class LoggedRun:
    """One run of lm-eval."""

    files: Mapping[str, Path]  # files of samples, by task
    samples: Mapping[str, Mapping[int, LoggedSample]]  # samples by task and doc_id
    config: dict[str, Any]  # the settings that lm-eval recorded; "armlet" records how ARM was attached
    version: str | None  # the version of lm-eval

    @classmethod
    def read(cls, directory: str | Path, filter: str | None) -> "LoggedRun":
        """Reads the folder that --output_path named."""
        files = find_samples(Path(directory))
        results = read_results(next(iter(files.values())))
        samples = {task: read_samples(file, filter) for task, file in files.items()}
        return cls(files, samples, results.get("config", {}), results.get("lm_eval_version"))

    @property
    def arm(self) -> Mapping[str, Any]:
        """The record of the model type "armlet"; empty without ARM."""
        return self.config.get("armlet") or {}


def compare_runs(
    baseline: str | Path,
    treated: str | Path,
    *,
    metric: str | None = None,
    filter: str | None = None,
    margin: float | None = None,
    seed: int = 0,
) -> Findings:
    """Compares two runs. Items that only one of them has are left out, and make the findings incomplete.

    Args:
        baseline: the folder of the run without ARM.
        treated: the folder of the run with ARM.
        metric: a metric of lm-eval, from 0 to 1 with higher as better; None for the first of `DEFAULT_METRICS`.
        filter: a filter of lm-eval; None for the first one of each task.
        margin: the largest difference that would not matter, in percentage points, as in `armlet.evaluation.evaluate`.
        seed: seed of the bootstrap.

    Raises:
        ArgumentError: samples cannot be found or read; the runs have no task in common, do not differ by ARM, or differ
            by more than ARM; items, prompts or targets differ under a doc_id; or a task does not have the metric, or
            the metric is not a share.
    """
    margin = ConditionOptions(margin=margin).margin
    runs: dict[Role, LoggedRun] = {BASELINE: LoggedRun.read(baseline, filter), TREATED: LoggedRun.read(treated, filter)}
    base_run, treated_run = runs.values()
    shared = [task for task in base_run.samples if task in treated_run.samples]
    pairs = {task: _pairs(base_run.samples[task], treated_run.samples[task]) for task in shared}
    if not pairs:
        raise ArgumentError(f"{treated}: has no task in common with {baseline} ({', '.join(base_run.samples)})")
    _check_sides(base_run, treated_run)
    metrics = {task: _choose_metric(task, both, metric, treated_run.files[task]) for task, both in pairs.items()}
    settings = replace(_settings(runs, metrics), margin=margin)
    sides = list(zip(settings.conditions, runs.values(), strict=True))
    answers = [_task_answers(task, pairs[task], sides, metrics[task]) for task in pairs]
    return make_findings(analyse(settings, answers, {}, seed=seed), Path(treated))


def _pairs(baseline: Mapping[int, LoggedSample], treated: Mapping[int, LoggedSample]) -> Pairs:
    return [(baseline[id], treated[id]) for id in sorted(baseline.keys() & treated.keys())]


def _check_sides(baseline: LoggedRun, treated: LoggedRun) -> None:
    """Refuses a baseline with ARM, and runs that differ by more than ARM or do not differ by ARM."""
    if baseline.arm:
        raise ArgumentError("the first run had ARM attached: name the run without ARM first")
    if treated.config.get("model") == "armlet" and not treated.arm:
        raise ArgumentError("neither run had ARM attached: run the second one with a policy")
    check_same(recorded_model(baseline.config), recorded_model(treated.config))


def _choose_metric(task: str, pairs: Pairs, metric: str | None, treated: Path) -> str:
    """The metric for the comparison of two runs of a task; refuses runs with different items or prompts."""
    _check_asked(task, pairs)
    samples = [sample for pair in pairs for sample in pair]
    shared = [key for key in samples[0].metrics if all(key in sample.metrics for sample in samples)]
    chosen = metric or next((key for key in DEFAULT_METRICS if key in shared), None)
    if chosen not in shared:
        expected = metric or " or ".join(DEFAULT_METRICS)
        advice = f"name one of {', '.join(shared)} with --metric" if shared else "there is none"
        raise ArgumentError(f"{task}: expected the metric {expected} in both runs; {advice}")
    if not all(0 <= sample.metrics[chosen] <= 1 for sample in samples):
        raise ArgumentError(f"{task}: {chosen} is not a share from 0 to 1; name another with --metric")
    if not read_results(treated).get("higher_is_better", {}).get(task, {}).get(chosen, True):
        raise ArgumentError(f"{task}: lower {chosen} is better; name another with --metric")
    return chosen


def _check_asked(task: str, pairs: Pairs) -> None:
    if not pairs:
        raise ArgumentError(f"{task}: the runs have no item in common")
    for first, second in pairs:
        differing = [key for key in first.asked if first.asked[key] != second.asked[key]]
        if differing:
            raise ArgumentError(
                f"{task}, doc_id {first.doc_id}: the runs have different inputs ({', '.join(differing)}); "
                "run both with the same task, few-shot examples, template and generation arguments"
            )


def _task_answers(
    task: str, pairs: Pairs, sides: Sequence[tuple[ConditionSettings, LoggedRun]], metric: str
) -> TaskAnswers:
    answered = [
        _condition_answers(condition, run, samples, metric)
        for (condition, run), samples in zip(sides, zip(*pairs, strict=True), strict=True)
    ]
    samples = [run.samples[task] for _, run in sides]
    items = [AskedItem(str(sample.doc_id), sample.question, sample.gold) for sample, _ in pairs]
    return TaskAnswers(task, _answer_kind(samples[0]), len({*samples[0], *samples[1]}), items, answered)


def _condition_answers(
    condition: ConditionSettings, run: LoggedRun, samples: Sequence[LoggedSample], metric: str
) -> ConditionAnswers:
    # ARM's report covers a whole run, so it belongs to a task only if the run has no other tasks.
    report = run.arm.get("report", {}) if len(run.samples) == 1 else {}
    answers = [GradedAnswer(s.metrics[metric], s.answer, correct_normalised=s.metrics.get(BY_LENGTH)) for s in samples]
    activity = {layer: LayerActivity(**counts) for layer, counts in report.items()}
    return ConditionAnswers(condition, [[answer] for answer in answers], activity)


def _answer_kind(samples: Mapping[int, LoggedSample]) -> str:
    return "choice" if all(sample.chosen for sample in samples.values()) else "text"


def _settings(runs: Mapping[Role, LoggedRun], metrics: Mapping[str, str]) -> RunSettings:
    """The settings that lm-eval recorded of the two runs."""
    config = runs[BASELINE].config
    arguments = model_arguments(config)
    engine: dict[str, object] = {"model": arguments.get("pretrained") or arguments.get("model") or "model"}
    for name, run in runs.items():
        recorded = {key: run.config.get(key) for key in KEY_SETTINGS} | {"model_args": shown_arguments(run.config)}
        engine[f"{name} run"] = {key: value for key, value in recorded.items() if value not in (None, "", {})}
    versions = {f"lm_eval ({name})": run.version for name, run in runs.items()}
    # The tasks of both runs, and then the tasks of only one run, which have no metric.
    tasks = dict.fromkeys([*metrics, *(task for run in runs.values() for task in run.samples)])
    return RunSettings(
        engine=engine,
        tasks=[_task_settings(task, runs, metrics.get(task)) for task in tasks],
        conditions=[ConditionSettings(name, name, treatment=run.arm.get("attached")) for name, run in runs.items()],
        sampling={},
        systems={},
        graders={"lm-eval": ", ".join(dict.fromkeys(metrics.values()))},
        batch=config.get("batch_size"),
        versions={"armlet": metadata.version("armlet")} | versions,
    )


def _task_settings(task: str, runs: Mapping[Role, LoggedRun], metric: str | None) -> TaskSettings:
    samples = {id: sample for run in runs.values() for id, sample in run.samples.get(task, {}).items()}
    asked = json.dumps([samples[id].asked for id in sorted(samples)], sort_keys=True)
    source = {name: run.files[task].name for name, run in runs.items() if task in run.files} | {"metric": metric}
    sha256 = hashlib.sha256(asked.encode()).hexdigest()
    return TaskSettings(task, _answer_kind(samples), len(samples), sha256, source)
