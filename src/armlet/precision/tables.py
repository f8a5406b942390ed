"""What the terminal shows of a run of `armlet quantize`."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

Row = dict[str, Any]

SHORT = {
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
"""Names that fit nine columns and the code into 80 letters."""

MEASURES = {"sqnr": "SQNR", "max_over_median": "max/med", "kurtosis": "kurtosis", "saturated": "saturated"}
"""What `shape_table` shows."""

STATIC = "int8 static"
"""The code at which saturation is shown: only a range that was fixed beforehand is left by many values."""

USE = (
    "compand and static knee are codes for keeping and sending: no integer product takes them. "
    "Clips and contract change the function."
)
"""Under `methods_table`."""


def methods_table(rows: Sequence[Row]) -> Table:
    """Held-out perplexities, codes × methods; not rounded, that of a contraction alone is another."""
    table = _table(f"Perplexity by code and method; full precision {short(rows[0]['perplexity'])}")
    table.caption, table.caption_justify = Text(USE), "left"
    codes = list(dict.fromkeys(row["code"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows if row["code"] != "none"))
    table.add_column("code", no_wrap=True)
    for method in methods:
        table.add_column(SHORT[method], justify="right", no_wrap=True)
    for code in codes:
        found = {row["method"]: row["perplexity"] for row in rows if row["code"] == code}
        table.add_row(code, *(short(found[method]) if method in found else "" for method in methods))
    return table


def layers_table(rows: Sequence[Row]) -> Table:
    """The layers that do the damage, worst first, and the best contraction of each."""
    code = next(name for name in rows[0] if name.startswith("damage"))
    tried = sorted((row for row in rows if row["tried"]), key=lambda row: row[code], reverse=True)
    at = code.partition(" ")[2]
    table = _table(f"Worst layers, one at a time: ratios of perplexity, rounded ({at}), contracted, both")
    headings = ("layer", "rounded\n/ full", "contr.\n/ full", "both /\nrounded [95 %]", "contraction")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == headings[-1] else "right", no_wrap=True)
    for row in tried:
        paid = row["setting"] is not None
        cells = [f"{row['cost']['ratio']:.4f}", _bounded(row["gain"])] if paid else ["-", "-"]
        table.add_row(str(row["layer"]), f"{row[code]:.4f}", *cells, row["setting"] or "none pays under the limit")
    return table


def _bounded(found: Row) -> str:
    bounds = "" if found["low"] is None else f" [{found['low']:.3f}, {found['high']:.3f}]"
    return f"{found['ratio']:.3f}{bounds}"


def shape_table(rows: Sequence[Row], code: str, methods: tuple[str, str]) -> Table:
    """Of each layer at one code, what is coded and what rounding loses: before, by the first method, and after."""
    found = {(row["code"], row["method"]): row["layers"] for row in rows}
    table = _table(f"Layers at {code}: {methods[0]}, and {methods[1]}; saturated: at {STATIC}")
    headings = [(name, heading, each) for name, heading in MEASURES.items() for each in methods]
    table.add_column("layer", justify="right")
    for _, heading, method in headings:
        table.add_column(f"{heading}\n{SHORT[method]}", justify="right", no_wrap=True)
    for layer in found[code, methods[0]]:
        sides = ((STATIC if name == "saturated" else code, method, name) for name, _, method in headings)
        cells = (found.get((at, method), {}).get(layer, {}).get(name) for at, method, name in sides)
        table.add_row(layer, *map(_optional, cells))
    return table


def _optional(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def short(value: float) -> str:
    """Six characters at most: four decimals below 2, where the perplexities of abacus are."""
    if value < 2:
        return f"{value:.4f}"
    if value < 1000:
        return f"{value:.2f}"
    return f"{value:,.0f}" if value < 99_999 else f"{value:.1e}".replace("e+0", "e").replace("e+", "e")


def _table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
