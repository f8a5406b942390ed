"""What the tables of a report say, as texts: for the page, for Markdown and for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from armlet.evaluation.conditions.conditions import BASELINE

if TYPE_CHECKING:
    from rich.table import Table

Row = Mapping[str, Any]
Cells = Sequence[str]

NOTHING = "–"

JUDGED, BOUND, PLACEBOS, MATCHED = (
    "",
    "a bound that no one can choose: any of the answers is right",
    "placebos: should do nothing; without Holm's correction",
    "against the matched placebo instead of the baseline; without Holm's correction",
)
"""Groups of comparisons, as a table is divided by them."""

VOTED = f"{BASELINE}, majority"


@dataclass(frozen=True)
class Grid:
    """A table as texts.

    Args:
        title: what it shows, short.
        headings: of the columns; the first column names a row.
        groups: rows by the line above them, "" for none.
    """

    title: str
    headings: Cells
    groups: Mapping[str, Sequence[Cells]]


def percent(share: float | None) -> str:
    """A fraction in percent."""
    return NOTHING if share is None else f"{100 * share:.1f}\u00a0%"


def points(difference: float) -> str:
    """A difference of fractions in percentage points, signed."""
    return f"{round(100 * difference, 1) + 0.0:+.1f}".replace("-", "−")


def interval(low: float | None, high: float | None) -> str:
    """An interval in percentage points; None is an infinite bound."""
    return f"[{'−∞' if low is None else points(low)}, {'+∞' if high is None else points(high)}]"


def probability(value: float | None) -> str:
    """A p-value."""
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(number: int, thing: str) -> str:
    """A number and what is counted: "1 item", "2,000 items"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def comparisons(task: Row) -> dict[str, list[Row]]:
    """A task's comparisons by their group, in the order in which they are shown."""
    groups: dict[str, list[Row]] = {JUDGED: [], BOUND: [], PLACEBOS: [], MATCHED: []}
    for row in task["comparisons"]:
        groups[_group(row)].append(row)
    return {name: rows for name, rows in groups.items() if rows}


def against_baseline(task: Row) -> list[Row]:
    """The comparisons that a forest plot shows, each with its task's heading."""
    title = f"{task['name']}: {count(task['items'], 'item')}, baseline {percent(_baseline(task)['accuracy'])}"
    return [{**row, "task": title} for name, rows in comparisons(task).items() if name != MATCHED for row in rows]


def conditions_grid(task: Row) -> Grid:
    """Accuracy of each condition and its difference from the baseline."""
    chance = ("p", "Holm's p")
    headings = ("condition", "accuracy", "difference [95 % interval], points", "gained, lost", *chance, "verdict")
    groups = {name: [_compared(row) for row in rows] for name, rows in comparisons(task).items()}
    first = [(BASELINE, percent(_baseline(task)["accuracy"]), *[""] * 5)]
    voted = _voted(task).get(BASELINE)
    first += [(VOTED, percent(voted), *[""] * 5)] if voted is not None else []
    groups[JUDGED] = first + groups.get(JUDGED, [])
    ordered = {name: groups[name] for name in (JUDGED, BOUND, PLACEBOS, MATCHED) if name in groups}
    return Grid(f"{task['name']}, {count(task['items'], 'item')}", headings, ordered)


def format_grid(task: Row) -> Grid:
    """The form of the answers, apart from whether they are right; of multiple choice, both ways to choose."""
    if task["kind"] == "choice":
        headings = ("condition", "accuracy", "length-normalised accuracy")
        rows = [
            (row["name"], percent(row["accuracy"]), percent(row["accuracy_normalised"])) for row in task["conditions"]
        ]
        return Grid(task["name"], headings, {"": rows})
    shares = ("extracted", "format_ok", "truncated")
    headings = (
        "condition",
        "extracted",
        "in the asked form",
        "truncated",
        "mean tokens",
        "distinct\u20112",
        "accuracy of those extracted",
    )
    rows = [
        (
            row["name"],
            *(percent(row[key]) for key in shares),
            NOTHING if row["tokens"] is None else f"{row['tokens']:.1f}",
            f"{row['distinct_2']:.3f}",
            percent(row["accuracy_of_extracted"]),
        )
        for row in task["conditions"]
    ]
    return Grid(task["name"], headings, {"": rows})


def samples_grid(task: Row) -> Grid | None:
    """Where there are several answers to an item: pass@k, and what a choice among them gets right."""
    several = [row for row in task["conditions"] if row["samples"] > 1 and "pass_at" in row]
    if not several:
        return None
    ks = sorted({int(k) for row in several for k in row["pass_at"]})
    chosen = {"majority": _voted(task), "likeliest": _means(task, "likeliest")}
    voted = any(row["role"] == "best-of" for row in several)  # where likelihoods are missing, that is to be seen
    chosen = {name: own for name, own in chosen.items() if own or (name == "likeliest" and voted)}
    rows = [
        (
            row["name"],
            str(row["samples"]),
            *(percent(row["pass_at"].get(str(k))) for k in ks),
            *(percent(own.get(row["name"])) for own in chosen.values()),
        )
        for row in several
    ]
    return Grid(task["name"], ("condition", "samples", *(f"pass@{k}" for k in ks), *chosen), {"": rows})


def power_grid(task: Row) -> Grid:
    """The smallest true difference that each comparison shows at 80 % power, with the variability seen."""
    rows = [
        (row["condition"], percent_points(row["smallest_detectable"]), row["test"])
        for name, own in comparisons(task).items()
        if name in (JUDGED, PLACEBOS)
        for row in own
    ]
    return Grid(task["name"], ("condition", "shown at 80 % power from", "test"), {"": rows})


def percent_points(difference: float | None) -> str:
    """A difference without a sign; None is one that no result could show."""
    return "none" if difference is None else f"{100 * difference:.1f} points"


def arm_grid(task: Row) -> Grid | None:
    """What ARM did under each condition in each layer."""
    rows = [
        (row["name"], layer, f"{own['tokens']:,}", percent(own["share_moved"]), f"{own['passed']:,}")
        for row in task["conditions"]
        for layer, own in row["arm"].items()
    ]
    headings = ("condition", "layer", "tokens", "share moved", "scopes passed through")
    return Grid(task["name"], headings, {"": rows}) if rows else None


def discordant(task: Row) -> dict[str, dict[bool, list[Row]]]:
    """Items that a condition gained (True) and lost (False), by the condition's name."""
    found: dict[str, dict[bool, list[Row]]] = {
        row["name"]: {True: [], False: []}
        for row in task["conditions"]
        if row["role"] in ("treated", "filler", "combined")
    }
    for row in task["discordant"]:
        found.setdefault(row["condition"], {True: [], False: []})[bool(row["gained"])].append(row)
    return found


def summary_tables(findings: Row) -> list["Table"]:
    """For the terminal, one table for each task; fits 80 columns."""
    return [_summary(task) for task in findings["tasks"]]


def _summary(task: Row) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    grid = conditions_grid(task)
    table = Table(title=Text(grid.title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("condition", overflow="fold")
    for heading in ("accuracy", "difference [95 %]"):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name, rows in grid.groups.items():
        if name != MATCHED:
            for row in rows:
                cells = (Text(" ".join(row[at].split())) for at in (0, 1, 2, 6))
                table.add_row(*cells, style=None if name == JUDGED else "dim")
    return table


def _group(row: Row) -> str:
    if row["judged"]:
        return JUDGED
    if row["against"] not in (BASELINE, VOTED):
        return MATCHED
    return BOUND if row["condition"].endswith(", any") else PLACEBOS


def _compared(row: Row) -> Cells:
    gained = NOTHING if row["gained"] is None else f"{row['gained']:,}, {row['lost']:,}"
    return (
        row["condition"],
        percent(row["treated_mean"]),
        f"{points(row['difference'])} {interval(*row['interval'])}",
        gained,
        probability(row["p_value"]),
        probability(row.get("p_holm")),
        NOTHING if _group(row) == BOUND else row["verdict"],
    )


def _baseline(task: Row) -> Row:
    return next(row for row in task["conditions"] if row["name"] == BASELINE)


def _voted(task: Row) -> dict[str, float]:
    """What the majority gets right, by the condition's name."""
    base = next((row["baseline_mean"] for row in task["comparisons"] if row["against"] == VOTED), None)
    return _means(task, "majority") | ({} if base is None else {BASELINE: base})


def _means(task: Row, chosen: str) -> dict[str, float]:
    ending = f", {chosen}"
    return {
        row["condition"].removesuffix(ending): row["treated_mean"]
        for row in task["comparisons"]
        if row["condition"].endswith(ending)
    }
