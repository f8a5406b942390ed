"""What to say first about a run of `armlet quantize`, and what to know before its contraction is used."""

from collections.abc import Collection, Sequence

from armlet.precision.choice import COMPANDED, CONTRACT, OURS, REFERENCES, ROUNDED
from armlet.precision.codes import Code
from armlet.precision.findings import MethodRow, PerplexityRatio
from armlet.precision.tables import short_perplexity
from armlet.precision.trials import Contraction


def headline(rows: Sequence[MethodRow], seed: int = 0) -> list[str]:
    """First where simple alternatives do better than armlet's own methods, then what each of these recovers."""
    codes = list(dict.fromkeys(row.code for row in rows if row.code))
    ours = [name for name in (COMPANDED, CONTRACT) if any(row.method == name for row in rows)]
    beaten = [line for name in ours for line in _beaten(rows, codes, name, seed)]
    recovered = [_recovered(rows, code, name) for code in REFERENCES for name in ours if code in codes]
    return [*beaten, *recovered, *_below_full(rows)]


def _beaten(rows: Sequence[MethodRow], codes: Sequence[Code], name: str, seed: int) -> list[str]:
    """The codes at which an alternative is better than `name`: first those at which the interval shows it.

    Then those at which even rounding to nearest is better, where another alternative is better still.
    """
    alternatives = {row.method for row in rows} - set(OURS)
    shown, unsure = _better(rows, codes, name, alternatives, seed)
    nearest = [line for line in _better(rows, codes, name, {ROUNDED}, seed)[0] if line not in shown]
    first = f"An alternative is shown to do better than {name} at {len(shown)} of {len(codes)} codes"
    lines = [f"{first}: {'; '.join(shown)}" if shown else first]
    if unsure:
        lines.append(f"  and within the interval at {len(unsure)}: {'; '.join(unsure)}")
    if nearest:
        lines.append(f"  and so is doing nothing at {len(nearest)}: {'; '.join(nearest)}")
    return lines


def _better(
    rows: Sequence[MethodRow], codes: Sequence[Code], name: str, rivals: Collection[str], seed: int
) -> tuple[list[str], list[str]]:
    """Where the best of `rivals` is below `name`: as the interval of their ratio shows, and within that interval."""
    shown, unsure = list[str](), list[str]()
    for code in codes:
        by_method = {row.method: row for row in rows if row.code == code}
        best = min((by_method[rival] for rival in by_method if rival in rivals), key=lambda row: row.perplexity)
        row = by_method[name]
        if best.perplexity < row.perplexity:
            numbers = f"{short_perplexity(best.perplexity)} against {short_perplexity(row.perplexity)}"
            (shown if _is_lower(best, row, seed) else unsure).append(f"{code}, {best.method} ({numbers})")
    return shown, unsure


def _is_lower(row: MethodRow, other: MethodRow, seed: int) -> bool:
    """Whether the interval shows that the perplexity of `row` is below that of `other`."""
    high = PerplexityRatio.between(other.outcome.losses, row.outcome.losses, seed).high
    return high is not None and high < 1


def _below_full(rows: Sequence[MethodRow]) -> list[str]:
    """A warning where rounding makes the model better on the text."""
    coded = [row for row in rows if row.code]
    below = [row for row in coded if (row.against_full.high or 1) < 1]
    if not below:
        return []
    return [
        f"Perplexity is below full precision's, by the interval, in {len(below)} of {len(coded)} cells of the table: "
        "the model does not suit this text, and who is best on it says little about rounding"
    ]


def _recovered(rows: Sequence[MethodRow], code: Code, name: str) -> str:
    by_method = {row.method: row for row in rows if row.code == code}
    row, nearest, full = by_method[name], by_method[ROUNDED], rows[0]
    share = "" if row.recovered is None else f", {100 * row.recovered:.1f} % of the gap recovered"
    ratio = row.against_full
    bounds = "" if ratio.low is None else f" [{ratio.low:.4f}, {ratio.high:.4f}]"
    against = f"{ratio.ratio:.4f}{bounds} times full precision's {short_perplexity(full.perplexity)}"
    change = f"{short_perplexity(row.perplexity)} instead of {short_perplexity(nearest.perplexity)}"
    return f"{code}, {name} ({row.setting}): {change}{share}; {against}"


def cautions(rows: Sequence[MethodRow], contraction: Contraction, limit: float, seed: int = 0) -> list[str]:
    """What to know before the contraction that was chosen under `limit` is used."""
    lines = list[str]()
    cost = next(row.against_full.ratio for row in rows if (row.code, row.method) == (None, CONTRACT)) - 1
    if cost > limit:
        lines.append(
            f"unrounded it costs {100 * cost:.1f} % on held-out text, beyond the limit that it kept on calibration"
        )
    by_method = {row.method: row for row in rows if row.code == REFERENCES[0]}
    if CONTRACT in by_method and not _is_lower(by_method[CONTRACT], by_method[ROUNDED], seed):
        lines.append(f"held-out text shows no gain from it at {REFERENCES[0]}")
    if contraction.scope == "sequence":
        lines.append("it uses whole sequences: measured for prompts and scoring, not for decoding token by token")
    if (contraction.site, contraction.scope) != ("gate", "token"):
        lines.append("vLLM does not serve it; --site gate chooses among those that it does")
    return lines
