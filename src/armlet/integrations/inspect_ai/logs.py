"""Reads an `.eval` log of Inspect: one task, its samples by id and epoch, and the record of ARM in each answer."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from armlet.integrations.sides import without_secrets
from armlet.integrations.treatment import DEFAULTS, MODEL_TYPE
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample
    from inspect_ai.model import ChatMessage, ModelOutput

GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""Inspect's grades: correct, partially correct, incorrect, and no answer."""

LIMIT_SETTINGS = ("epochs", "message_limit", "token_limit", "turn_limit", "time_limit", "working_limit", "cost_limit")
"""Settings of Inspect's `EvalConfig` that affect answers or their number."""

TRANSPORT = {
    "adaptive_connections",
    "attempt_timeout",
    "batch",
    "cache",
    "max_connections",
    "max_retries",
    "stream_idle_timeout",
    "timeout",
}
"""Settings of Inspect's `GenerateConfig` that affect how outputs are requested, but not their content."""


@dataclass(frozen=True)
class InspectLog:
    """One log, finished and without errors."""

    path: Path
    log: "EvalLog"

    @classmethod
    def read(cls, path: str | Path) -> "InspectLog":
        """Reads a log, or the only one of a folder.

        Raises ArgumentError if it cannot be read, is not finished, or has errors or no samples, or there are several.
        """
        try:
            from inspect_ai.log import read_eval_log
        except ImportError as error:
            raise ArgumentError("Inspect is not installed: pip install 'armlet[inspect-ai]'") from error
        path = _only_log(Path(path))
        try:
            log = read_eval_log(str(path), resolve_attachments="core", exclude_fields={"store"})
        except Exception as error:  # from zip, JSON, pydantic, or a file system
            raise ArgumentError(f"{path}: is not a log of Inspect ({type(error).__name__}: {error})") from error
        _check_finished(path, log)
        return cls(path, log)

    @cached_property
    def samples(self) -> Mapping[str, Sequence["EvalSample"]]:
        """The samples of each item that has all of its epochs, by id."""
        by_item: dict[str, dict[int, EvalSample]] = {}
        for sample in self.log.samples or ():
            by_item.setdefault(str(sample.id), {})[sample.epoch] = sample
        return {
            id: [epochs[epoch] for epoch in sorted(epochs)]
            for id, epochs in by_item.items()
            if len(epochs) == self.epochs
        }

    @property
    def planned(self) -> set[str]:
        """The ids of the items that the run was to answer."""
        return {str(id) for id in self.log.eval.dataset.sample_ids or ()} | {str(s.id) for s in self.log.samples or ()}

    @property
    def epochs(self) -> int:
        """The number of samples of an item."""
        return self.log.eval.config.epochs or 1

    @property
    def temperature(self) -> float | None:
        """The temperature of sampling, 0 for greedy; None for the model's own, which Inspect does not record."""
        greedy = self.log.eval.model_args.get("do_sample") is False
        return 0.0 if greedy else self.generation().get("temperature")

    @cached_property
    def arm(self) -> dict[str, Any]:
        """ARM's record with the report of the whole log; {} without ARM.

        Raises ArgumentError if it differs between answers, an answer has none, or ARM processed no tokens.
        """
        answered = [sample for sample in self.log.samples or () if sample.output.choices]
        records = [_record(sample.output) for sample in answered]
        first = next((record for record in records if record), None)
        if first is None:
            return {}
        for sample, record in zip(answered, records, strict=True):
            if (record or {}).get("attached") != first["attached"]:
                other = "another setting of ARM" if record else "no record of ARM"
                raise ArgumentError(f"{self.path}: {_where(sample)} has {other}; run the task again, with one model")
        last = max((record for record in records if record), key=_token_count)
        if not all(counts["tokens"] for counts in last["report"].values()):
            raise ArgumentError(f"{self.path}: ARM is attached, but did not process any tokens")
        return last

    def generation(self) -> dict[str, Any]:
        """The settings of generation, of the model and then of the task."""
        configs = (self.log.eval.model_generate_config, self.log.plan.config)
        settings = [config.model_dump(exclude_none=True, exclude=TRANSPORT) for config in configs]
        return settings[0] | settings[1]

    def common(self) -> dict[str, object]:
        """The settings that a run without ARM and one with it must share, by name."""
        spec = self.log.eval
        steps = [(step.solver, step.params) for step in self.log.plan.steps]
        config = spec.config.model_dump(include=set(LIMIT_SETTINGS))
        arguments = without_secrets(spec.model_args)
        model_args = {key: value for key, value in arguments.items() if key not in (*DEFAULTS, "arm_config")}
        return {
            "task": (spec.task, spec.task_version, spec.task_args),
            "dataset": spec.dataset.name,
            "solver": steps,
            "scorers": [(scorer.name, scorer.options) for scorer in spec.scorers or ()],
            "model": spec.model.partition("/")[2],  # after the provider, "armlet" or "hf"
            "model arguments": model_args,
            "generation": self.generation(),
            **config,
        }

    def asked_graders(self) -> Iterator["EvalSample"]:
        """The samples for which a scorer asked a model with ARM."""
        for sample in self.log.samples or ():
            scorers: set[str] = set()
            for event in sample.events:
                if event.event == "span_begin" and (event.type == "scorer" or event.parent_id in scorers):
                    scorers.add(event.id)
                elif event.event == "model" and event.span_id in scorers and _record(event.output):
                    yield sample


def _only_log(path: Path) -> Path:
    """The only log of a folder; any other path as it is."""
    if not path.is_dir():
        return path
    logs = sorted(path.glob("*.eval"))
    if len(logs) != 1:
        raise ArgumentError(f"{path}: expected a folder with one .eval file, found {len(logs)}; name the .eval file")
    return logs[0]


def _check_finished(path: str | Path, log: "EvalLog") -> None:
    if log.status != "success":
        reason = f": {log.error.message}" if log.error else ""
        raise ArgumentError(f"{path}: the run did not end with success ({log.status}{reason}); run it again")
    if log.invalidated:
        raise ArgumentError(f"{path}: the log was marked as invalid; run it again")
    if not log.samples:
        raise ArgumentError(f"{path}: has no samples; run the task with them logged (without --no-log-samples)")
    if failed := [sample for sample in log.samples if sample.error]:
        error = failed[0].error
        raise ArgumentError(
            f"{path}: {len(failed)} of {len(log.samples)} samples ended with an error, first {_where(failed[0])}"
            f" ({error.message if error else ''}); run them again with inspect eval-retry"
        )


def asked(sample: "EvalSample") -> dict[str, object]:
    """The input of the model and the target, which are equal in paired runs."""
    messages = []
    for message in sample.messages:
        if message.role == "assistant":
            break
        messages.append((message.role, message.text))
    return {"input": input_text(sample), "target": sample.target, "choices": sample.choices, "messages": messages}


def input_text(sample: "EvalSample") -> str:
    """The input of a sample, as text."""
    if isinstance(sample.input, str):
        return sample.input
    messages: Sequence[ChatMessage] = sample.input
    return "\n".join(message.text for message in messages)


def graded_share(sample: "EvalSample", scorer: str) -> float:
    """A sample's score from 0 to 1; raises ArgumentError for any other score."""
    value = (sample.scores or {})[scorer].value
    number = GRADES.get(value) if isinstance(value, str) else value
    if not isinstance(number, int | float) or not math.isfinite(number) or not 0 <= number <= 1:
        expected = f"expected {', '.join(GRADES)} or a number from 0 to 1"
        raise ArgumentError(f"{_where(sample)}: the score of {scorer} is {value!r}; {expected}")
    return float(number)


def _where(sample: "EvalSample") -> str:
    return f"sample {sample.id}, epoch {sample.epoch}"


def _record(output: "ModelOutput") -> dict[str, Any] | None:
    """The provider's record of ARM; None without ARM."""
    return (output.metadata or {}).get(MODEL_TYPE)


def _token_count(record: Mapping[str, Any]) -> int:
    return sum(counts["tokens"] for counts in record["report"].values())
