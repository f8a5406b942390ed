"""What the terminal shows of an inspection."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from armlet.inspection.measure import Effect, Inspection
from armlet.presentation.numbers import short_number
from armlet.statistics.shape import MEASURES, difference


def inspection_table(inspection: Inspection, title: str) -> Table:
    """One row for each measure: before, and for each policy after and the change. Fits 80 columns."""
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
    table.add_column("measure", no_wrap=True)
    headings = _headings(inspection.effects)
    for heading in ("before", *(part for name in headings for part in (name, "change"))):
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)  # a number goes below its name
    settings = (f"{heading}: {e.panel.detail}" for heading, e in zip(headings, inspection.effects, strict=True))
    table.caption, table.caption_justify = Text("\n".join(settings)), "left"
    table.add_row("share_moved", "", *(cell for e in inspection.effects for cell in (short_number(e.share_moved), "")))
    changes = [difference(inspection.before, effect.after) for effect in inspection.effects]
    for name in MEASURES:
        cells = [short_number(inspection.before[name])]
        for effect, change in zip(inspection.effects, changes, strict=True):
            cells += [short_number(effect.after[name]), short_number(change[name], signed=True)]
        table.add_row(name, *cells)
    return table


def _headings(effects: Sequence[Effect]) -> list[str]:
    """The names of the policies, numbered where one stands there with several settings."""
    names = [effect.panel.name for effect in effects]
    return [f"{name} {names[: at + 1].count(name)}" if names.count(name) > 1 else name for at, name in enumerate(names)]
