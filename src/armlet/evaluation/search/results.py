"""The result of a search: its trials, the sensitivity map drawn of them, and the study as study.json stores it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any

from armlet.evaluation.settings import Facts
from armlet.statistics.comparison import Comparison


def finite_interval(comparison: Comparison) -> tuple[float | None, float | None]:
    """Low and high; None is infinite, which JSON cannot express."""
    low, high = (end if isfinite(end) else None for end in comparison.interval)
    return low, high


@dataclass(frozen=True)
class TrialResult:
    """One setting and its comparison with the baseline on the tuning items; shares are fractions."""

    trial: int  # its number, from 0
    values: Mapping[str, float]  # the searched settings by name
    layers: str  # where ARM was attached
    items: int  # how many were answered
    accuracy: float  # with this setting
    difference: float  # from the baseline
    low: float | None  # the ends of the difference's interval; None is infinite
    high: float | None

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "TrialResult":
        """Reads what `to_dict` made."""
        plain_fields = {field.name for field in fields(cls)} - {"values"}
        values = {name: value for name, value in row.items() if name not in plain_fields}
        return cls(values=values, **{name: row[name] for name in plain_fields})

    def to_dict(self) -> Facts:
        """A row of trials.csv, with a column for each searched setting."""
        row = asdict(self)
        return {"trial": row.pop("trial"), **row.pop("values"), **row}

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return (self.low is not None and self.low > 0) or (self.high is not None and self.high < 0)


def best(trials: Sequence[TrialResult]) -> TrialResult:
    """The largest difference; of equal ones the first."""
    return max(trials, key=lambda trial: trial.difference)


@dataclass(frozen=True)
class SearchMap:
    """The sensitivity map: the difference over a grid of two settings."""

    rows: Sequence[TrialResult]  # a trial for each pair of values
    x: str  # the names of the settings
    y: str
    title: str  # above the figure

    def to_dict(self) -> Facts:
        """For report.json."""
        return {**vars(self), "rows": [row.to_dict() for row in self.rows]}


@dataclass(frozen=True)
class Budget:
    """What a search cost: trials, tuning items, and answers in all, the baseline's included."""

    trials: int
    items: int
    answers: int


@dataclass(frozen=True)
class StudyTask:
    """A task's tuning items."""

    name: str
    items: int
    source: Facts


@dataclass(frozen=True)
class StudyArguments:
    """What `armlet tune` was asked, as far as `armlet confirm` needs it: the options of the same names."""

    model: str | None
    task: list[str] | None
    data: list[str]
    items: int | None
    difficulty: int | None
    max_new_tokens: int | None
    system: str | None
    allow_code: bool
    batch: int | None
    seed: int
    dtype: str
    device: str | None


@dataclass(frozen=True)
class StudyResult:
    """A whole study."""

    arguments: StudyArguments  # what was asked of which model
    engine: Facts  # what answered
    space: Mapping[str, Any]  # what was searched
    tasks: Sequence[StudyTask]
    budget: Budget
    armlet: Facts  # the setting of the best trial, as the content of an armlet.json
    interrupted: bool  # Ctrl-C cut it short
    trials: Sequence[TrialResult]  # in the order in which they were run
    searched: Sequence[str]  # the names of the searched settings
    mapped: Sequence[int]  # the trials of the map, by number

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "StudyResult":
        """Reads the content of study.json; LookupError or TypeError where it is not that."""
        return cls(
            arguments=StudyArguments(**content["arguments"]),
            engine=content["engine"],
            space=content["study"],
            tasks=[StudyTask(**task) for task in content["tasks"]],
            budget=Budget(**content["budget"]),
            armlet=content["best"]["armlet"],
            interrupted=content["interrupted"],
            trials=[TrialResult.from_dict(row) for row in content["trials"]],
            searched=content["map"]["names"],
            mapped=content["map"]["trials"],
        )

    def to_dict(self) -> Facts:
        """The content of study.json."""
        return {
            "arguments": asdict(self.arguments),
            "engine": self.engine,
            "study": self.space,
            **self.summary(),
            "interrupted": self.interrupted,
            "trials": [trial.to_dict() for trial in self.trials],
            "map": {"names": self.searched, "trials": self.mapped},
        }

    def summary(self) -> Facts:
        """The "study" of a confirmation's report.json: the setting and where it comes from."""
        return {
            "best": {**best(self.trials).to_dict(), "armlet": self.armlet},
            "budget": asdict(self.budget),
            "tasks": [asdict(task) for task in self.tasks],
        }

    def map(self) -> SearchMap | None:
        """The sensitivity map; None where a single setting was searched."""
        if len(self.searched) != 2:
            return None
        tasks = ", ".join(task.name for task in self.tasks)
        title = f"{self.space['treatment']['policy']} on the tuning items of {tasks}"
        return SearchMap([self.trials[number] for number in self.mapped], *self.searched, title=title)
