"""What a run's manifest records, typed: everything that decides the answers, and the machines that gave them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from armlet.evaluation.conditions.conditions import Role

Facts = Mapping[str, object]
"""Plain values by name, as JSON stores them; reports print them and nothing depends on their names."""


@dataclass(frozen=True)
class TaskSettings:
    """One task of a run."""

    name: str  # unique in the run
    kind: str  # how its answers are graded
    items: int  # how many were to be answered
    sha256: str  # over what was asked
    source: Facts  # where the items come from


@dataclass(frozen=True)
class ConditionSettings:
    """`Condition.plain()` of one condition of a run; None stands for what a run does not use or does not record."""

    name: str
    role: Role
    treatment: Facts | str | None = None  # as in an armlet.json, or in words
    placebo: str | None = None
    filling: Facts | None = None
    temperature: float | None = None
    weighing: float | None = None
    samples: int = 1


@dataclass(frozen=True)
class RunSettings:
    """A whole manifest; how answers are generated and graded is by kind of task."""

    engine: Facts  # what answered
    tasks: Sequence[TaskSettings]
    conditions: Sequence[ConditionSettings]  # the baseline first
    sampling: Mapping[str, Facts]
    systems: Mapping[str, str]  # the system prompts
    graders: Mapping[str, str]
    batch: object  # items at once
    versions: Mapping[str, str | None]  # of the packages that decide an answer or its grade
    machines: Sequence[Facts] = ()
    version: int | None = None  # of the manifest's format; None where there is no manifest file

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
