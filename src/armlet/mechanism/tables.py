"""The tables that the terminal shows of an explanation."""

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from armlet.mechanism.measure import CLAIMS, QUANTITIES
from armlet.mechanism.result import NO_TREATMENT, ClassShare, Explanation, QuantityChange
from armlet.presentation.numbers import short_number
from armlet.prompts.fillers import RANDOM_SENTENCE

INTERVALS_NOTE = "95 % intervals of the change; of the value where 'without' is -"

FEW_PROMPTS = 8
"""Fewer prompts give bootstrap intervals that are known to be too narrow."""


def explanation_table(explanation: Explanation, kind: str, title: str) -> Table:
    """What one filler and the control change in the first layer, at the highest count. Fits 80 columns.

    Args:
        explanation: of the run.
        kind: of the filler.
        title: above the table.
    """
    setup, layer = explanation.setup, explanation.findings[0].layer
    count = max(filler.count for filler in setup.fillers)
    shown = {
        (change.filler, change.quantity): change
        for change in explanation.quantities
        if (change.layer, change.count) == (layer, count)
    }
    table = _titled(title)
    claimed = ["paper"] if layer == 0 else []  # the paper's claims are about the first layer alone
    for heading in ("quantity", "without", f"{count} × {kind!r}", RANDOM_SENTENCE, *claimed):
        table.add_column(Text(heading), justify="left" if heading == "quantity" else "right", no_wrap=True)
    for name in QUANTITIES:
        change = shown[kind, name]
        cells = (_bounds(shown[filler, name]) for filler in (kind, RANDOM_SENTENCE))
        claims = (_claim(CLAIMS.get(name, 0), change) for _ in claimed)
        table.add_row(name, _number_or_dash(change.without), *cells, *claims)
    prompts = len(setup.prompts)
    rough = [f"{prompts} prompts: intervals are too narrow"] if prompts < FEW_PROMPTS else []
    table.caption, table.caption_justify = Text("\n".join([INTERVALS_NOTE, *rough])), "left"
    return table


def classes_table(explanation: Explanation, title: str) -> Table:
    """The near-zero share of each class of tokens in the first layer, untreated and against other words."""
    layer = explanation.findings[0].layer
    table = _titled(title)
    claimed = ["paper"] if layer == 0 else []
    for heading in ("class", "tokens", "near-zero share", "against other", *claimed):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for share in explanation.classes:
        if (share.layer, share.treatment) == (layer, NO_TREATMENT):
            cells = [_bounds(share), *(_claim(1, share, "higher") for _ in claimed)]
            compared = cells if share.name != share.against else [""] * len(cells)
            table.add_row(share.name, str(share.tokens), _number_or_dash(share.share), *compared)
    return table


def _titled(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)


def _bounds(record: QuantityChange | ClassShare) -> str:
    """The interval, signed where it is that of a change."""
    if record.low is None:
        return "-"
    signed = isinstance(record, ClassShare) or record.interval_of == "change"
    return f"{_number_or_dash(record.low, signed=signed)} to {_number_or_dash(record.high, signed=signed)}"


def _claim(sign: int, record: QuantityChange | ClassShare, verb: str = "") -> str:
    """What the paper claims, 1 up or −1 down, and whether the interval confirms it; "" where it claims nothing."""
    if not sign:
        return ""
    verdict = "?"
    if record.low is not None and record.high is not None:
        low, high = sorted((sign * record.low, sign * record.high))
        verdict = "yes" if low > 0 else "no" if high < 0 else "?"
    return f"{verb or ('rises' if sign > 0 else 'falls')}: {verdict}"


def _number_or_dash(value: float | None, *, signed: bool = False) -> str:
    return "-" if value is None else short_number(value, signed=signed)
