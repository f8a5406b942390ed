"""The result of `quantize`: perplexities of every scheme and method, the worst layers, and a contraction."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from armlet.attachment.config import describe, setting_file
from armlet.precision.measure import Contraction
from armlet.precision.plan import PrecisionPlan
from armlet.precision.rows import LayerRow, MethodRow, contraction_setting
from armlet.precision.tables import precision_tables
from armlet.presentation.arguments import output_folder
from armlet.presentation.files import write_json
from armlet.presentation.result import Result
from armlet.redistribution.noise import Noise

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class Precision(Result):
    """The cost of few bits at the input of `down`, by scheme and method, and in each layer."""

    source: str  # name of the model
    plan: PrecisionPlan
    dtype: str  # dtype of the model's weights
    folder: Path  # the run folder, in which the same call resumes
    rows: Sequence[MethodRow]  # the unrounded model first, then every method at each complete scheme
    layers: Sequence[LayerRow]
    contraction: Contraction | None  # the chosen contraction; None if none lowers the loss within the limit
    headline: Sequence[str]  # where alternatives do better, and how much armlet's methods recover
    cautions: Sequence[str]  # warnings about the use of the contraction
    interrupted: bool  # whether Ctrl-C left out schemes

    def tables(self) -> list[Table]:
        """The tables of methods, of the distribution in each layer if its scheme is complete, and of worst layers."""
        return precision_tables(self.rows, self.layers)

    def sentences(self) -> list[str]:
        """The headline, and the chosen contraction with its cautions."""
        chosen = [f"setting: {contraction_setting(self.contraction)}"] if self.contraction else []
        return [*self.headline, *chosen, *(f"  {caution}" for caution in self.cautions)]

    def figure(self) -> "Figure":
        """Perplexities at two schemes, and damage and distribution in each layer."""
        from armlet.precision.figures import draw_precision

        return draw_precision(self.rows, self.layers)

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        source = {"source": self.source, "dtype": self.dtype, "data": self.plan.origin()}
        messages = {"interrupted": self.interrupted, "headline": self.headline, "cautions": self.cautions}
        layers, rows = ([row.to_dict() for row in table] for table in (self.layers, self.rows))
        options = {**self.plan.measured(), "seed": self.plan.seed}
        return deepcopy({**source, **options, **messages, "layers": layers, "rows": rows})

    def save(self, directory: str | Path) -> list[Path]:
        """Writes quantize.png, quantize.svg, quantize.json, and the contraction as armlet.json.

        Raises ArgumentError, and writes nothing, if the directory has an armlet.json that is not this result's: it is
        neither replaced nor left beside a result that it does not belong to.
        """
        setting = save_setting(self.contraction, output_folder("directory", directory))
        return [*setting, *self._write(directory, "quantize", key="figures", setting=list(map(str, setting)))]


def save_setting(contraction: Contraction | None, folder: Path) -> list[Path]:
    """Writes armlet.json for a contraction, if there is one, and returns its path.

    Raises ArgumentError if there is another armlet.json. A run always has the same contraction, also when resumed, so
    the file is not of this run.
    """
    if contraction is None:
        setting_file(folder)
        return []
    content = describe(contraction.policy, contraction.layers, contraction.scope, Noise(0), contraction.site)
    return [write_json(setting_file(folder, content), content)]
