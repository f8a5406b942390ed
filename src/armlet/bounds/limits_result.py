"""The result of `limits`: the headroom of each layer, the limits that it needs, and what they cost."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from armlet.attachment.config import setting_file
from armlet.attachment.placements import Placement, placements_content, read_placements
from armlet.bounds.formats import VALUE_BOUNDS
from armlet.bounds.limits_measure import Limit, describe_gate, limit_placements
from armlet.bounds.limits_plan import LimitsPlan
from armlet.bounds.limits_rows import LayerHeadroom, LimitRow, LimitSet
from armlet.bounds.limits_tables import limits_sentences, limits_tables
from armlet.presentation.arguments import output_folder
from armlet.presentation.files import write_json
from armlet.presentation.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class Limits(Result):
    """The largest values of each layer against number formats, and the limits that keep products inside one."""

    source: str  # name of the model
    plan: LimitsPlan
    dtype: str  # dtype of the model's weights
    folder: Path  # the run folder, in which the same call resumes
    bound: float  # what no product may exceed: the format's bound on a value over the headroom
    layers: Sequence[LayerHeadroom]
    rows: Sequence[LimitRow]  # one for each layer that needs a limit
    everything: LimitSet | None  # all limits together; None if Ctrl-C came before
    recommended: LimitSet | None  # those that cost no more than allowed on calibration text; None likewise
    interrupted: bool  # whether Ctrl-C left out measurements

    def tables(self) -> list[Table]:
        """The tables of largest values, of headroom, and of limits if a layer needs one."""
        return limits_tables(self.layers, self.rows, self.bound)

    def sentences(self) -> list[str]:
        """What all limits cost, and to which layers that is owed; then which are recommended, and which are not."""
        return limits_sentences(self.rows, self.everything, self.recommended, self.bound, self.plan.max_cost)

    def figure(self) -> "Figure":
        """Largest values by layer, and the product's headroom before and after limits."""
        from armlet.bounds.limits_figures import draw_limits

        sets = {"all limits": self.everything, "recommended limits": self.recommended}
        measured = {label: chosen for label, chosen in sets.items() if chosen and chosen.layers}
        return draw_limits(self.layers, measured, self.plan.format, VALUE_BOUNDS[self.plan.format], self.bound)

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        source = {"source": self.source, "dtype": self.dtype, "data": self.plan.origin()}
        options = {**self.plan.measured(), "seed": self.plan.seed, "bound": self.bound}
        layers, rows = ([row.to_dict() for row in table] for table in (self.layers, self.rows))
        sets = {"all": self.everything, "recommended": self.recommended}
        together = {name: chosen and self._described(chosen) for name, chosen in sets.items()}
        content = {**source, **options, "interrupted": self.interrupted, "layers": layers, "limits": rows}
        return deepcopy({**content, **together})

    def _described(self, chosen: LimitSet) -> dict[str, object]:
        clamps = describe_gate(chosen.limits, len(self.layers))
        placements = [placement.content() for placement in placed(chosen.limits)]
        return {**chosen.to_dict(), "placements": placements, "swiglu_limits": clamps}

    def save(self, directory: str | Path) -> list[Path]:
        """Writes limits.png, limits.svg, limits.json, and the recommended limits as armlet.json.

        Raises ArgumentError, and writes nothing, if the directory has an armlet.json that is not this result's.
        """
        limits = self.recommended.limits if self.recommended else ()
        content = [placements_content(placed(limits))] if limits else []
        path = setting_file(output_folder("directory", directory), *content)
        setting = [write_json(path, content[0])] if limits else []
        return [*setting, *self._write(directory, "limits", key="figures", setting=list(map(str, setting)))]


def placed(limits: Sequence[Limit]) -> list[Placement]:
    """The limits as placements of an attachment."""
    return read_placements(limit_placements(limits)) if limits else []
