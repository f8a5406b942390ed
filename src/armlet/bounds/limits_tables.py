"""The output of `armlet limits`: tables of headroom and limits, and what they say in sentences."""

from collections.abc import Sequence
from math import log2

from rich.table import Table

from armlet.attachment.sites import GATE, PRODUCT, UP
from armlet.bounds.extremes import RESIDUAL
from armlet.bounds.formats import INT8_STATIC, MAXIMA
from armlet.bounds.limits_rows import LayerHeadroom, LimitRow, LimitSet
from armlet.presentation.numbers import DASH, percent, three_digits
from armlet.presentation.tables import titled_table

SHOWN_QUANTITIES = (GATE, UP, PRODUCT, RESIDUAL)
SHOWN_FORMATS = (*MAXIMA, INT8_STATIC)

HEADROOM_USE = (
    "log2 of the format's largest number over the layer's largest value; negative: it overflows. nvfp4: with a tensor "
    "scale of 1. q8_1 sum: of the sums of 32 values that llama.cpp stores as float16. int8 static: the calibration "
    "text's maximum over the held-out text's. nvfp4 zeros: share of values that become 0 though they are not, if "
    "the tensor scale fits the calibration text; nvfp4 lost: share of values that do so because their block's scale "
    "becomes 0."
)
LIMITS_USE = (
    "Ratios of perplexity to the model without limits, with 95 % intervals; calibration: chosen by this. owed: ratio "
    "of all limits to all but this one."
)
CLAMP_USE = (
    "swiglu_limits in limits.json, for all and for the recommended limits: those that are clips at the site gate, 0 "
    "for the other layers: the maximum of a clamp of the activated gate, after SiLU. A clamp with a maximum only is "
    "the same where the limit is at least 0.28, as SiLU is never lower than -0.28."
)


def limits_tables(headroom: Sequence[LayerHeadroom], rows: Sequence[LimitRow], bound: float) -> list[Table]:
    """The tables of largest values, of headroom, and of limits if a layer needs one."""
    return [values_table(headroom), headroom_table(headroom), *([rows_table(rows, bound)] if rows else [])]


def values_table(rows: Sequence[LayerHeadroom]) -> Table:
    """The largest magnitudes of each layer, and the token of the largest product."""
    table = titled_table(
        "Largest magnitudes, held-out text", ["layer", *SHOWN_QUANTITIES, "product's token\nwindow:position"]
    )
    table.columns[0].justify, table.columns[-1].justify = "right", "left"
    for row in rows:
        cells = (three_digits(row.peaks[name].value) if name in row.peaks else DASH for name in SHOWN_QUANTITIES)
        table.add_row(str(row.layer), *cells, row.peaks[PRODUCT].where)
    return table


def headroom_table(rows: Sequence[LayerHeadroom]) -> Table:
    """The headroom of the product in each format, in bits, and what NVFP4 stores as 0."""
    headings = ["layer", *(name.replace(" ", "\n") for name in SHOWN_FORMATS), "nvfp4\nzeros", "nvfp4\nlost"]
    table = titled_table("Headroom of the product in bits, held-out text", headings, HEADROOM_USE)
    table.columns[0].justify = "right"
    for row in rows:
        factors = row.headroom()
        bits = (_one_decimal(log2(factors[name])) if name in factors else DASH for name in SHOWN_FORMATS)
        table.add_row(str(row.layer), *bits, percent(row.zeros), percent(row.lost))
    return table


def _one_decimal(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}"  # zero has no sign


def rows_table(rows: Sequence[LimitRow], bound: float) -> Table:
    """The limit of each layer that needs one."""
    clamps = any((row.limit.site, row.limit.curve) == (GATE, "clip") for row in rows)
    headings = ("layer", "limit", "recommended", "largest\nbefore", "after\nall", "calibration", "alone", "owed")
    title = f"Limits that keep every product within {bound:g}, held-out text"
    table = titled_table(title, headings, f"{LIMITS_USE} {CLAMP_USE}" if clamps else LIMITS_USE)
    table.columns[0].justify, table.columns[1].justify = "right", "left"
    for row in rows:
        after = f"{three_digits(row.after)}{'' if row.within else ' over'}"
        ratios = (f"{row.calibration:.4f}", row.alone.describe(4), row.owed.describe(4))
        chosen = "yes" if row.recommended else "no"
        table.add_row(str(row.limit.layer), str(row.limit), chosen, three_digits(row.before), after, *ratios)
    return table


def limits_sentences(
    rows: Sequence[LimitRow],
    everything: LimitSet | None,
    recommended: LimitSet | None,
    bound: float,
    max_cost: float,
) -> list[str]:
    """What the tables say: what all limits cost, and to which layers that is owed; then what is recommended."""
    if everything is None:
        return []
    if not everything.layers:
        over = f"; {_largest(everything, everything.over)} does on held-out text" if everything.over else ""
        return [f"No layer needs a limit: no product on calibration text, times the margin, exceeds {bound:.6g}{over}"]
    lines = [f"all limits, {_layers(everything.layers)}: {_cost(everything)}; {_within(everything, bound)}"]
    lines += _shares(rows)
    if recommended is None:
        return lines
    left_out = [layer for layer in everything.layers if layer not in recommended.layers]
    measured = f"{_cost(recommended)}; {_within(recommended, bound)}"
    names = _layers(recommended.layers)
    lines.append(f"recommended, {names}: {measured}" if names else "recommended: none; every limit costs too much")
    reason = f"its limit costs more than {100 * max_cost:g} % on calibration text, alone or with the others"
    return lines + [f"left out, {_layers([layer])}: needs a scale or a wider type, as {reason}" for layer in left_out]


def _layers(layers: Sequence[int]) -> str:
    return f"layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}" if layers else ""


def _cost(chosen: LimitSet) -> str:
    return f"perplexity {chosen.perplexity:.4g}, {chosen.cost.describe(4)} times that without limits"


def _within(chosen: LimitSet, bound: float) -> str:
    if not chosen.over:
        return f"every product is within {bound:g}"
    return f"over {bound:g} stays {_largest(chosen, chosen.over)}"


def _largest(chosen: LimitSet, layers: Sequence[int]) -> str:
    return "; ".join(f"layer {layer}: {three_digits(chosen.largest[layer])}" for layer in layers)


def _shares(rows: Sequence[LimitRow]) -> list[str]:
    shares = sorted((row for row in rows if row.share is not None), key=lambda row: -(row.share or 0))
    parts = [f"layer {row.limit.layer} {100 * (row.share or 0):.1f} %" for row in shares]
    return (
        [f"  share of that cost, in nats, which is saved without the layer's limit: {', '.join(parts)}"]
        if parts
        else []
    )
