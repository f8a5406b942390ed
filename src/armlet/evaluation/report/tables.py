"""The tables of a report as texts, for HTML and Markdown, and a summary for the terminal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from armlet.evaluation.conditions.conditions import BASELINE
from armlet.evaluation.report.controls import control_of, identical_text
from armlet.evaluation.report.findings import (
    COMPARED_ROLES,
    ChosenAnswers,
    DiscordantItem,
    Group,
    PairedComparison,
    Report,
    Selection,
    Side,
    TaskFindings,
    WrittenAnswers,
)
from armlet.evaluation.report.sentences import FORMAT, NORMALISED, condition_settings, condition_temperature, plain
from armlet.evaluation.search.trials import SearchMap
from armlet.presentation.numbers import DASH, detectable_points, difference_text, percent, probability, with_count
from armlet.presentation.tables import titled_table

if TYPE_CHECKING:
    from rich.table import Table

Cells = Sequence[str]

GROUPS: dict[Group, str] = {
    "judged": "",
    "bound": "upper bound, which no selection can exceed: any of the answers is right",
    "placebo": "",  # each control has its own heading
    "matched": "against the matched placebo instead of the baseline",
    "zeroed": "against the zeroed placebo instead of the baseline",
}
"""The groups of comparisons in the order of a table, with the heading above each group."""

CORRECTED = "Holm's p"  # the column that is left out if there is nothing to correct

ACCURACY_COLUMNS: Mapping[str, Callable[[PairedComparison], str]] = {
    "condition": lambda pair: str(pair.treated),
    "accuracy": lambda pair: percent(pair.comparison.treated_mean),
    "difference [95 % interval], points": lambda pair: difference_text(pair.comparison.difference, *pair.interval),
    "gained, lost": lambda pair: (
        DASH if pair.comparison.gained is None else f"{pair.comparison.gained:,}, {pair.comparison.lost:,}"
    ),
    "p": lambda pair: probability(pair.comparison.p_value),
    CORRECTED: lambda pair: probability(pair.p_holm),
    "verdict": lambda pair: DASH if pair.group == "bound" else pair.verdict,
}
"""The functions that return the text of each column, by heading."""

FORM_COLUMNS: Mapping[str, Callable[[WrittenAnswers], str]] = {
    "extracted": lambda answers: percent(answers.extracted),
    "in the requested form": lambda answers: percent(answers.format_ok),
    "truncated": lambda answers: percent(answers.truncated),
    "mean tokens": lambda answers: DASH if answers.tokens is None else f"{answers.tokens:.1f}",
    "distinct\u20112": lambda answers: f"{answers.distinct_2:.3f}",
    "accuracy of extracted answers": lambda answers: percent(answers.accuracy_of_extracted),
}
"""The functions that return the text of each column except the first, by heading."""


@dataclass(frozen=True)
class Grid:
    """A table as texts."""

    title: str  # a short title
    headings: Cells  # headings of the columns; the first column names the rows
    groups: Mapping[str, Sequence[Cells]]  # rows by the heading above them, "" for none


@dataclass(frozen=True)
class Changes:
    """The discordant items of a condition."""

    condition: str
    gained: Sequence[DiscordantItem]
    lost: Sequence[DiscordantItem]

    @property
    def counts(self) -> str:
        """The numbers of gained and lost items."""
        return f"{len(self.gained):,} gained, {len(self.lost):,} lost"

    def examples(self, limit: int) -> list[DiscordantItem]:
        """The first gained and lost items, alternating."""
        turns = zip_longest(self.gained[:limit], self.lost[:limit])
        return [item for turn in turns for item in turn if item][:limit]


def grouped(task: TaskFindings) -> dict[Group, list[PairedComparison]]:
    """The comparisons of a task by group, in the order of a table, without empty groups."""
    groups: dict[Group, list[PairedComparison]] = {}
    for pair in sorted(task.comparisons, key=lambda pair: [*GROUPS].index(pair.group)):
        groups.setdefault(pair.group, []).append(pair)
    return groups


def headed(task: TaskFindings) -> dict[str, list[PairedComparison]]:
    """The comparisons of a task by the heading above them, "" for none, in the order of a table."""
    headings: dict[str, list[PairedComparison]] = {}
    for group, pairs in grouped(task).items():
        for pair in pairs:
            heading = control_of(pair.treated.condition).heading if group == "placebo" else GROUPS[group]
            headings.setdefault(heading, []).append(pair)
    return headings


def identical(task: TaskFindings, pair: PairedComparison) -> str | None:
    """The text in place of a difference for a placebo that changes nothing; None for any other condition."""
    same = task.same_as_baseline.get(pair.treated.condition)
    return None if same is None else identical_text(same, task.items)


def accuracy_grid(task: TaskFindings) -> Grid:
    """The accuracy of each condition and its difference from the baseline.

    A placebo that changes nothing has the number of identical answers instead. The column of corrected p-values is left
    out if only one comparison is tested.
    """
    left_out = None if task.planned.comparisons > 1 else CORRECTED
    columns = {name: text for name, text in ACCURACY_COLUMNS.items() if name != left_out}
    baselines = {BASELINE: task.baseline.accuracy}
    if BASELINE in (voted := _accuracies(task, "majority")):
        baselines[str(Side(BASELINE, "majority"))] = voted[BASELINE]
    groups: dict[str, list[Cells]] = {"": [_padded((name, percent(mean)), columns) for name, mean in baselines.items()]}
    for heading, pairs in headed(task).items():
        for pair in pairs:
            texts = [text(pair) for text in columns.values()]
            same = identical(task, pair)
            groups.setdefault(heading, []).append(_padded((*texts[:2], same), columns) if same else tuple(texts))
    return Grid(f"{task.name}, {with_count(task.items, 'item')}", tuple(columns), groups)


def _padded(cells: Cells, columns: Iterable[str]) -> Cells:
    """The cells of a row, with an empty one in each remaining column."""
    return tuple(text for text, _ in zip_longest(cells, columns, fillvalue=""))


def _accuracies(task: TaskFindings, selection: Selection) -> dict[str, float]:
    """The accuracy of a selection among each item's answers, by condition."""
    sides = [(pair.against, pair.comparison.baseline_mean) for pair in task.comparisons]
    sides += [(pair.treated, pair.comparison.treated_mean) for pair in task.comparisons]
    return {side.condition: accuracy for side, accuracy in sides if side.selection == selection}


def form_grid(task: TaskFindings) -> Grid:
    """The form of generated answers; for multiple choice, both accuracies."""
    headings = ("accuracy", "length-normalised accuracy") if task.kind == "choice" else tuple(FORM_COLUMNS)
    rows: list[Cells] = []
    for condition in task.conditions:
        answers = condition.answers
        if isinstance(answers, ChosenAnswers):
            cells = (percent(condition.accuracy), percent(answers.accuracy_normalised))
        else:
            cells = tuple(text(answers) for text in FORM_COLUMNS.values())
        rows.append((condition.name, *cells))
    return Grid(task.name, ("condition", *headings), {"": rows})


def samples_grid(task: TaskFindings) -> Grid | None:
    """pass@k and the accuracy of selections, if there are several answers per item."""
    several = [
        (condition, condition.answers.pass_at)
        for condition in task.conditions
        if condition.samples > 1 and isinstance(condition.answers, WrittenAnswers)
    ]
    if not several:
        return None
    ks = sorted({k for _, pass_at in several for k in pass_at}, key=int)
    voted, most_likely = _accuracies(task, "majority"), _accuracies(task, "likeliest")
    selected = {"majority": voted} if voted else {}
    if most_likely or any(condition.role == "best-of" for condition, _ in several):  # dashes if not recorded
        selected["likeliest"] = most_likely
    rows: list[Cells] = []
    for condition, pass_at in several:
        shares = [*map(pass_at.get, ks), *(accuracies.get(condition.name) for accuracies in selected.values())]
        rows.append((condition.name, str(condition.samples), *map(percent, shares)))
    return Grid(task.name, ("condition", "samples", *(f"pass@{k}" for k in ks), *selected), {"": rows})


def power_grid(task: TaskFindings) -> Grid:
    """The smallest detectable difference of each comparison, with the observed variability."""
    groups = grouped(task)
    rows = [
        (str(pair.treated), detectable_points(pair.comparison.smallest_detectable), pair.comparison.test)
        for pair in (*groups.get("judged", ()), *groups.get("placebo", ()))
        if not identical(task, pair)
    ]
    return Grid(task.name, ("condition", "smallest detectable difference (80 % power)", "test"), {"": rows})


def arm_grid(task: TaskFindings) -> Grid | None:
    """What ARM did under each condition in each layer."""
    rows = [
        (condition.name, layer, f"{activity.tokens:,}", percent(activity.share_moved), f"{activity.passed:,}")
        for condition in task.conditions
        for layer, activity in condition.arm.items()
    ]
    headings = ("condition", "layer", "tokens", "share moved", "scopes passed through")
    return Grid(task.name, headings, {"": rows}) if rows else None


def settings_grid(findings: Report) -> Grid:
    """The settings of each condition."""
    rows: list[Cells] = []
    for condition in findings.settings.conditions:
        settings, temperature = condition_settings(condition), condition_temperature(condition)
        role = control_of(condition.name).role if condition.role == "placebo" else condition.role
        rows.append((condition.name, role, settings, temperature, str(condition.samples)))
    return Grid("conditions", ("condition", "role", "settings", "temperature", "samples"), {"": rows})


def map_grid(searched: SearchMap) -> Grid:
    """The sensitivity map as a table."""
    rows: list[Cells] = []
    for trial in searched.rows:
        settings = (plain(trial.values[name]) for name in (searched.x, searched.y))
        rows.append((*settings, difference_text(trial.difference, trial.low, trial.high), f"{trial.items:,}"))
    return Grid("", (searched.x, searched.y, "difference [95 % interval], points", "items"), {"": rows})


def changes(task: TaskFindings) -> list[Changes]:
    """The discordant items of each condition with a compared role."""
    sides = {condition.name: ([], []) for condition in task.conditions if condition.role in COMPARED_ROLES}
    for item in task.discordant:
        sides[item.condition][0 if item.gained else 1].append(item)
    return [Changes(condition, gained, lost) for condition, (gained, lost) in sides.items()]


def summary_table(task: TaskFindings) -> "Table":
    """The accuracy table for the terminal, without counts and p-values, so that it fits in 80 columns.

    Controls are dim, and those that are no placebos are named below.
    """
    grid, controls = accuracy_grid(task), {c.name: control_of(c.name) for c in task.conditions if c.role == "placebo"}
    caption = "\n".join(f"{name}: {control.heading}" for name, control in controls.items() if control.role != "placebo")
    table = titled_table(grid.title, ("condition", "accuracy", "difference [95 %]", "verdict"), caption)
    table.columns[-1].justify, table.columns[-1].no_wrap = "left", False
    for group, rows in grid.groups.items():
        for row in rows if group not in (GROUPS["matched"], GROUPS["zeroed"]) else ():
            table.add_row(*row[:3], row[-1], style="dim" if group else None)
    return table


def form_sections(findings: Report) -> list[tuple[str, str, list[TaskFindings]]]:
    """Heading, note and tasks of the sections about the form of answers, without empty sections."""
    written = [task for task in findings.tasks if task.kind != "choice"]
    chosen = [task for task in findings.tasks if task.kind == "choice"]
    sections = [("Format", FORMAT, written), ("Multiple choice", NORMALISED, chosen)]
    return [section for section in sections if section[2]]
