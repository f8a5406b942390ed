"""The tables of `explain`, of one layer each."""

from collections.abc import Sequence
from math import isnan

import numpy as np
from rich.table import Table

from armlet.mechanism.layers import Setup
from armlet.mechanism.measure import CLAIMS, QUANTITIES
from armlet.mechanism.records import NO_TREATMENT, ClassShare, QuantityChange, treatment_of
from armlet.presentation.numbers import short_number, with_count
from armlet.presentation.tables import titled_table
from armlet.prompts.fillers import RANDOM_SENTENCE, Filler
from armlet.statistics.intervals import MIN_PROMPTS

INTERVALS_NOTE = "95 % intervals of the change; of the value where 'without' is -"
FEW_PROMPTS = 8  # bootstrap intervals are too narrow with fewer prompts
FEW_PROMPTS_NOTE = f"intervals of fewer than {FEW_PROMPTS} prompts are too narrow; fewer than {MIN_PROMPTS} have none"


def quantities_table(setup: Setup, changes: Sequence[QuantityChange], kind: str, place: str) -> Table:
    """Changes in one layer by filler of one kind and by the control, at the highest count. Fits 80 columns.

    changes: the layer's records; place: model and layer, for the title.
    """
    count = max(filler.count for filler in setup.fillers)
    records = {(change.filler, change.quantity): change for change in changes if change.count == count}
    headings = ("quantity", "without", "with filler", RANDOM_SENTENCE, "paper")
    columns, prompts, caption = _columns(changes), len(setup.prompts), INTERVALS_NOTE
    if prompts < FEW_PROMPTS:
        none = f"no intervals, which need {MIN_PROMPTS}; explain.csv has the changes"
        reason = "intervals are too narrow" if prompts >= MIN_PROMPTS else none
        caption = f"{caption}\n{with_count(prompts, 'prompt')}: {reason}"
    table = titled_table(f"{place}: {treatment_of(Filler(kind, count))}", headings[columns], caption)
    for name in QUANTITIES:
        change, fillers = records[kind, name], (kind, RANDOM_SENTENCE)
        bounds = (_bounds(records[filler, name], signed=not isnan(change.without)) for filler in fillers)
        cells = (name, short_number(change.without), *bounds, _claim(CLAIMS.get(name, 0), change))
        table.add_row(*cells[columns])
    return table


def classes_table(setup: Setup, shares: Sequence[ClassShare], place: str) -> Table:
    """The near-zero share of each class of tokens in one layer, without filler or policy, and against other words.

    shares: the layer's records; place: model and layer, for the title.
    """
    classes, prompts, columns = setup.classes(), setup.prompt_of_tokens(), _columns(shares)
    untreated = [share for share in shares if share.treatment == NO_TREATMENT]
    counts = {share.name: len(np.unique(prompts[classes == share.name])) for share in untreated}
    headings = ("class", "tokens", "prompts", "near-zero share", "against other", "paper")
    caption = FEW_PROMPTS_NOTE if min(counts.values()) < FEW_PROMPTS else ""
    table = titled_table(f"{place}: classes", headings[columns], caption)
    for share in untreated:
        comparison = ("", "") if share.name == share.against else (_bounds(share), _claim(1, share, "higher"))
        numbers = (str(share.tokens), str(counts[share.name]), short_number(share.share))
        table.add_row(*(share.name, *numbers, *comparison)[columns])
    return table


def _columns(records: Sequence[QuantityChange | ClassShare]) -> slice:
    return slice(None if records[0].layer == 0 else -1)  # the last is the paper's claims, which are only about layer 0


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
