"""The result of `conform`: which clamps of the configuration are applied, and which values need them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from armlet.bounds.conform_checks import PartCheck
from armlet.bounds.conform_probe import NO, UNKNOWN
from armlet.bounds.conform_tables import conform_sentences, conform_table, failures
from armlet.presentation.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class Conformity(Result):
    """Whether what runs applies the clamps that its checkpoint was trained with."""

    source: str  # name of the model
    dtype: str  # dtype of its weights
    engine: str  # "transformers" or "vllm"
    implementation: str | None  # how transformers computes experts
    prompts: int
    tokens: int
    parts: Sequence[PartCheck]
    interrupted: bool  # whether Ctrl-C left out texts or parts

    @property
    def conforms(self) -> bool | None:
        """Whether all clamps of the configuration are applied; None if some could not be tried, and none is missing."""
        statuses = {part.status for part in self.parts} - {None}
        return False if NO in statuses else None if UNKNOWN in statuses else True

    def tables(self) -> list[Table]:
        """The largest values of each part, and whether its clamp is applied."""
        return [conform_table(self.parts, f"{self.source}, {self.dtype}")]

    def warnings(self) -> list[str]:
        """A sentence for each way in which the model does not conform, or could not be checked."""
        return failures(self.parts)

    def sentences(self) -> list[str]:
        """The warnings, or that all clamps are applied, or that the configuration has none."""
        return conform_sentences(self.parts)

    def figure(self) -> "Figure":
        """The largest values of each part, and its limit."""
        from armlet.bounds.conform_figures import draw_conformity

        return draw_conformity(self.parts)

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        names = ("source", "dtype", "engine", "implementation", "prompts", "tokens", "conforms", "interrupted")
        facts = {name: getattr(self, name) for name in names}
        return {**facts, "warnings": self.warnings(), "layers": [part.to_dict() for part in self.parts]}

    def save(self, directory: str | Path) -> list[Path]:
        """Writes conform.png, conform.svg and conform.json."""
        return self._write(directory, "conform")
