"""What lm-eval writes with `--log_samples`: `samples_TASK_DATE.jsonl`, a line for each item and filter.

Beside it stands `results_DATE.json`, with the settings of the run.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armlet.redistribution.errors import ArgumentError

FILE = re.compile(r"samples_(.+)_(\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl")

KNOWN = ("acc", "acc_norm", "exact_match")
"""Metrics that are looked for where a line does not name its own."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """One item of one task.

    Args:
        doc_id: its number.
        asked: hashes of the item and its target, and all that the model was asked; the same in two runs of the same.
        question, gold, answer: as texts; of multiple choice, the likeliest choice.
        chosen: multiple choice.
        metrics: those that are numbers.
    """

    doc_id: int
    asked: Row
    question: str
    gold: str
    answer: str
    chosen: bool
    metrics: Mapping[str, float]


def read_samples(directory: str | Path, filter: str | None = None) -> dict[str, dict[int, Sample]]:
    """The items of each task in a folder of lm-eval's, by doc_id.

    Args:
        directory: what --output_path named, or the model's folder in it; of each task the latest file is read.
        filter: of lm-eval; None for the first in each file.

    Raises:
        ArgumentError: no samples there, or of several models; a line that is not understood; no such filter.
    """
    return {task: _read(file, filter) for task, (file, _) in find_samples(Path(directory)).items()}


def find_samples(directory: Path) -> dict[str, tuple[Path, str]]:
    """The latest file of samples of each task, and its date."""
    found = sorted(directory.glob("samples_*.jsonl")) or sorted(directory.glob("*/samples_*.jsonl"))
    folders = {file.parent for file in found}
    if len(folders) > 1:
        raise ArgumentError(f"{directory}: holds runs of several models, name one: {listed(map(str, sorted(folders)))}")
    dated = [(named[2], named[1], file) for file in found if (named := FILE.fullmatch(file.name))]
    if not dated:
        raise ArgumentError(f"{directory}: holds no samples_TASK_DATE.jsonl; run lm-eval with --log_samples")
    latest = {task: (file, date) for date, task, file in sorted(dated)}
    return dict(sorted(latest.items()))


def read_results(samples: tuple[Path, str]) -> Row:
    """What lm-eval says of the run that wrote a file of samples; nothing where that file is gone."""
    file, date = samples
    beside = next(iter(file.parent.glob(f"*_{date}.json")), None)
    try:
        found = json.loads(beside.read_text(encoding="utf-8")) if beside else {}
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{beside}: cannot be read ({error})") from error
    return found if isinstance(found, dict) else {}


def _read(file: Path, filter: str | None) -> dict[int, Sample]:
    found: dict[int, Sample] = {}
    filters: dict[str, None] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
            filters[row.get("filter", "none")] = None
            if row.get("filter", "none") == (filter or next(iter(filters))):
                found[row["doc_id"]] = _sample(row)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ArgumentError(f"{file}, line {number}: is no sample of lm-eval's ({reason})") from error
    if not found:
        raise ArgumentError(
            f"{file}: has no item" + (f" of filter {filter!r}, only {listed(filters)}" if filters else "")
        )
    return found


def _sample(row: Row) -> Sample:
    arguments = [list(each.values()) if isinstance(each, dict) else list(each) for each in _values(row["arguments"])]
    answers = row["filtered_resps"]
    chosen = len(arguments) > 1 and all(isinstance(each[-1], str) for each in arguments)
    asked = {key: row.get(key) for key in ("doc_hash", "target_hash")} | {"arguments": arguments}
    values = {key: row[key] for key in row.get("metrics", KNOWN) if key in row}
    numbers = {key: float(own) for key, own in values.items() if isinstance(own, int | float) and math.isfinite(own)}
    answer = _likeliest(arguments, answers) if chosen else _text(answers)
    gold = str(row.get("target", ""))
    if chosen and gold.isdecimal() and int(gold) < len(arguments):
        gold = str(arguments[int(gold)][-1]).strip()
    return Sample(int(row["doc_id"]), asked, str(arguments[0][0]), gold, answer, chosen, numbers)


def _values(arguments: Any) -> list[Any]:
    return list(arguments.values()) if isinstance(arguments, dict) else list(arguments)


def _likeliest(arguments: Sequence[Sequence[Any]], answers: Sequence[Any]) -> str:
    """The choice with the highest log-likelihood; where contexts are the choices, that context."""
    best = max(range(len(answers)), key=lambda at: float(answers[at][0]))
    same = len({str(each[-1]) for each in arguments}) == 1
    return str(arguments[best][0 if same else -1]).strip()


def _text(answers: Any) -> str:
    """The first answer of what a filter left."""
    while isinstance(answers, list) and answers:
        answers = answers[0]
    return str(answers)


def listed(names: Iterable[Any]) -> str:
    """Names as a message lists them."""
    return ", ".join(map(str, names))
