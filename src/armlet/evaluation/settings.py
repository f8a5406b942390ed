"""What a run's manifest records, typed: everything that decides the answers, and the machines that gave them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from armlet.evaluation.conditions.conditions import Condition, Role

Facts = Mapping[str, object]
"""Plain values by name, as JSON stores them; reports print them and nothing depends on their names."""


@dataclass(frozen=True)
class TaskSettings:
    """One task of a run.

    Args:
        name: unique in the run.
        kind: how its answers are graded.
        items: how many were to be answered.
        sha256: over what was asked.
        source: where the items come from.
    """

    name: str
    kind: str
    items: int
    sha256: str
    source: Facts


@dataclass(frozen=True)
class ConditionSettings:
    """One condition of a run; None stands for what a run does not use or does not record.

    Args:
        name: unique in the run.
        role: as of `Condition`.
        treatment: how ARM was attached, as in an armlet.json, or in words.
        placebo: which placebo replaced the treatment's policy.
        filling: the filler and its position.
        temperature: of sampling.
        weighing: the temperature of the choices' likelihoods.
        samples: answers to each item.
    """

    name: str
    role: Role
    treatment: Facts | str | None = None
    placebo: str | None = None
    filling: Facts | None = None
    temperature: float | None = None
    weighing: float | None = None
    samples: int = 1

    @classmethod
    def of(cls, condition: Condition) -> "ConditionSettings":
        """The settings of a condition that is yet to be run."""
        return cls(**condition.plain())


@dataclass(frozen=True)
class RunSettings:
    """A whole manifest.

    Args:
        engine: what answered.
        tasks: what was asked.
        conditions: the baseline first.
        sampling: how answers were generated, by kind of task.
        systems: the system prompts, by kind of task.
        graders: what graded the answers, by kind of task.
        batch: items at once.
        versions: of the packages that decide an answer or its grade.
        machines: where it ran.
        version: of the manifest's format; None where there is no manifest file.
    """

    engine: Facts
    tasks: Sequence[TaskSettings]
    conditions: Sequence[ConditionSettings]
    sampling: Mapping[str, Facts]
    systems: Mapping[str, str]
    graders: Mapping[str, str]
    batch: object
    versions: Mapping[str, str | None]
    machines: Sequence[Facts] = ()
    version: int | None = None

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "RunSettings":
        """Reads the content of manifest.json."""
        tasks = [TaskSettings(**task) for task in manifest["tasks"]]
        conditions = [ConditionSettings(**condition) for condition in manifest["conditions"]]
        return cls(**{**manifest, "tasks": tasks, "conditions": conditions})

    def to_dict(self) -> Facts:
        """The content of manifest.json."""
        version = {} if self.version is None else {"version": self.version}
        return version | {name: value for name, value in asdict(self).items() if name != "version"}
