"""What the terminal shows of an explanation."""

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from armlet.mechanism.explanation import AS_IT_IS, Explanation, Row, Setup
from armlet.mechanism.measure import CLAIMS, QUANTITIES
from armlet.presentation.numbers import short_number
from armlet.prompts.fillers import RANDOM_SENTENCE

EXPLAINED = "95 % intervals of the change; where nothing stands under without, of the value"

FEW = 8
"""Prompts below which a bootstrap's intervals are known to be too narrow."""


def explanation_table(explanation: Explanation, setup: Setup, kind: str, title: str) -> Table:
    """What one filler and the control change in the first layer, at the highest count. Fits 80 columns.

    Args:
        explanation: of the run.
        setup: of the run.
        kind: of the filler.
        title: above the table.
    """
    count = max(filler.count for filler in setup.fillers)
    layer = explanation.findings[0].layer
    shown = {
        (row["filler"], row["quantity"]): row
        for row in explanation.rows
        if (row["layer"], row["count"]) == (layer, count)
    }
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
    claimed = ["paper"] if layer == 0 else []  # it speaks of the first layer alone
    for heading in ("quantity", "without", f"{count} × {kind!r}", RANDOM_SENTENCE, *claimed):
        table.add_column(Text(heading), justify="left" if heading == "quantity" else "right", no_wrap=True)
    for name in QUANTITIES:
        row = shown[kind, name]
        cells = (_bounds(shown[each, name]) for each in (kind, RANDOM_SENTENCE))
        table.add_row(name, _optional(row["without"]), *cells, *(_claim(CLAIMS.get(name, 0), row) for _ in claimed))
    rough = [f"{len(setup.prompts)} prompts: intervals are too narrow"] if len(setup.prompts) < FEW else []
    table.caption, table.caption_justify = Text("\n".join([EXPLAINED, *rough])), "left"
    return table


def classes_table(explanation: Explanation, title: str) -> Table:
    """The near-zero share of each class of tokens in the first layer, as it is and against other words."""
    layer = explanation.findings[0].layer
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
    claimed = ["paper"] if layer == 0 else []
    for heading in ("class", "tokens", "near-zero share", "against other", *claimed):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for row in explanation.classes:
        if (row["layer"], row["treatment"]) == (layer, AS_IT_IS):
            other = row["class"] == row["against"]
            cells = (
                ("", *("" for _ in claimed)) if other else (_bounds(row), *(_claim(1, row, "higher") for _ in claimed))
            )
            table.add_row(row["class"], str(row["tokens"]), _optional(row["share"]), *cells)
    return table


def _bounds(row: Row) -> str:
    """The interval, signed where it is that of a change."""
    if row["low"] is None:
        return "-"
    signed = row.get("interval_of") != "value"
    return f"{_optional(row['low'], signed=signed)} to {_optional(row['high'], signed=signed)}"


def _claim(sign: int, row: Row, verb: str = "") -> str:
    """What the paper says, 1 up or −1 down, and whether the interval bears it out; "" where it says nothing."""
    if not sign:
        return ""
    ends = [] if row["low"] is None else sorted(sign * row[end] for end in ("low", "high"))
    found = "?" if not ends or ends[0] <= 0 <= ends[1] else "yes" if ends[0] > 0 else "no"
    return f"{verb or ('rises' if sign > 0 else 'falls')}: {found}"


def _optional(value: float | None, *, signed: bool = False) -> str:
    return "-" if value is None else short_number(value, signed=signed)
