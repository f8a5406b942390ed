"""Two runs of lm-eval with `--log_samples` on the same items, as the findings of which a report is made."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from armlet.evaluation.conditions.conditions import BASELINE, Condition
from armlet.evaluation.report.findings import adjust, paired_row, planned
from armlet.evaluation.report.sentences import verdict
from armlet.integrations.lm_eval_samples import Sample, find_samples, listed, read_results, read_samples
from armlet.redistribution.errors import ArgumentError
from armlet.statistics.comparison import compare
from armlet.statistics.votes import distinct_2

METRICS = ("acc", "exact_match")
"""What is compared where no metric is named; the first that there is."""

BY_LENGTH = "acc_norm"
"""Multiple choice with likelihoods by the choices' lengths: shown beside `acc`."""

TREATED = "treated"

Row = dict[str, Any]


def compare_runs(
    baseline: str | Path,
    treated: str | Path,
    *,
    metric: str | None = None,
    filter: str | None = None,
    seed: int = 0,
) -> Row:
    """The findings of two runs, for `report.write`; items that only one of them has are left out.

    Args:
        baseline: the folder of the run without ARM.
        treated: the one with it.
        metric: of lm-eval, from 0 to 1 with higher as better; None for the first of `METRICS`.
        filter: as in `read_samples`.
        seed: of the bootstrap.

    Raises:
        ArgumentError: as `read_samples`; no task in common; another item, prompt or target under the same doc_id; a
            metric that a task does not have, or that is no share.
    """
    places = {BASELINE: Path(baseline), TREATED: Path(treated)}
    files = {name: find_samples(place) for name, place in places.items()}
    samples = {name: read_samples(place, filter) for name, place in places.items()}
    tasks = [task for task in samples[BASELINE] if task in samples[TREATED]]
    if not tasks:
        raise ArgumentError(f"{baseline} and {treated}: have no task in common ({listed(samples[BASELINE])} there)")
    results = {name: read_results(next(iter(files[name].values()))) for name in places}
    pairs = [
        _Pair(task, samples[BASELINE][task], samples[TREATED][task], metric, read_results(files[TREATED][task]))
        for task in tasks
    ]
    _check_sides(results)
    arm = results[TREATED].get("config", {}).get("armlet") or {}
    # Of several tasks, ARM's report is of all of them together.
    report = arm.get("report", {}) if len(samples[TREATED]) == 1 else {}
    found = [pair.findings(report, seed, len(pairs)) for pair in pairs]
    adjust([row for task in found for row in task["comparisons"]])
    missing = [task for own in samples.values() for task in own if task not in tasks]
    return {
        "armlet": metadata.version("armlet"),
        "complete": not missing and all(task["items"] == task["planned_items"] for task in found),
        "verdicts": [verdict(task, row) for task in found for row in task["comparisons"]],
        "tasks": found,
        "manifest": _manifest(pairs, samples, files, results, arm),
    }


def _check_sides(results: Mapping[str, Row]) -> None:
    """Refuses a baseline that had ARM, and runs that differ by more than ARM.

    Raises:
        ArgumentError: they do.
    """
    before, after = (results[name].get("config", {}) for name in (BASELINE, TREATED))
    if before.get("armlet"):
        raise ArgumentError("the run named first had ARM attached: name the one without it first")
    if after.get("model") == "armlet" and not after.get("armlet"):
        raise ArgumentError("neither run had ARM attached: give the second one a policy")
    sides = [_model_args(config) for config in (before, after)]
    for key in sorted(sides[0].keys() | sides[1].keys()):
        one, other = (side.get(key) for side in sides)
        if one != other:
            raise ArgumentError(
                f"the runs differ by more than ARM: {key} is {one!r} in the first, {other!r} in the other"
            )


def _model_args(config: Row) -> Row:
    """What decides a model and its precision, as far as a run says it."""
    given = config.get("model_args") or {}
    named = (
        {key: str(given.get(key)) for key in ("pretrained", "revision") if given.get(key)}
        if isinstance(given, dict)
        else {}
    )
    return named | {key: str(config[key]) for key in ("model_dtype", "model_sha") if config.get(key)}


class _Pair:
    """One task in both runs: the items that both have, in the order of their numbers."""

    def __init__(
        self,
        task: str,
        baseline: Mapping[int, Sample],
        treated: Mapping[int, Sample],
        metric: str | None,
        results: Row,
    ) -> None:
        ids = sorted(baseline.keys() & treated.keys())
        if not ids:
            raise ArgumentError(f"{task}: the runs have no item in common")
        self.task, self.planned = task, len(baseline.keys() | treated.keys())
        self.before, self.after = [baseline[id] for id in ids], [treated[id] for id in ids]
        for one, other in zip(self.before, self.after, strict=True):
            unlike = [key for key in one.asked if one.asked[key] != other.asked[key]]
            if unlike:
                raise ArgumentError(
                    f"{task}, doc_id {one.doc_id}: the runs were not asked the same ({listed(unlike)} differs); "
                    "run both with the same task, few-shot examples, template and generation arguments"
                )
        self.metric = _metric(task, [*self.before, *self.after], metric)
        if not results.get("higher_is_better", {}).get(task, {}).get(self.metric, True):
            raise ArgumentError(f"{task}: of {self.metric} less is better; name another with --metric")

    @property
    def kind(self) -> str:
        return "choice" if all(each.chosen for each in self.before) else "text"

    def findings(self, report: Row, seed: int, judged: int) -> Row:
        """As of one task in `results.findings`, among so many that are judged."""
        scores = [[each.metrics[self.metric] for each in own] for own in (self.before, self.after)]
        conditions = [self._described(BASELINE, self.before, {}), self._described(TREATED, self.after, report)]
        return {
            "name": self.task,
            "kind": self.kind,
            "items": len(self.before),
            "planned_items": self.planned,
            "planned": planned(self.planned, judged),
            "conditions": conditions,
            "comparisons": [paired_row(TREATED, BASELINE, True, compare(*scores, seed=seed, comparisons=judged))],
            "same_as_baseline": {},
            "discordant": list(self._discordant()),
        }

    def fingerprint(self) -> str:
        """sha256 over what was asked."""
        text = json.dumps([each.asked for each in self.before], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _described(self, name: str, samples: Sequence[Sample], report: Row) -> Row:
        found = {"name": name, "role": name, "samples": 1, "arm": report}
        found["accuracy"] = float(np.mean([each.metrics[self.metric] for each in samples]))
        if self.kind == "choice":
            by_length = [each.metrics.get(BY_LENGTH) for each in samples]
            given = [each for each in by_length if each is not None]
            return found | {"accuracy_normalised": float(np.mean(given)) if len(given) == len(samples) else None}
        # lm-eval does not say what could be read of an answer, nor how it ended.
        unsaid = ("extracted", "format_ok", "truncated", "accuracy_of_extracted", "tokens")
        texts = [each.answer for each in samples]
        return found | dict.fromkeys(unsaid) | {"distinct_2": distinct_2(texts), "pass_at": {}}

    def _discordant(self) -> Iterator[Row]:
        for one, other in zip(self.before, self.after, strict=True):
            before, after = one.metrics[self.metric], other.metrics[self.metric]
            if before != after:
                asked = {"item": str(one.doc_id), "question": one.question, "gold": one.gold}
                answers = {"baseline": one.answer, "answer": other.answer}
                yield {"condition": TREATED, **asked, "gained": after > before, **answers}


def _manifest(
    pairs: Sequence[_Pair],
    samples: Mapping[str, Mapping[str, Mapping[int, Sample]]],
    files: Mapping[str, Mapping[str, tuple[Path, str]]],
    results: Mapping[str, Row],
    arm: Row,
) -> Row:
    config = {name: own.get("config", {}) for name, own in results.items()}
    model = config[BASELINE].get("model_args", {})
    engine = {"model": model.get("pretrained", "model") if isinstance(model, dict) else str(model)}
    treatment = arm.get("attached")
    conditions = [Condition(BASELINE, BASELINE).plain(), Condition(TREATED, TREATED).plain()]
    paired = [
        {
            "name": pair.task,
            "kind": pair.kind,
            "items": pair.planned,
            "sha256": pair.fingerprint(),
            "source": {name: own[pair.task][0].name for name, own in files.items()} | {"metric": pair.metric},
        }
        for pair in pairs
    ]
    single = {
        task: own
        for name in samples
        for task, own in samples[name].items()
        if any(task not in o for o in samples.values())
    }
    return {
        "engine": engine | {f"{name} run": _said(own) for name, own in config.items()},
        "tasks": paired
        + [
            {"name": task, "kind": "text", "items": len(own), "sha256": "", "source": {"metric": None}}
            for task, own in single.items()
        ],
        "conditions": [conditions[0], {**conditions[1], "treatment": treatment}],
        "sampling": {},
        "systems": {},
        "graders": {"lm-eval": listed(dict.fromkeys(pair.metric for pair in pairs))},
        "batch": config[BASELINE].get("batch_size"),
        "versions": {
            "armlet": metadata.version("armlet"),
            **{f"lm_eval ({name})": own.get("lm_eval_version") for name, own in results.items()},
        },
        "machines": [],
    }


def _said(config: Row) -> Row:
    """What of a run's settings decides its answers."""
    keys = ("model", "model_args", "model_dtype", "model_sha", "batch_size", "device", "gen_kwargs", "limit")
    return {key: config[key] for key in keys if config.get(key) not in (None, "", {})}


def _metric(task: str, samples: Sequence[Sample], metric: str | None) -> str:
    shared = [key for key in samples[0].metrics if all(key in each.metrics for each in samples)]
    found = metric or next((key for key in METRICS if key in shared), None)
    if found not in shared:
        wanted = metric or " or ".join(METRICS)
        there = f"name one of {listed(shared)} with --metric" if shared else "there is none"
        raise ArgumentError(f"{task}: no metric {wanted} in both runs; {there}")
    if not all(0 <= each.metrics[found] <= 1 for each in samples):
        raise ArgumentError(f"{task}: {found} is no share from 0 to 1; name another with --metric")
    return found
