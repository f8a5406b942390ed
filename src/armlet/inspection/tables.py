"""The table that the terminal shows of an inspection."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from armlet.inspection.result import Effect, Inspection
from armlet.presentation.numbers import short_number
from armlet.statistics.shape import MEASURES


def inspection_table(inspection: Inspection, title: str) -> Table:
    """One row for each measure: before, and for each policy after and the change. Fits 80 columns."""
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
    table.add_column("measure", no_wrap=True)
    headings = _policy_headings(inspection.effects)
    for heading in ("before", *(text for name in headings for text in (name, "change"))):
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)  # a number goes below its name
    settings = (f"{name}: {effect.panel.detail}" for name, effect in zip(headings, inspection.effects, strict=True))
    table.caption, table.caption_justify = Text("\n".join(settings)), "left"
    shares = [short_number(effect.share_moved) for effect in inspection.effects]
    table.add_row("share_moved", "", *(cell for share in shares for cell in (share, "")))
    for name in MEASURES:
        cells = [short_number(inspection.before[name])]
        for effect in inspection.effects:
            cells += [short_number(effect.after[name]), short_number(effect.difference[name], signed=True)]
        table.add_row(name, *cells)
    return table


def _policy_headings(effects: Sequence[Effect]) -> list[str]:
    """The policies' names, numbered where a policy appears with several settings."""
    names = [effect.panel.name for effect in effects]
    return [f"{name} {names[: at + 1].count(name)}" if names.count(name) > 1 else name for at, name in enumerate(names)]
