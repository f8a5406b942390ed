"""The result of `explain`: what filler tokens do in each layer."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from armlet.mechanism.layers import LayerFindings, Setup
from armlet.mechanism.records import ClassShare, QuantityChange
from armlet.mechanism.tables import classes_table, quantities_table
from armlet.presentation.arguments import required_path
from armlet.presentation.files import csv_text, write_text
from armlet.presentation.result import Result
from armlet.prompts.fillers import RANDOM_SENTENCE
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.near_zero import limited_by_share
from armlet.redistribution.policies import without_effect

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("attention", "affine", "counts", "layers", "classes")
MAX_LAYERS_SHOWN = 4  # of more selected layers, only the first and the last have tables


@dataclass(frozen=True, repr=False, eq=False)
class Explanation(Result):
    """The effect of each filler in each measured layer, at least one, with 95 % intervals over prompts."""

    source: str  # name of the model
    dtype: str  # dtype asked for; "auto" is the model's
    setup: Setup
    findings: Sequence[LayerFindings]  # by layer, ascending
    quantities: list[QuantityChange]  # a record for each layer, filler and quantity
    classes: list[ClassShare]  # for each layer, class of tokens and treatment; empty if no such token is measured
    selected: bool  # whether layers were selected; False if all were measured
    interrupted: bool  # whether Ctrl-C left out layers
    reading: Sequence[str] = ()  # sentences: why the whole model was read, layers left out, what a mixture's gate is
    activation: str = "SiLU"  # label of the activation in the layer's diagram

    @property
    def layers(self) -> list[int]:
        """The measured layers, ascending."""
        return [findings.layer for findings in self.findings]

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the figures; without "classes" if no token of a question comes after the filler."""
        return FIGURES if self.classes else FIGURES[:-1]

    def to_dict(self) -> dict[str, object]:
        """For JSON: all records, and the attention that each token of the first prompt receives, as in the figure.

        "reading", if there is anything to say, is why the whole model was read, which layers were left out, and what
        the gate of a mixture of experts is.
        """
        run: dict[str, object] = {
            "layers": self.layers,
            "interrupted": self.interrupted,
            "attention": self._attention(),
        }
        run |= {"reading": [*self.reading]} if self.reading else {}
        rows, classes = ([record.to_dict() for record in records] for records in (self.quantities, self.classes))
        model = {"source": self.source, "dtype": self.dtype}
        return deepcopy({**model, **self.setup.to_dict(), **run, "rows": rows, "classes": classes})

    def _attention(self) -> dict[str, object]:
        setup, first = self.setup, self.findings[0]
        prompt, filler = setup.prompts[0], setup.fillers[setup.example()]
        # NaN for the last token, because no later token attends to it.
        without, filled = ([None if isnan(number) else number for number in s.tolist()] for s in first.received)
        place = {"layer": first.layer, "filler": filler.kind, "count": filler.count, "at": prompt.insert_at}
        return {**place, "words": prompt.words, "without": without, "with": filled}

    def tables(self, layer: int | None = None) -> list[Table]:
        """A table for each filler and one for the classes of tokens, at the highest count.

        Without `layer`, of the layers that the command shows: of all layers the first; of up to four selected ones
        each; of more the first and the last.

        Raises ArgumentError for a layer that was not measured.
        """
        if layer is not None and layer not in self.layers:
            raise ArgumentError(f"layer: expected one of {', '.join(map(str, self.layers))}, found {layer!r}")
        shown = self._shown_layers() if layer is None else [layer]
        return [table for index in shown for table in self._layer_tables(index)]

    def _shown_layers(self) -> list[int]:
        if not self.selected:
            return self.layers[:1]
        return self.layers if len(self.layers) <= MAX_LAYERS_SHOWN else [self.layers[0], self.layers[-1]]

    def _layer_tables(self, layer: int) -> list[Table]:
        place, setup = f"{self.source}, layer {layer}", self.setup
        changes = [change for change in self.quantities if change.layer == layer]
        kinds = [kind for kind in dict.fromkeys(f.kind for f in setup.fillers) if kind != RANDOM_SENTENCE]
        tables = [quantities_table(setup, changes, kind, place) for kind in kinds or [RANDOM_SENTENCE]]
        shares = [share for share in self.classes if share.layer == layer]
        return [*tables, classes_table(setup, shares, place)] if shares else tables

    def sentences(self) -> list[str]:
        """Which layers have no table, why there may be no classes, and which settings of policies had no effect."""
        layers, shown = self.layers, self._shown_layers()
        no_classes = "no word of a question follows the filler, so there are no classes to compare"
        sentences = [] if self.classes else [no_classes]
        if len(shown) < len(layers):
            names = " and ".join(map(str, shown))
            sentences.append(f"tables: layer {names}; explain.csv has all {len(layers)} measured layers")
        unused = [sentence for policy in self.setup.policies for sentence in without_effect(policy)]
        limits = [line for findings in self.findings if findings.layer in shown for line in self._limits(findings)]
        return [*self.reading, *sentences, *unused, *limits]

    def _limits(self, findings: LayerFindings) -> list[str]:
        """The policies whose band `share` limited in a layer."""
        values = findings.width * (findings.experts or 1) * len(self.setup.prompt_of_tokens())
        pairs = zip(self.setup.policies, findings.moved, strict=True)
        limits = [limited_by_share(policy, moved / values, findings.width) for policy, moved in pairs]
        return [f"layer {findings.layer}: {limit}" for limit in limits if limit]

    def figure(self, name: str = "counts") -> "Figure":
        """One of the figures: "attention", "affine", "counts", "layers" or "classes".

        "counts" shows quantities against the number of filler tokens; "layers" a value for each layer and quantity. All
        but "layers" are of the first measured layer.

        Raises ArgumentError for another name, or for "classes" if no token of a question comes after the filler.
        """
        from armlet.mechanism.figures import draw_figure

        if name not in self.figures:
            raise ArgumentError(f"figure: expected one of {', '.join(self.figures)}, found {name!r}")
        return draw_figure(name, self.setup, self.findings[0], self.quantities, self.classes)

    def save(self, directory: str | Path, *, html: bool = False) -> list[Path]:
        """Writes each figure as explain-NAME.png and .svg, explain.json, explain.csv and explain-classes.csv.

        Without classes of tokens there is neither their figure nor their table. html: also explain.html, see
        `save_html`.
        """
        figures = {f"explain-{name}": partial(self.figure, name) for name in self.figures}
        records = {"explain.csv": self.quantities, "explain-classes.csv": self.classes}
        tables = {name: csv_text([record.to_dict() for record in rows]) for name, rows in records.items() if rows}
        paths = self._write(directory, "explain", figures, key="figures", texts=tables)
        return [*paths, self.save_html(Path(directory) / "explain.html")] if html else paths

    def save_html(self, path: str | Path) -> Path:
        """Writes one page that needs no network: each quantity by layer, by filler and by number of filler tokens.

        Raises:
            ArgumentError: plotly is not installed (`pip install 'armlet[page]'`).
            WriteError: the file cannot be written.
        """
        from armlet.mechanism.page import explanation_page

        file, shown = required_path("path", path), (self.source, self.setup, self.findings, self.quantities)
        return write_text(file, explanation_page(*shown, activation=self.activation, reading=self.reading))
