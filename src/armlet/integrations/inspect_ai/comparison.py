"""Compares two logs of Inspect on the same items, without and with ARM."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from armlet.evaluation.conditions.conditions import BASELINE, Role
from armlet.evaluation.report.analysis import analyse
from armlet.evaluation.report.answers import AskedItem, ConditionAnswers, GradedAnswer, TaskAnswers
from armlet.evaluation.report.findings import LayerActivity
from armlet.evaluation.result import Findings, make_findings
from armlet.evaluation.settings import ConditionSettings, RunSettings, TaskSettings
from armlet.integrations.inspect_ai.logs import InspectLog, asked, graded_share, input_text
from armlet.integrations.sides import check_same, without_secrets
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from inspect_ai.log import EvalSample

KIND = "text"  # the kind of the answers: Inspect records what a model wrote, also for multiple choice


def compare_logs(baseline: str | Path, treated: str | Path, *, scorer: str | None = None, seed: int = 0) -> Findings:
    """Compares two logs of one task. Items in only one of them are left out, and make the findings incomplete.

    Args:
        baseline: the log of the run without ARM, by the provider "armlet" with policy=none, or by "hf".
        treated: the log of the run with ARM.
        scorer: a scorer of the task, with higher as better; None for the first one.
        seed: seed of the bootstrap.

    Raises:
        ArgumentError: a log cannot be read, is unfinished or has errors; the runs do not differ by ARM, or differ by
            more than ARM; the inputs or targets differ under an id; ARM answered for a scorer; or there is no such
            scorer, or its score is neither a grade nor a share.
    """
    logs: dict[Role, InspectLog] = {BASELINE: InspectLog.read(baseline), "treated": InspectLog.read(treated)}
    first, second = logs.values()
    _check_differ_by_arm(first, second)
    ids = [id for id in first.samples if id in second.samples]
    _check_inputs(first, second, ids)
    chosen = _choose_scorer(first, second, ids, scorer)
    conditions = [
        ConditionSettings(role, role, log.arm.get("attached"), temperature=log.temperature, samples=log.epochs)
        for role, log in logs.items()
    ]
    planned = first.planned | second.planned
    task = TaskAnswers(
        name=first.log.eval.task,
        kind=KIND,
        planned_items=len(planned),
        items=[AskedItem(id, input_text(s), _target_text(s)) for id in ids for s in first.samples[id][:1]],
        conditions=[
            _side_answers(condition, log, ids, chosen) for condition, log in zip(conditions, logs.values(), strict=True)
        ],
    )
    settings = _run_settings(logs, conditions, planned, chosen)
    return make_findings(analyse(settings, [task], {}, seed=seed), Path(treated))


def _check_differ_by_arm(baseline: InspectLog, treated: InspectLog) -> None:
    """Refuses two logs that differ by more than ARM, do not differ by ARM, or were graded with ARM."""
    if baseline.arm:
        raise ArgumentError("the first run had ARM attached: name the run without ARM first")
    if not treated.arm:
        raise ArgumentError("neither run had ARM attached: run the second one by the provider armlet with a policy")
    check_same(baseline.common(), treated.common())
    if sample := next(treated.asked_graders(), None):
        raise ArgumentError(
            f"sample {sample.id}: a scorer asked the model with ARM to grade; name another grader, such as with "
            "--model-role grader=MODEL"
        )


def _check_inputs(baseline: InspectLog, treated: InspectLog, ids: Sequence[str]) -> None:
    if not ids:
        raise ArgumentError("the logs have no item in common that has all of its epochs in both")
    for id in ids:
        for first, second in zip(baseline.samples[id], treated.samples[id], strict=True):
            before, after = asked(first), asked(second)
            if differing := [key for key in before if before[key] != after[key]]:
                raise ArgumentError(
                    f"sample {id}, epoch {first.epoch}: the runs have different inputs ({', '.join(differing)}); run "
                    "both with the same task and seeds of shuffling"
                )


def _choose_scorer(baseline: InspectLog, treated: InspectLog, ids: Sequence[str], scorer: str | None) -> str:
    """The named scorer, or the first one; refuses one that a sample does not have."""
    samples = [sample for log in (baseline, treated) for id in ids for sample in log.samples[id]]
    shared = [name for name in samples[0].scores or {} if all(name in (sample.scores or {}) for sample in samples)]
    chosen = scorer or next(iter(shared), None)
    if chosen not in shared:
        advice = f"name one of {', '.join(shared)} with --scorer" if shared else "score them with inspect score"
        raise ArgumentError(f"expected a score{f' of {scorer}' if scorer else ''} of each sample; {advice}")
    return chosen


def _side_answers(condition: ConditionSettings, log: InspectLog, ids: Sequence[str], scorer: str) -> ConditionAnswers:
    activity = {layer: LayerActivity(**counts) for layer, counts in log.arm.get("report", {}).items()}
    items = [[_read_sample(sample, scorer) for sample in log.samples[id]] for id in ids]
    return ConditionAnswers(condition, items, activity)


def _read_sample(sample: "EvalSample", scorer: str) -> GradedAnswer:
    answer = (sample.scores or {})[scorer].answer
    return GradedAnswer(graded_share(sample, scorer), sample.output.completion, extracted=answer)


def _target_text(sample: "EvalSample") -> str:
    return sample.target if isinstance(sample.target, str) else " or ".join(sample.target)


def _run_settings(
    logs: Mapping[Role, InspectLog], conditions: Sequence[ConditionSettings], planned: set[str], scorer: str
) -> RunSettings:
    """The settings that Inspect recorded of the two runs."""
    specs = {role: log.log.eval for role, log in logs.items()}
    spec = specs[BASELINE]
    engine: dict[str, object] = {"model": spec.model.partition("/")[2]}
    engine |= {f"{role} run": {"model": s.model, **without_secrets(s.model_args)} for role, s in specs.items()}
    questions = {id: asked(samples[0]) for log in logs.values() for id, samples in log.samples.items()}
    sha256 = hashlib.sha256(json.dumps(questions, sort_keys=True, default=str).encode()).hexdigest()
    source = {role: log.path.name for role, log in logs.items()} | {"scorer": scorer}
    versions = {f"inspect_ai ({role})": s.packages.get("inspect_ai") for role, s in specs.items()}
    return RunSettings(
        engine=engine,
        tasks=[TaskSettings(spec.task, KIND, len(planned), sha256, source)],
        conditions=conditions,
        sampling={KIND: logs[BASELINE].generation()},
        systems={},
        graders={"inspect-ai": scorer},
        batch=logs[BASELINE].log.plan.config.max_connections,
        versions={"armlet": metadata.version("armlet")} | versions,
    )
