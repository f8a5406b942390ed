"""The types of a run's manifest: everything that affects the answers and verdicts, and the machines used."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from armlet.evaluation.conditions.conditions import Role
from armlet.runs.folder import Record

Facts = Mapping[str, object]
"""Plain values by name, as stored in JSON. Reports print them, and no code depends on their names."""


@dataclass(frozen=True)
class TaskSettings:
    """One task of a run."""

    name: str  # unique in the run
    kind: str  # how its answers are graded
    items: int  # number of items to answer
    sha256: str  # hash of the problems
    source: Facts  # where the items come from


@dataclass(frozen=True)
class ConditionSettings:
    """`Condition.plain()` of one condition; None means that the run does not use or does not record a setting."""

    name: str
    role: Role
    treatment: Facts | str | None = None  # the content of an armlet.json, or a description
    placebo: str | None = None
    filling: Facts | None = None
    temperature: float | None = None
    weighing: float | None = None
    samples: int = 1

    @property
    def is_function(self) -> bool:
        """Whether a user's function is the treatment."""
        return isinstance(self.treatment, Mapping) and "function" in self.treatment


@dataclass(frozen=True)
class SettingOrigin:
    """What chose a condition's setting, and how many of this run's items are among those that chose it."""

    condition: str
    source: str  # source, name, tasks and sha256 of the `Origin`
    name: str
    tasks: Sequence[str]
    sha256: str
    items: int  # number of tuning items; 0 for a published setting
    shared: Mapping[str, int]  # number of this run's items among those that chose it, by task
    left_out: bool  # the shared items are left out


@dataclass(frozen=True)
class RunSettings:
    """A whole manifest; sampling, system prompts and graders are stored by kind of task."""

    engine: Facts  # the model or server that answered
    tasks: Sequence[TaskSettings]
    conditions: Sequence[ConditionSettings]  # the baseline first
    sampling: Mapping[str, Facts]
    systems: Mapping[str, str]  # the system prompts
    graders: Mapping[str, str]
    batch: object  # items in a batch
    versions: Mapping[str, str | None]  # of the packages that affect an answer or its grade
    origins: Sequence[SettingOrigin] = ()
    prompts: Facts | None = None  # few-shot examples and template; None for the default
    machines: Sequence[Facts] = ()
    budget: Facts | None = None  # the time that chose the number of items
    margin: float | None = None  # the largest difference that would not matter, in percentage points
    version: int | None = None  # version of the manifest's format; None without a manifest file

    @property
    def margin_share(self) -> float | None:
        """The margin as a fraction of the items."""
        return None if self.margin is None else self.margin / 100

    @classmethod
    def from_manifest(cls, manifest: Record) -> "RunSettings":
        """Reads the content of manifest.json."""
        tasks = [TaskSettings(**task) for task in manifest["tasks"]]
        conditions = [ConditionSettings(**condition) for condition in manifest["conditions"]]
        origins = [SettingOrigin(**origin) for origin in manifest.get("origins", ())]
        return cls(**{**manifest, "tasks": tasks, "conditions": conditions, "origins": origins})

    def to_dict(self) -> Facts:
        """The content of manifest.json."""
        content = asdict(self)
        optional = {name: content.pop(name) for name in ("version", "budget", "prompts", "origins", "margin")}
        return {name: value for name, value in (optional | content).items() if name not in optional or value}
