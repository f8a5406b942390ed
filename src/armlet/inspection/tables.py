"""The table of `inspect`."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from armlet.inspection.records import Effect, numbered
from armlet.presentation.numbers import short_number
from armlet.presentation.tables import titled_table
from armlet.statistics.shape import MEASURES


def inspection_table(before: Mapping[str, float], effects: Sequence[Effect], title: str) -> Table:
    """A row per measure: the value before, and per policy the value after and the change. Fits 80 columns."""
    names = numbered([effect.panel.name for effect in effects])
    headings = ["measure", "before", *(heading for name in names for heading in (name.replace(" ", "\n"), "change"))]
    settings = [f"{name}: {effect.panel.detail}" for name, effect in zip(names, effects, strict=True)]
    table = titled_table(title, headings, caption="\n".join(settings))
    table.repeated = table.together = 2  # measure and before; a policy and its change
    table.add_row("share_moved", "", *(cell for effect in effects for cell in (short_number(effect.share_moved), "")))
    for name in MEASURES:
        pairs = ((short_number(e.after[name]), short_number(e.difference[name], signed=True)) for e in effects)
        table.add_row(name, short_number(before[name]), *(cell for pair in pairs for cell in pair))
    return table
