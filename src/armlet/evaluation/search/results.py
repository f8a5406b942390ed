"""The result of a search: its trials, their sensitivity map, and the study as stored in study.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from armlet.evaluation.settings import Facts

STUDY_FILE = "study.json"


@dataclass(frozen=True)
class TrialResult:
    """One setting and its comparison with the baseline on the tuning items."""

    trial: int  # the trial's number, from 0
    values: Mapping[str, float]  # the searched settings by name
    layers: str  # the layers where ARM was attached
    items: int  # number of answered items
    accuracy: float  # with this setting, as a fraction
    difference: float  # from the baseline's accuracy, as a fraction
    low: float | None  # the bounds of the difference's interval; None means infinite
    high: float | None

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "TrialResult":
        """Reads the output of `to_dict`."""
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
    """The trial with the largest difference; the first one of equal trials."""
    return max(trials, key=lambda trial: trial.difference)


@dataclass(frozen=True)
class SearchMap:
    """The sensitivity map: the differences over a grid of two settings."""

    rows: Sequence[TrialResult]  # one trial for each pair of values
    x: str  # the names of the settings
    y: str
    title: str  # above the figure

    def to_dict(self) -> Facts:
        """The map as plain values, for report.json."""
        return {**vars(self), "rows": [row.to_dict() for row in self.rows]}


@dataclass(frozen=True)
class Budget:
    """The cost of a search: trials, tuning items, and the total number of answers, including the baseline's."""

    trials: int
    items: int
    answers: int


@dataclass(frozen=True)
class StudyTask:
    """The tuning items of a task."""

    name: str
    items: int
    source: Facts


@dataclass(frozen=True)
class StudyArguments:
    """The options of `armlet tune` that `armlet confirm` also needs, by their names."""

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


@dataclass(frozen=True, repr=False, eq=False)
class StudyResult:
    """A whole study."""

    arguments: StudyArguments  # the options of the command
    engine: Facts  # the model that answered
    space: Mapping[str, Any]  # the searched settings
    tasks: Sequence[StudyTask]
    budget: Budget
    armlet: Facts  # the best trial's setting, as the content of an armlet.json
    interrupted: bool  # Ctrl-C interrupted the search
    trials: Sequence[TrialResult]  # in the order in which they were run
    searched: Sequence[str]  # the names of the searched settings
    mapped: Sequence[int]  # the numbers of the trials on the map

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "StudyResult":
        """Reads the content of study.json; raises LookupError or TypeError for any other content."""
        if not content["trials"]:
            raise LookupError("it has no trials")
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
        """The "study" in a confirmation's report.json: the best trial, the cost and the tuning items."""
        return {
            "best": {**best(self.trials).to_dict(), "armlet": self.armlet},
            "budget": asdict(self.budget),
            "tasks": [asdict(task) for task in self.tasks],
        }

    def map(self) -> SearchMap | None:
        """The sensitivity map; None if only one setting was searched."""
        if len(self.searched) != 2:
            return None
        tasks = ", ".join(task.name for task in self.tasks)
        title = f"{self.space['treatment']['policy']} on the tuning items of {tasks}"
        return SearchMap([self.trials[number] for number in self.mapped], *self.searched, title=title)
