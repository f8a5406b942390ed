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

INTERVALS_NOTE = "the change with its 95 % interval; the value where 'without' is -"
CLAIMED_LAYER = 0  # the paper's claims are about this layer
FEW_PROMPTS = 8  # bootstrap intervals are too narrow with fewer prompts
FEW_PROMPTS_NOTE = (
    f"intervals of fewer than {FEW_PROMPTS} prompts are too narrow, and no claim is judged by them; "
    f"fewer than {MIN_PROMPTS} have none"
)
CLAIM_HEADING = "paper says\nconfirmed?"


def quantities_table(setup: Setup, changes: Sequence[QuantityChange], kind: str, place: str) -> Table:
    """Changes in one layer by filler of one kind and by the control, at the highest count.

    changes: the layer's records; place: model and layer, for the title.
    """
    count = max(filler.count for filler in setup.fillers)
    records = {(change.filler, change.quantity): change for change in changes if change.count == count}
    prompts, caption, claimed = len(setup.prompts), INTERVALS_NOTE, changes[0].layer == CLAIMED_LAYER
    if prompts < FEW_PROMPTS:
        narrow = "intervals are too narrow to judge a claim"
        reason = narrow if prompts >= MIN_PROMPTS else f"no intervals, which need {MIN_PROMPTS}"
        caption = f"{caption}\n{with_count(prompts, 'prompt')}: {reason}"
    # The claim stands before the control, which continues below in a narrow terminal.
    headings = ("quantity", "without", "with filler", *([CLAIM_HEADING] if claimed else []), RANDOM_SENTENCE)
    table = titled_table(f"{place}: {treatment_of(Filler(kind, count))}", headings, caption)
    for name in QUANTITIES:
        change, control = records[kind, name], records[RANDOM_SENTENCE, name]
        claim = [_claim(CLAIMS.get(name, 0), change, prompts)] if claimed else []
        table.add_row(name, short_number(change.without), _with_interval(change), *claim, _with_interval(control))
    return table


def classes_table(setup: Setup, shares: Sequence[ClassShare], place: str) -> Table:
    """The near-zero share of each class of tokens in one layer, without filler or policy, and against other words.

    shares: the layer's records; place: model and layer, for the title.
    """
    classes, prompts = setup.classes(), setup.prompt_of_tokens()
    untreated = [share for share in shares if share.treatment == NO_TREATMENT]
    counts = {share.name: len(np.unique(prompts[classes == share.name])) for share in untreated}
    caption = FEW_PROMPTS_NOTE if min(counts.values()) < FEW_PROMPTS else ""
    compared = any(share.name == share.against for share in untreated)  # whether there are other words
    claimed = compared and shares[0].layer == CLAIMED_LAYER
    headings = ["class", "tokens", "prompts", "near-zero\nshare", "against other", CLAIM_HEADING]
    columns = slice(None if claimed else -1 if compared else -2)
    caption = caption if compared else f"no other words to compare with\n{caption}"
    table = titled_table(f"{place}: classes", headings[columns], caption.rstrip())
    for share in untreated:
        fewest = min(counts[share.name], counts.get(share.against, 0))
        comparison = (_with_interval(share), _claim(1, share, fewest, "higher"))
        comparison = ("reference", "") if share.name == share.against else comparison
        numbers = (str(share.tokens), str(counts[share.name]), short_number(share.share))
        table.add_row(*(share.name, *numbers, *comparison)[columns])
    return table


def _with_interval(record: QuantityChange | ClassShare) -> str:
    """The change with its interval, if there is one; the value if the quantity is not defined without filler."""
    defined = isinstance(record, ClassShare) or record.interval_of == "change"
    value = record.change if isinstance(record, ClassShare) or defined else record.filled
    estimate, low, high = (short_number(number, signed=defined) for number in (value, record.low, record.high))
    return estimate if isnan(record.low) else f"{estimate} [{low}, {high}]"


def _claim(sign: int, record: QuantityChange | ClassShare, prompts: int, verb: str = "") -> str:
    """The paper's claim, 1 up or −1 down, and whether the interval confirms it; "" without a claim or a value.

    "?" if the interval contains 0, or is of too few prompts.
    """
    if not sign or isnan(record.change):
        return ""
    low, high = sorted((sign * record.low, sign * record.high))
    verdict = "?" if prompts < FEW_PROMPTS else "yes" if low > 0 else "no" if high < 0 else "?"
    return f"{verb or ('rises' if sign > 0 else 'falls')}: {verdict}"
