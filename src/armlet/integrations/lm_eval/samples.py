"""What lm-eval writes with `--log_samples`: `samples_TASK_DATE.jsonl`, a line for each item and filter.

`results_DATE.json` in the same folder has the settings of the run.
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
USUAL_METRICS = ("acc", "acc_norm", "exact_match")  # read where a line does not list its own


@dataclass(frozen=True)
class LoggedSample:
    """One item of one task."""

    doc_id: int  # its number
    asked: Mapping[str, object]  # hashes of item and target, and the model's whole input; equal in runs of the same
    question: str
    gold: str
    answer: str  # of multiple choice, the likeliest choice
    chosen: bool  # it is multiple choice
    metrics: Mapping[str, float]  # those that are finite numbers


def find_samples(directory: Path) -> dict[str, Path]:
    """The latest file of samples of each task in what --output_path named, or in the model's folder there.

    Raises:
        ArgumentError: there is none, or of several models.
    """
    files = sorted(directory.glob("samples_*.jsonl")) or sorted(directory.glob("*/samples_*.jsonl"))
    folders = {file.parent for file in files}
    if len(folders) > 1:
        names = ", ".join(map(str, sorted(folders)))
        raise ArgumentError(f"{directory}: contains runs of several models, name one: {names}")
    dated = [(match[2], match[1], file) for file in files if (match := SAMPLES_FILE.fullmatch(file.name))]
    if not dated:
        raise ArgumentError(f"{directory}: contains no samples_TASK_DATE.jsonl; run lm-eval with --log_samples")
    latest = {task: file for _, task, file in sorted(dated)}
    return dict(sorted(latest.items()))


def read_results(samples: Path) -> dict[str, Any]:
    """What lm-eval recorded of the run with these samples, if anything; ArgumentError where it cannot be read."""
    date = samples.stem.rpartition("_")[2]
    beside = next(samples.parent.glob(f"*_{date}.json"), None)
    try:
        content = json.loads(beside.read_text(encoding="utf-8")) if beside else {}
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{beside}: cannot be read ({error})") from error
    return content if isinstance(content, dict) else {}


def read_samples(file: Path, filter: str | None = None) -> dict[int, LoggedSample]:
    """The items of one file of samples, by doc_id; of the `filter` that lm-eval named so, or the file's first.

    Raises:
        ArgumentError: a line that is not understood, or no such filter.
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
            raise ArgumentError(f"{file}, line {number}: is no sample of lm-eval's ({reason})") from error
    if not samples:
        known = f" of filter {filter!r}, only {', '.join(filters)}" if filters else ""
        raise ArgumentError(f"{file}: has no item{known}")
    return samples


def _sample(row: Mapping[str, Any]) -> LoggedSample:
    requests = [_in_order(request) for request in _in_order(row["arguments"])]
    chosen = len(requests) > 1 and all(isinstance(request[-1], str) for request in requests)
    values = {key: row[key] for key in row.get("metrics", USUAL_METRICS) if key in row}
    gold = str(row.get("target", ""))
    if chosen and gold.isdecimal() and int(gold) < len(requests):
        gold = str(requests[int(gold)][-1]).strip()
    answer = _likeliest(requests, row["filtered_resps"]) if chosen else row["filtered_resps"]
    while isinstance(answer, list) and answer:  # the first that a filter left
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


def _likeliest(requests: Sequence[Sequence[object]], answers: Sequence[Sequence[str]]) -> str:
    """The choice with the highest log-likelihood; where the contexts are the choices, that context."""
    best = max(range(len(answers)), key=lambda at: float(answers[at][0]))
    contexts_differ = len({str(request[-1]) for request in requests}) == 1
    return str(requests[best][0 if contexts_differ else -1]).strip()
