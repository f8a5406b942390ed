"""The tables of `armlet explain`."""

from math import isnan

from rich.table import Table

from armlet.mechanism.measure import CLAIMS, QUANTITIES
from armlet.mechanism.result import NO_TREATMENT, ClassShare, Explanation, QuantityChange
from armlet.presentation.numbers import short_number, with_count
from armlet.presentation.terminal import titled_table
from armlet.prompts.fillers import RANDOM_SENTENCE

INTERVALS_NOTE = "95 % intervals of the change; of the value where 'without' is -"
FEW_PROMPTS = 8  # bootstrap intervals are too narrow with fewer prompts


def _columns(layer: int) -> slice:
    return slice(None if layer == 0 else -1)  # the last is the paper's claims, which are only about the first layer


def explanation_table(explanation: Explanation, kind: str, title: str) -> Table:
    """Changes by filler of one kind and by the control in the first layer, at the highest count. Fits 80 columns."""
    setup, layer = explanation.setup, explanation.findings[0].layer
    count = max(filler.count for filler in setup.fillers)
    changes = {(c.filler, c.quantity): c for c in explanation.quantities if (c.layer, c.count) == (layer, count)}
    prompts = with_count(len(setup.prompts), "prompt")
    few = f"\n{prompts}: intervals are too narrow" if len(setup.prompts) < FEW_PROMPTS else ""
    headings = ("quantity", "without", f"{count} × {kind!r}", RANDOM_SENTENCE, "paper")
    columns = _columns(layer)
    table = titled_table(title, headings[columns], caption=INTERVALS_NOTE + few)
    for name in QUANTITIES:
        change, fillers = changes[kind, name], (kind, RANDOM_SENTENCE)
        bounds = (_bounds(changes[filler, name], signed=not isnan(change.without)) for filler in fillers)
        cells = (name, short_number(change.without), *bounds, _claim(CLAIMS.get(name, 0), change))
        table.add_row(*cells[columns])
    return table


def classes_table(explanation: Explanation, title: str) -> Table:
    """The near-zero share of each class of tokens in the first layer, untreated and against other words."""
    layer = explanation.findings[0].layer
    columns = _columns(layer)
    table = titled_table(title, ("class", "tokens", "near-zero share", "against other", "paper")[columns])
    for share in explanation.classes:
        if (share.layer, share.treatment) == (layer, NO_TREATMENT):
            comparison = ("", "") if share.name == share.against else (_bounds(share), _claim(1, share, "higher"))
            table.add_row(*(share.name, str(share.tokens), short_number(share.share), *comparison)[columns])
    return table


def _bounds(record: QuantityChange | ClassShare, *, signed: bool = True) -> str:
    low, high = (short_number(bound, signed=signed) for bound in (record.low, record.high))
    return "-" if isnan(record.low) else f"{low} to {high}"


def _claim(sign: int, record: QuantityChange | ClassShare, verb: str = "") -> str:
    """The paper's claim, 1 up or −1 down, and whether the interval confirms it; "" if the paper makes no claim."""
    if not sign:
        return ""
    low, high = sorted((sign * record.low, sign * record.high))
    verdict = "yes" if low > 0 else "no" if high < 0 else "?"
    return f"{verb or ('rises' if sign > 0 else 'falls')}: {verdict}"
