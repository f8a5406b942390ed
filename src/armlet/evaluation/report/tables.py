"""The tables of a report as text cells, for HTML and Markdown, and a summary for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from armlet.evaluation.conditions.conditions import BASELINE
from armlet.evaluation.report.findings import (
    COMPARED_ROLES,
    ChosenAnswers,
    ConditionFindings,
    DiscordantItem,
    Findings,
    Group,
    PairedComparison,
    Selection,
    Side,
    TaskFindings,
    WrittenAnswers,
)
from armlet.evaluation.report.numbers import (
    NO_NUMBER,
    detectable_points,
    difference_and_interval,
    percent,
    probability,
    with_count,
)
from armlet.evaluation.report.sentences import FORMAT, NORMALISED, condition_settings, condition_temperature, plain
from armlet.evaluation.search.results import SearchMap

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

Cells = Sequence[str]

GROUPS: dict[Group, str] = {
    "judged": "",
    "bound": "upper bound, which no selection can exceed: any of the answers is right",
    "placebo": "placebos: should do nothing; without Holm's correction",
    "matched": "against the matched placebo instead of the baseline; without Holm's correction",
}
"""The groups of comparisons in the order in which a table shows them, each with the line above it."""


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


@dataclass(frozen=True)
class Changes:
    """The discordant items of a condition."""

    condition: str
    gained: Sequence[DiscordantItem]
    lost: Sequence[DiscordantItem]

    @property
    def counts(self) -> str:
        """How many there are."""
        return f"{len(self.gained):,} gained, {len(self.lost):,} lost"

    def examples(self, limit: int) -> list[DiscordantItem]:
        """The first ones of both kinds in turn."""
        numbered = [(at, item) for items in (self.gained, self.lost) for at, item in enumerate(items[:limit])]
        return [item for _, item in sorted(numbered, key=lambda pair: pair[0])][:limit]


def grouped(task: TaskFindings) -> dict[Group, list[PairedComparison]]:
    """A task's comparisons by group, in the order in which they are shown; empty groups are left out."""
    groups: dict[Group, list[PairedComparison]] = {group: [] for group in GROUPS}
    for pair in task.comparisons:
        groups[pair.group].append(pair)
    return {group: pairs for group, pairs in groups.items() if pairs}


def accuracy_grid(task: TaskFindings) -> Grid:
    """Accuracy of each condition and its difference from the baseline."""
    headings = (
        "condition",
        "accuracy",
        "difference [95 % interval], points",
        "gained, lost",
        "p",
        "Holm's p",
        "verdict",
    )
    first = [(label, percent(accuracy), *[""] * 5) for label, accuracy in _baselines(task).items()]
    groups = {GROUPS[group]: [_accuracy_cells(pair) for pair in pairs] for group, pairs in grouped(task).items()}
    return Grid(
        f"{task.name}, {with_count(task.items, 'item')}", headings, {"": [*first, *groups.pop("", [])], **groups}
    )


def _accuracy_cells(pair: PairedComparison) -> Cells:
    comparison = pair.comparison
    return (
        str(pair.treated),
        percent(comparison.treated_mean),
        difference_and_interval(comparison.difference, *pair.interval),
        NO_NUMBER if comparison.gained is None else f"{comparison.gained:,}, {comparison.lost:,}",
        probability(comparison.p_value),
        probability(pair.p_holm),
        _verdict_cell(pair),
    )


def _verdict_cell(pair: PairedComparison) -> str:
    return NO_NUMBER if pair.group == "bound" else pair.verdict


def _baselines(task: TaskFindings) -> dict[str, float]:
    """The accuracy of the baseline, and of its majority where there is one."""
    accuracies = {BASELINE: task.baseline.accuracy}
    voted = _accuracies(task, "majority").get(BASELINE)
    return accuracies if voted is None else accuracies | {str(Side(BASELINE, "majority")): voted}


def _accuracies(task: TaskFindings, selection: Selection) -> dict[str, float]:
    """What a selection among an item's answers gets right, by condition."""
    accuracies = {}
    for pair in task.comparisons:
        if pair.against.selection == selection:
            accuracies[pair.against.condition] = pair.comparison.baseline_mean
        if pair.treated.selection == selection:
            accuracies[pair.treated.condition] = pair.comparison.treated_mean
    return accuracies


def form_grid(task: TaskFindings) -> Grid:
    """The form of generated answers; of multiple choice, the accuracy by both ways to choose."""
    if task.kind == "choice":
        headings = ("condition", "accuracy", "length-normalised accuracy")
    else:
        headings = (
            "condition",
            "extracted",
            "in the requested form",
            "truncated",
            "mean tokens",
            "distinct\u20112",
            "accuracy of those extracted",
        )
    return Grid(task.name, headings, {"": [(condition.name, *_form(condition)) for condition in task.conditions]})


def _form(condition: ConditionFindings) -> Cells:
    answers = condition.answers
    if isinstance(answers, ChosenAnswers):
        return percent(condition.accuracy), percent(answers.accuracy_normalised)
    return (
        percent(answers.extracted),
        percent(answers.format_ok),
        percent(answers.truncated),
        NO_NUMBER if answers.tokens is None else f"{answers.tokens:.1f}",
        f"{answers.distinct_2:.3f}",
        percent(answers.accuracy_of_extracted),
    )


def samples_grid(task: TaskFindings) -> Grid | None:
    """Where there are several answers to an item: pass@k, and what a selection among them gets right."""
    several = [
        (condition, condition.answers.pass_at)
        for condition in task.conditions
        if condition.samples > 1 and isinstance(condition.answers, WrittenAnswers)
    ]
    if not several:
        return None
    ks = sorted({k for _, pass_at in several for k in pass_at}, key=int)
    voted, likeliest = _accuracies(task, "majority"), _accuracies(task, "likeliest")
    selected = {"majority": voted} if voted else {}
    if likeliest or any(condition.role == "best-of" for condition, _ in several):  # a column of dashes: not recorded
        selected["likeliest"] = likeliest
    rows = [
        (
            condition.name,
            str(condition.samples),
            *(percent(pass_at.get(k)) for k in ks),
            *(percent(accuracies.get(condition.name)) for accuracies in selected.values()),
        )
        for condition, pass_at in several
    ]
    return Grid(task.name, ("condition", "samples", *(f"pass@{k}" for k in ks), *selected), {"": rows})


def power_grid(task: TaskFindings) -> Grid:
    """The smallest detectable difference of each comparison, with the variability seen."""
    rows = [
        (str(pair.treated), detectable_points(pair.comparison.smallest_detectable), pair.comparison.test)
        for group, pairs in grouped(task).items()
        if group in ("judged", "placebo")
        for pair in pairs
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


def settings_grid(findings: Findings) -> Grid:
    """How each condition was run."""
    rows = [
        (
            condition.name,
            condition.role,
            condition_settings(condition),
            condition_temperature(condition),
            str(condition.samples),
        )
        for condition in findings.settings.conditions
    ]
    return Grid("conditions", ("condition", "role", "settings", "temperature", "samples"), {"": rows})


def map_grid(searched: SearchMap) -> Grid:
    """The sensitivity map as a table."""
    rows = [
        (
            plain(row.values[searched.x]),
            plain(row.values[searched.y]),
            difference_and_interval(row.difference, row.low, row.high),
            f"{row.items:,}",
        )
        for row in searched.rows
    ]
    return Grid("", (searched.x, searched.y, "difference [95 % interval], points", "items"), {"": rows})


def changes(task: TaskFindings) -> list[Changes]:
    """The discordant items of each condition that may have some."""
    sides = {condition.name: ([], []) for condition in task.conditions if condition.role in COMPARED_ROLES}
    for item in task.discordant:
        sides[item.condition][0 if item.gained else 1].append(item)
    return [Changes(condition, gained, lost) for condition, (gained, lost) in sides.items()]


def summary_tables(findings: Findings) -> list["Table"]:
    """For the terminal, one table for each task; fits 80 columns."""
    return [_summary(task) for task in findings.tasks]


def _summary(task: TaskFindings) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    title = Text(f"{task.name}, {with_count(task.items, 'item')}")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("condition", overflow="fold")
    for heading in ("accuracy", "difference [95 %]"):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for label, accuracy in _baselines(task).items():
        table.add_row(*_text_cells(label, percent(accuracy)))
    for group, pairs in grouped(task).items():
        for pair in pairs if group != "matched" else ():
            difference = difference_and_interval(pair.comparison.difference, *pair.interval)
            cells = (str(pair.treated), percent(pair.comparison.treated_mean), difference, _verdict_cell(pair))
            table.add_row(*_text_cells(*cells), style=None if group == "judged" else "dim")
    return table


def _text_cells(*cells: str) -> "list[Text]":
    """Cells without markup and with ordinary spaces."""
    from rich.text import Text

    return [Text(" ".join(cell.split())) for cell in cells]


def form_sections(findings: Findings) -> list[tuple[str, str, list[TaskFindings]]]:
    """Heading, note and tasks of the sections about the form of answers; empty ones are left out."""
    written = [task for task in findings.tasks if task.kind != "choice"]
    chosen = [task for task in findings.tasks if task.kind == "choice"]
    sections = [("Format", FORMAT, written), ("Multiple choice", NORMALISED, chosen)]
    return [section for section in sections if section[2]]
