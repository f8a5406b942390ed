"""The tables of `armlet quantize`."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from armlet.precision.choice import COMPANDED, REFERENCES, ROUNDED
from armlet.precision.codes import Code
from armlet.precision.findings import LayerRow, MethodRow, PerplexityRatio, Precision

SHORT_NAMES = {
    "round to nearest": "nearest",
    "percentile clip": "perc.\nclip",
    "MSE clip": "MSE\nclip",
    "SmoothQuant": "Smooth\nQuant",
    "Hadamard rotation": "Hada-\nmard",
    "worst layers kept": "worst\nkept",
    "compand": "compand",
    "compand, static knee": "static\nknee",
    "contract or clip": "con-\ntract",
}
"""Names of methods with which nine columns and the code fit into 80 characters."""

SHOWN_MEASURES = {"sqnr": "SQNR", "max_over_median": "max/med", "kurtosis": "kurtosis", "saturated": "saturated"}

STATIC = Code("int8", "static")
"""The code for which saturation is shown: only a fixed range is exceeded by many values."""

USE = (
    "compand and static knee are codes for keeping and sending: no integer product takes them. "
    "Clips and contract change the function."
)
"""Below the table of methods."""


def precision_tables(result: Precision) -> list[Table]:
    """Methods, the distribution in each layer where its code is complete, and the worst layers."""
    tables = [methods_table(result.rows)]
    if any(row.code == REFERENCES[0] for row in result.rows):
        tables.append(shape_table(result.rows, REFERENCES[0], (ROUNDED, COMPANDED)))
    return [*tables, layers_table(result.layers)]


def methods_table(rows: Sequence[MethodRow]) -> Table:
    """Held-out perplexities, codes × methods; "none" is the unrounded model, with a contraction also another one."""
    table = _bare_table(f"Perplexity by code and method; full precision {short_perplexity(rows[0].perplexity)}")
    table.caption, table.caption_justify = Text(USE), "left"
    methods = list(dict.fromkeys(row.method for row in rows if row.code))
    table.add_column("code", no_wrap=True)
    for method in methods:
        table.add_column(SHORT_NAMES[method], justify="right", no_wrap=True)
    for code in dict.fromkeys(row.code for row in rows):
        cells = {row.method: short_perplexity(row.perplexity) for row in rows if row.code == code}
        table.add_row(str(code or "none"), *(cells.get(method, "") for method in methods))
    return table


def layers_table(rows: Sequence[LayerRow]) -> Table:
    """The most damaging layers, worst first, and the best contraction of each."""
    code = next(iter(rows[0].damage))
    tried = sorted((row for row in rows if row.tried), key=lambda row: row.damage[code], reverse=True)
    table = _bare_table(f"Worst layers, one at a time: ratios of perplexity, rounded ({code}), contracted, both")
    for heading in ("layer", "rounded\n/ full", "contr.\n/ full", "both /\nrounded [95 %]"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("contraction", no_wrap=True)
    for row in tried:
        effect = [f"{row.cost.ratio:.4f}", _with_bounds(row.gain)] if row.cost and row.gain else ["-", "-"]
        table.add_row(str(row.layer), f"{row.damage[code]:.4f}", *effect, row.setting or "none pays under the limit")
    return table


def _with_bounds(ratio: PerplexityRatio) -> str:
    bounds = "" if ratio.low is None else f" [{ratio.low:.3f}, {ratio.high:.3f}]"
    return f"{ratio.ratio:.3f}{bounds}"


def shape_table(rows: Sequence[MethodRow], code: Code, methods: tuple[str, str]) -> Table:
    """For each layer at one code, the coded values and what rounding loses, with either method."""
    by_method = {(row.code, row.method): row.outcome.layers for row in rows}
    table = _bare_table(f"Layers at {code}: {methods[0]}, and {methods[1]}; saturated: at {STATIC}")
    table.add_column("layer", justify="right")
    for heading in SHOWN_MEASURES.values():
        for method in methods:
            table.add_column(f"{heading}\n{SHORT_NAMES[method]}", justify="right", no_wrap=True)
    for layer in by_method[code, methods[0]]:
        cells = [str(layer)]
        for name in SHOWN_MEASURES:
            layers = [by_method.get((STATIC if name == "saturated" else code, method), {}) for method in methods]
            cells += ["-" if (value := stats.get(layer, {}).get(name)) is None else f"{value:.3g}" for stats in layers]
        table.add_row(*cells)
    return table


def short_perplexity(value: float) -> str:
    """Six characters at most; four decimals below 2, where the perplexities of abacus are."""
    if value < 2:
        return f"{value:.4f}"
    if value < 1000:
        return f"{value:.2f}"
    return f"{value:,.0f}" if value < 99_999 else f"{value:.1e}".replace("e+0", "e").replace("e+", "e")


def _bare_table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
