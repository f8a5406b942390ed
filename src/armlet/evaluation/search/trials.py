"""The trials of a search, and their sensitivity map."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from armlet.evaluation.settings import Facts
from armlet.runs.folder import Record


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
    def from_dict(cls, row: Record) -> "TrialResult":
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
