"""The page of `explain`: a quantity by layer, by filler and by number of filler tokens, and attention with filler."""

from collections.abc import Sequence
from itertools import product
from math import isnan
from pathlib import Path
from typing import Any

from armlet.layer.layer_map import layer_map
from armlet.mechanism.figures import QUANTITY_NAMES, cell_text, kind_name, shade
from armlet.mechanism.interactive import attention_figure, counts_changes, counts_figure
from armlet.mechanism.layers import LayerFindings, Setup
from armlet.mechanism.measure import ATTENTION_QUANTITIES, GATE_QUANTITIES, QUANTITIES
from armlet.mechanism.records import QuantityChange
from armlet.presentation.numbers import short_number
from armlet.presentation.page import interactive_page
from armlet.prompts.fillers import RANDOM_SENTENCE

PARTS_OF_QUANTITIES = {
    "Attention": [*ATTENTION_QUANTITIES],
    "gate": ["gate_variance"],
    "activation": [name for name in GATE_QUANTITIES if name != "gate_variance"],
}
"""The part of the layer whose output a quantity measures."""

Records = dict[tuple[str, int, str], list[QuantityChange]]
"""The records at each count, by quantity, layer and kind of filler."""


def explanation_page(
    source: str,
    setup: Setup,
    findings: Sequence[LayerFindings],
    changes: Sequence[QuantityChange],
    *,
    activation: str,
    reading: Sequence[str],
) -> str:
    """The page as one file of HTML, which needs no network; arguments: as the fields of `Explanation`.

    Raises ArgumentError if plotly is not installed.
    """
    first, layers = findings[0], [layer.layer for layer in findings]
    kinds = [*dict.fromkeys(filler.kind for filler in setup.fillers)]
    attention = attention_figure(setup.prompts[0], setup.fillers[setup.example()], first.received)
    content = {
        "figures": {"counts": counts_figure(), "attention": attention},
        "fixed": {"attention": ["attention"]},
        "states": _states(changes, layers, kinds),
        "shades": {str(index): _cells(changes, kind) for index, kind in enumerate(kinds)},
        "parts": {"control": "quantity", "values": PARTS_OF_QUANTITIES},
    }
    return interactive_page(
        "armlet.mechanism",
        "explain.html.jinja",
        content,
        title=f"What filler tokens do in {Path(source).name}",
        sentences=[_size(setup), *reading],
        map=layer_map(layer=None, activation=activation, buttons=[*PARTS_OF_QUANTITIES]),
        groups={"attention": [*ATTENTION_QUANTITIES], "gate": [*GATE_QUANTITIES]},
        names={name: text.replace("\n", " ") for name, text in QUANTITY_NAMES.items()},
        meanings=QUANTITIES,
        layers=layers,
        kinds=[*map(kind_name, kinds)],
        count=max(filler.count for filler in setup.fillers),
        attention_title=f"Attention of the first prompt's tokens, layer {first.layer}",
    )


def _size(setup: Setup) -> str:
    tokens = len(setup.prompt_of_tokens())
    texts = f"{len(setup.prompts)} prompts, {tokens} tokens after the filler, whose position is '{setup.position}'"
    return f"{texts}. Intervals are 95 % intervals over prompts."


def _states(
    changes: Sequence[QuantityChange], layers: Sequence[int], kinds: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """What the page shows for each quantity, layer and filler."""
    records: Records = {}
    for change in changes:
        records.setdefault((change.quantity, change.layer, change.filler), []).append(change)
    return {
        f"{quantity}|{layer}|{index}": _state(records, quantity, layer, index, kind)
        for quantity, layer, (index, kind) in product(QUANTITIES, layers, enumerate(kinds))
    }


def _state(records: Records, quantity: str, layer: int, index: int, kind: str) -> dict[str, Any]:
    control = records[quantity, layer, RANDOM_SENTENCE]
    filler = records[quantity, layer, kind] if kind != RANDOM_SENTENCE else []
    name = QUANTITY_NAMES[quantity].replace("\n", " ")
    sentences = [_sentence(changes[-1]) for changes in (filler, control) if changes]
    texts = {
        "summary": f"{name}, layer {layer}: {'; '.join(sentences)}",
        "meaning": QUANTITIES[quantity],
        "counts": f"{name} in layer {layer} by number of filler tokens, with {kind_name(kind)}",
    }
    return {
        "plots": {"counts": ["counts", *counts_changes(filler, control, name)]},
        "texts": texts,
        "shades": str(index),
    }


def _sentence(change: QuantityChange) -> str:
    """The value at one count, and its change with an interval."""
    value = f"{short_number(change.filled)} with {change.count} tokens of {kind_name(change.filler)}"
    if isnan(change.change):
        return value
    low, high = (short_number(end, signed=True) for end in (change.low, change.high))
    interval = "no interval" if isnan(change.low) else f"{low} to {high}"
    return f"{value} (change {short_number(change.change, signed=True)}, {interval})"


def _cells(changes: Sequence[QuantityChange], kind: str) -> list[tuple[str, float]]:
    """The text and the shade of each cell of the table of layers × quantities, at the highest count."""
    count = max(change.count for change in changes)
    cells = [change for change in changes if (change.filler, change.count) == (kind, count)]
    return [(cell_text(cell), round(shade(cell, changes), 3)) for cell in cells]
