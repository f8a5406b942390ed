"""What a search found: its trials, the sensitivity map drawn of them, and the whole study as study.json stores it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from armlet.evaluation.settings import Facts

PLAIN_FIELDS = ("trial", "layers", "items", "accuracy", "difference", "low", "high")


@dataclass(frozen=True)
class TrialResult:
    """One setting and its comparison with the baseline on the tuning items; shares are fractions.

    Args:
        trial: its number, from 0.
        values: the searched settings by name.
        layers: where ARM was attached.
        items: how many were answered.
        accuracy: with this setting.
        difference: from the baseline.
        low, high: the ends of the difference's interval; None is infinite.
    """

    trial: int
    values: Mapping[str, float]
    layers: str
    items: int
    accuracy: float
    difference: float
    low: float | None
    high: float | None

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "TrialResult":
        """Reads what `to_dict` made."""
        values = {name: value for name, value in row.items() if name not in PLAIN_FIELDS}
        return cls(values=values, **{name: row[name] for name in PLAIN_FIELDS})

    def to_dict(self) -> dict[str, Any]:
        """A row of trials.csv, with a column for each searched setting."""
        fields = asdict(self)
        return {"trial": fields.pop("trial"), **fields.pop("values"), **fields}

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return (self.low is not None and self.low > 0) or (self.high is not None and self.high < 0)


@dataclass(frozen=True)
class SearchMap:
    """The sensitivity map: the difference over a grid of two settings.

    Args:
        rows: a trial for each pair of values.
        x, y: the names of the settings.
        title: above the figure.
    """

    rows: Sequence[TrialResult]
    x: str
    y: str
    title: str

    def to_dict(self) -> Facts:
        """For report.json."""
        return {"rows": [row.to_dict() for row in self.rows], "x": self.x, "y": self.y, "title": self.title}


@dataclass(frozen=True)
class Budget:
    """What a search cost: trials, tuning items, and answers in all, the baseline's included."""

    trials: int
    items: int
    answers: int


@dataclass(frozen=True)
class BestTrial:
    """The trial with the largest difference, and its setting as the content of an armlet.json."""

    result: TrialResult
    armlet: Facts

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "BestTrial":
        """Reads what `to_dict` made."""
        return cls(TrialResult.from_dict({k: v for k, v in row.items() if k != "armlet"}), row["armlet"])

    def to_dict(self) -> Facts:
        """The trial's row with "armlet"."""
        return self.result.to_dict() | {"armlet": self.armlet}


@dataclass(frozen=True)
class StudyTask:
    """A task's tuning items."""

    name: str
    items: int
    source: Facts


@dataclass(frozen=True)
class ChosenSetting:
    """What a confirmation measures and where it comes from."""

    best: BestTrial
    budget: Budget
    tasks: Sequence[StudyTask]

    def to_dict(self) -> Facts:
        """The "study" of report.json."""
        return {
            "best": self.best.to_dict(),
            "budget": asdict(self.budget),
            "tasks": [asdict(task) for task in self.tasks],
        }


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
    """A whole study.

    Args:
        arguments: what was asked of which model.
        engine: what answered.
        space: what was searched.
        chosen: the best trial, the cost of the search, and the tasks.
        interrupted: Ctrl-C cut it short.
        trials: in the order in which they were run.
        searched: the names of the searched settings.
        mapped: the trials of the map, by number.
    """

    arguments: StudyArguments
    engine: Facts
    space: Mapping[str, Any]
    chosen: ChosenSetting
    interrupted: bool
    trials: Sequence[TrialResult]
    searched: Sequence[str]
    mapped: Sequence[int]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "StudyResult":
        """Reads the content of study.json.

        Raises:
            LookupError, TypeError: it is not that.
        """
        tasks = [StudyTask(**task) for task in content["tasks"]]
        return cls(
            arguments=StudyArguments(**content["arguments"]),
            engine=content["engine"],
            space=content["study"],
            chosen=ChosenSetting(BestTrial.from_dict(content["best"]), Budget(**content["budget"]), tasks),
            interrupted=content["interrupted"],
            trials=[TrialResult.from_dict(row) for row in content["trials"]],
            searched=content["map"]["names"],
            mapped=content["map"]["trials"],
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of study.json."""
        chosen = self.chosen.to_dict()
        return {
            "arguments": asdict(self.arguments),
            "engine": self.engine,
            "tasks": chosen["tasks"],
            "study": self.space,
            "budget": chosen["budget"],
            "interrupted": self.interrupted,
            "best": chosen["best"],
            "trials": [trial.to_dict() for trial in self.trials],
            "map": {"names": self.searched, "trials": self.mapped},
        }

    def map(self) -> SearchMap | None:
        """The sensitivity map; None where a single setting was searched."""
        if len(self.searched) != 2:
            return None
        tasks = ", ".join(task.name for task in self.chosen.tasks)
        title = f"{self.space['treatment']['policy']} on the tuning items of {tasks}"
        return SearchMap([self.trials[number] for number in self.mapped], *self.searched, title=title)
