"""The result of `bench`: tables, figure, JSON and files."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from armlet.cost.findings import Measurements
from armlet.cost.tables import cost_tables
from armlet.presentation.result import Result
from armlet.redistribution.policies import without_effect

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class Cost(Measurements, Result):
    """The time that ARM costs: of its function, and of a model with and without ARM."""

    def tables(self) -> list[Table]:
        """The tables of the function and of the model, if these were measured."""
        return cost_tables(self)

    def sentences(self) -> list[str]:
        """Settings of the policy that have no effect."""
        return without_effect(self.policy)

    def figure(self) -> "Figure":
        """The times of the function, and the ratios of the model."""
        from armlet.cost.figures import draw_cost

        return draw_cost(self)

    def save(self, directory: str | Path) -> list[Path]:
        """Writes bench.png, bench.svg and bench.json."""
        return self._write(directory, "bench")
