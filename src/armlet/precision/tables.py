"""The output of `armlet quantize`: the headline, cautions about the contraction, and the tables."""

from collections.abc import Sequence

from rich.table import Table

from armlet.precision.choice import COMPANDED, COMPANDED_STATIC, CONTRACT, OURS, ROUNDED, WORST_KEPT
from armlet.precision.measure import Contraction
from armlet.precision.rows import LayerRow, MethodRow, rows_with
from armlet.precision.schemes import REFERENCES, QuantScheme
from armlet.presentation.tables import titled_table
from armlet.statistics.perplexity import PerplexityRatio

SHORT_NAMES = {
    ROUNDED: "nearest",
    "percentile clip": "perc.\nclip",
    "MSE clip": "MSE\nclip",
    "SmoothQuant": "Smooth\nQuant",
    "Hadamard rotation": "Hadamard",
    WORST_KEPT: "worst\nkept",
    COMPANDED: "compand",
    COMPANDED_STATIC: "static\nknee",
    CONTRACT: "contract",
}
"""Names of methods, of whole words, and short enough for nine columns and the scheme to fit into 80 characters."""

SHOWN_MEASURES = {"sqnr": "SQNR", "max_over_median": "max/med", "kurtosis": "kurtosis", "saturated": "saturated"}

STATIC = QuantScheme("int8", "static")  # saturation is shown for this scheme: only a fixed range saturates often

USE = (
    "compand and static knee are codes for storing and sending: no integer matmul supports them. "
    "Clips and contract change the function."
)
"""Caption of the table of methods."""


def precision_tables(rows: Sequence[MethodRow], layers: Sequence[LayerRow]) -> list[Table]:
    """The tables of methods, of the distribution in each layer if its scheme is complete, and of the worst layers."""
    shapes = [shape_table(rows)] if rows_with(rows, REFERENCES[0]) else []
    return [methods_table(rows), *shapes, layers_table(layers)]


def methods_table(rows: Sequence[MethodRow]) -> Table:
    """Held-out perplexities, schemes × methods; "none" is the unrounded model, without and with the contraction."""
    methods = list(dict.fromkeys(row.method for row in rows if row.scheme))
    title = f"Perplexity by scheme and method; full precision {short_perplexity(rows[0].perplexity)}"
    table = titled_table(title, ["scheme", *(SHORT_NAMES[method] for method in methods)], USE)
    for scheme in dict.fromkeys(row.scheme for row in rows):
        cells = {method: short_perplexity(row.perplexity) for method, row in rows_with(rows, scheme).items()}
        table.add_row(str(scheme or "none"), *(cells.get(method, "") for method in methods))
    return table


def layers_table(rows: Sequence[LayerRow]) -> Table:
    """The most damaging layers, worst first, and the best contraction for each."""
    scheme = REFERENCES[0]
    title = f"Worst layers, one at a time: ratios of perplexity, rounded ({scheme}), contracted, both"
    headings = ("layer", "rounded\n/ full", "contr.\n/ full", "both /\nrounded [95 %]", "contraction")
    table = titled_table(title, headings)
    table.columns[0].justify, table.columns[-1].justify = "right", "left"
    for row in sorted((row for row in rows if row.tried), key=lambda row: row.damage[scheme], reverse=True):
        effect = [f"{row.cost.ratio:.4f}", row.gain.describe(3)] if row.cost and row.gain else ["-", "-"]
        table.add_row(str(row.layer), f"{row.damage[scheme]:.4f}", *effect, row.setting or "none helps within limit")
    return table


def shape_table(rows: Sequence[MethodRow]) -> Table:
    """The distribution and the rounding error in each layer, rounded to nearest and companded."""
    scheme, methods = REFERENCES[0], (ROUNDED, COMPANDED)
    headings = [f"{name}\n{SHORT_NAMES[method]}" for name in SHOWN_MEASURES.values() for method in methods]
    title = f"Layers at {scheme}: {methods[0]}, and {methods[1]}; saturated: at {STATIC}"
    table = titled_table(title, ["layer", *headings])
    table.columns[0].justify = "right"
    at_scheme, at_static = rows_with(rows, scheme), rows_with(rows, STATIC)
    for layer in at_scheme[ROUNDED].outcome.layers:
        stats = [
            (at_static if name == "saturated" else at_scheme)[method].outcome.layers[layer].get(name)
            for name in SHOWN_MEASURES
            for method in methods
        ]
        table.add_row(str(layer), *("-" if value is None else f"{value:.3g}" for value in stats))
    return table


def short_perplexity(value: float) -> str:
    """The perplexity in six characters at most; four decimals below 2, as abacus needs."""
    if value < 2:
        return f"{value:.4f}"
    if value < 1000:
        return f"{value:.2f}"
    return f"{value:,.0f}" if value < 99_999 else f"{value:.1e}".replace("e+0", "e").replace("e+", "e")


def told_apart(value: float, other: float) -> tuple[str, str]:
    """Two perplexities as `short_perplexity` writes them, or with the fewest decimals that tell them apart."""
    texts = short_perplexity(value), short_perplexity(other)
    if value == other or texts[0] != texts[1]:
        return texts
    decimals = next((count for count in range(1, 17) if f"{value:.{count}f}" != f"{other:.{count}f}"), 17)
    return f"{value:.{decimals}f}", f"{other:.{decimals}f}"


def headline(rows: Sequence[MethodRow], seed: int = 0) -> list[str]:
    """Lists where simple alternatives do better than armlet's own methods, then how much each of these recovers."""
    schemes = list(dict.fromkeys(row.scheme for row in rows if row.scheme))
    ours = [name for name in (COMPANDED, CONTRACT) if any(row.method == name for row in rows)]
    beaten = [line for name in ours for line in _beaten([rows_with(rows, scheme) for scheme in schemes], name, seed)]
    recovered = [_recovered(rows, scheme, name) for scheme in REFERENCES for name in ours if scheme in schemes]
    return [*beaten, *recovered, *_below_full([row for row in rows if row.scheme])]


def _beaten(by_scheme: Sequence[dict[str, MethodRow]], name: str, seed: int) -> list[str]:
    """Lists the schemes at which an alternative is better than `name`, first those at which the interval shows it.

    Then it lists those at which rounding to nearest is better too but is not the best alternative.
    """
    significant, unsure, nearest = list[str](), list[str](), list[str]()
    for rows in by_scheme:
        row, rounded = rows[name], rows[ROUNDED]
        best = min((rows[rival] for rival in rows if rival not in OURS), key=lambda row: row.perplexity)
        if best.perplexity < row.perplexity:
            (significant if _is_lower(best, row, seed) else unsure).append(_better(best, row))
        if rounded is not best and rounded.perplexity < row.perplexity and _is_lower(rounded, row, seed):
            nearest.append(_better(rounded, row))
    first = f"An alternative is shown to do better than {name} at {len(significant)} of {len(by_scheme)} schemes"
    lines = [f"{first}: {'; '.join(significant)}" if significant else first]
    lines += [f"  better, but within the interval, at {len(unsure)}: {'; '.join(unsure)}"] if unsure else []
    return lines + ([f"  and so does round to nearest, at {len(nearest)}: {'; '.join(nearest)}"] if nearest else [])


def _better(best: MethodRow, row: MethodRow) -> str:
    return f"{best.scheme}, {best.method} ({' against '.join(told_apart(best.perplexity, row.perplexity))})"


def _is_lower(row: MethodRow, other: MethodRow, seed: int) -> bool:
    """Whether the interval shows that the perplexity of `row` is lower than the perplexity of `other`."""
    return (PerplexityRatio.between(other.outcome.losses, row.outcome.losses, seed).high or 1) < 1


def _recovered(rows: Sequence[MethodRow], scheme: QuantScheme, name: str) -> str:
    row, nearest = (rows_with(rows, scheme)[method] for method in (name, ROUNDED))
    share = "" if row.recovered is None else f", {100 * row.recovered:.1f} % of the gap recovered"
    against = f"{row.against_full.describe(4)} times full precision's {short_perplexity(rows[0].perplexity)}"
    change = " instead of ".join(told_apart(row.perplexity, nearest.perplexity))
    return f"{scheme}, {name} ({row.setting}): {change}{share}; {against}"


def _below_full(rows: Sequence[MethodRow]) -> list[str]:
    """A warning if rounding makes the model better on the text."""
    below = [row for row in rows if (row.against_full.high or 1) < 1]
    warning = (
        f"Perplexity is below full precision's, by the interval, in {len(below)} of {len(rows)} cells of the table: "
        "the model does not suit this text, so the best method on it may not be the best at rounding"
    )
    return [warning] if below else []


def cautions(rows: Sequence[MethodRow], contraction: Contraction, limit: float, seed: int = 0) -> list[str]:
    """Warnings about the use of the contraction that was chosen under `limit`."""
    cost, lines = rows_with(rows, None)[CONTRACT].against_full.ratio - 1, list[str]()
    rounded = rows_with(rows, REFERENCES[0])
    if cost > limit:
        lines.append(f"unrounded it costs {100 * cost:.1f} % on held-out text, over the limit met on calibration text")
    if CONTRACT in rounded and not _is_lower(rounded[CONTRACT], rounded[ROUNDED], seed):
        lines.append(f"held-out text shows no gain from it at {REFERENCES[0]}")
    if contraction.scope == "sequence":
        lines.append(
            "it uses whole sequences: measured for prompts and scoring, not for decoding token by token, and vLLM does "
            "not serve it"
        )
    return lines
