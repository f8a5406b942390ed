"""Reads lm-eval's output with `--log_samples`: `samples_TASK_DATE.jsonl`, with a line for each item and filter.

`results_DATE.json` in the same folder contains the settings of the run.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armlet.redistribution.errors import ArgumentError

SAMPLES_FILE = re.compile(r"samples_(.+)_(\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl")
USUAL_METRICS = ("acc", "acc_norm", "exact_match")  # for lines that do not list their metrics


@dataclass(frozen=True)
class LoggedSample:
    """One item of one task."""

    doc_id: int  # the item's number
    asked: Mapping[str, object]  # hashes of item and target, and the model's whole input; equal in paired runs
    question: str
    gold: str
    answer: str  # the answer; for multiple choice, the most likely choice
    chosen: bool  # the item is multiple choice
    metrics: Mapping[str, float]  # the metrics that are finite numbers


def find_samples(directory: Path) -> dict[str, Path]:
    """The latest file of samples of each task, in the folder of --output_path or in the model's folder there.

    Raises ArgumentError if there are no samples, or samples of several models.
    """
    files = sorted(directory.glob("samples_*.jsonl")) or sorted(directory.glob("*/samples_*.jsonl"))
    folders = {file.parent for file in files}
    if len(folders) > 1:
        names = ", ".join(map(str, sorted(folders)))
        raise ArgumentError(f"{directory}: contains runs of several models; name one of {names}")
    dated = [(match[2], match[1], file) for file in files if (match := SAMPLES_FILE.fullmatch(file.name))]
    if not dated:
        raise ArgumentError(f"{directory}: contains no samples_TASK_DATE.jsonl; run lm-eval with --log_samples")
    latest = {task: file for _, task, file in sorted(dated)}
    return dict(sorted(latest.items()))


def read_results(samples: Path) -> dict[str, Any]:
    """The results file of the run with these samples, or {}; raises ArgumentError if it cannot be read."""
    date = samples.stem.rpartition("_")[2]
    results = next(samples.parent.glob(f"*_{date}.json"), None)
    try:
        content = json.loads(results.read_text(encoding="utf-8")) if results else {}
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{results}: cannot be read ({error})") from error
    return content if isinstance(content, dict) else {}


def read_samples(file: Path, filter: str | None = None) -> dict[int, LoggedSample]:
    """Reads the items of a file of samples, by doc_id, for one of lm-eval's filters, by default the first one.

    Raises ArgumentError if a line cannot be parsed, or there is no such filter.
    """
    samples: dict[int, LoggedSample] = {}
    filters: dict[str, None] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
            filters[row.get("filter", "none")] = None
            if row.get("filter", "none") == (filter or next(iter(filters))):
                samples[row["doc_id"]] = _sample(row)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ArgumentError(f"{file}, line {number}: is not a sample of lm-eval ({reason})") from error
    if not samples:
        detail = f" for filter {filter!r}, only {', '.join(filters)}" if filters else ""
        raise ArgumentError(f"{file}: has no items{detail}")
    return samples


def _sample(row: Mapping[str, Any]) -> LoggedSample:
    requests = [_in_order(request) for request in _in_order(row["arguments"])]
    chosen = len(requests) > 1 and all(isinstance(request[-1], str) for request in requests)
    values = {key: row[key] for key in row.get("metrics", USUAL_METRICS) if key in row}
    gold = str(row.get("target", ""))
    if chosen and gold.isdecimal() and int(gold) < len(requests):
        gold = str(requests[int(gold)][-1]).strip()
    answer = _most_likely(requests, row["filtered_resps"]) if chosen else row["filtered_resps"]
    while isinstance(answer, list) and answer:  # the first answer after the filter
        answer = answer[0]
    return LoggedSample(
        doc_id=int(row["doc_id"]),
        asked={key: row.get(key) for key in ("doc_hash", "target_hash")} | {"arguments": requests},
        question=str(requests[0][0]),
        gold=gold,
        answer=str(answer),
        chosen=chosen,
        metrics={key: float(v) for key, v in values.items() if isinstance(v, int | float) and math.isfinite(v)},
    )


def _in_order(values: Any) -> list[Any]:
    return list(values.values()) if isinstance(values, dict) else list(values)


def _most_likely(requests: Sequence[Sequence[object]], answers: Sequence[Sequence[str]]) -> str:
    """The choice with the highest log-likelihood; if the contexts are the choices, the context with the highest."""
    best = max(range(len(answers)), key=lambda index: float(answers[index][0]))
    contexts_differ = len({str(request[-1]) for request in requests}) == 1
    return str(requests[best][0 if contexts_differ else -1]).strip()
