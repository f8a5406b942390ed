"""The report of a run: report.json for programs, report.md for a repository, report.html for a reader."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any

from armlet.evaluation.report import sentences, tables
from armlet.evaluation.report.page import page
from armlet.evaluation.report.tables import Grid
from armlet.presentation.files import write_json, write_text

Row = Mapping[str, Any]

NAMES = ("report.json", "report.md", "report.html")

SHOWN, LONGEST = 5, 300
"""Of Markdown: discordant items of each condition, and characters of a text."""

TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Signs that turn the direction of what follows: in one line, of our own words too."""


@dataclass(frozen=True)
class Map:
    """A map of a search: the arguments of `figures.draw_map`.

    Args:
        rows: one for each pair of settings, with "difference", "low", "high" and "items".
        x, y: the settings' keys.
        title: above the figure.
    """

    rows: Sequence[Row]
    x: str
    y: str
    title: str


def write(findings: Row, folder: Path, *, map: Map | None = None) -> list[Path]:
    """Writes the three files; the same findings give the same bytes.

    Args:
        findings: of `results.findings`.
        folder: made if need be.
        map: of a search, shown behind the forest plot and kept in report.json under "map".

    Returns:
        The paths: JSON, Markdown, HTML.

    Raises:
        ConfigError: a file cannot be written.
    """
    data, short, long = (folder / name for name in NAMES)
    return [
        write_json(data, {**findings, "map": asdict(map)} if map else findings),
        write_text(short, markdown(findings, map)),
        write_text(long, page(findings, _figures(findings, map))),
    ]


def markdown(findings: Row, map: Map | None = None) -> str:
    """The report in short."""
    missing, tasks = sentences.partial(findings), findings["tasks"]
    blocks = [f"# {_inline(sentences.heading(findings))}", *([f"**{_inline(missing)}**"] if missing else [])]
    search = sentences.searched(findings)
    blocks += [_list(findings["verdicts"]) or "There is nothing to judge yet.", *([_inline(search)] if search else [])]
    blocks += [sentences.JUDGING]
    blocks += [f"## {_inline(map.title)}", _table(_map_grid(map))] if map else []
    blocks += [*_answers(tasks), *_course(tasks), *_settings(findings)]
    return "\n\n".join(blocks) + "\n"


def _answers(tasks: Sequence[Row]) -> list[str]:
    spoken, chosen = ([t for t in tasks if (t["kind"] == "choice") is choice] for choice in (False, True))
    several = (_table(grid) for task in tasks if (grid := tables.samples_grid(task)))
    return [
        *_section("Accuracy", "", (_table(tables.conditions_grid(task)) for task in tasks)),
        *_section("Format", sentences.FORMAT, (_table(tables.format_grid(task)) for task in spoken)),
        *_section("Multiple choice", sentences.NORMALISED, (_table(tables.format_grid(task)) for task in chosen)),
        *_section("Several answers to an item", sentences.SAMPLES, several),
    ]


def _course(tasks: Sequence[Row]) -> list[str]:
    power = (f"{_inline(sentences.planned(task))}\n\n{_table(tables.power_grid(task))}" for task in tasks)
    return [
        *_section("Do the placebos hold?", "", (_checks(task, sentences.placebo_checks(task)) for task in tasks)),
        *_section("What could this run have shown?", "", power),
        *_section("Did ARM fire?", "", (_checks(task, sentences.arm_checks(task)) for task in tasks)),
        *_section("What changed", sentences.changed(tasks), (_changes(task) for task in tasks)),
    ]


def _settings(findings: Row) -> list[str]:
    meanings = (f"- **{name}**: {meaning}" for name, meaning in sentences.words(findings).items())
    run = (f"- **{_inline(name)}**: {_inline(own)}" for name, own in sentences.settings(findings).items())
    conditions = _table(sentences.conditions_settings(findings))
    return ["## Words", "\n".join(meanings), "## Settings", "\n".join(run), conditions]


def _figures(findings: Row, map: Map | None) -> dict[str, str]:
    from armlet.evaluation.report.figures import draw_forest, draw_map
    from armlet.presentation.style import svg_text

    found = {}
    if rows := [row for task in findings["tasks"] for row in tables.against_baseline(task)]:
        title = "Difference from the baseline"
        found["Forest plot of differences; the table of accuracy has its numbers"] = svg_text(
            draw_forest(rows, title=title)
        )
    if map:
        drawn = draw_map(map.rows, map.x, map.y, title=map.title)
        found[f"Map of differences over {map.x} and {map.y}; report.md has its numbers"] = svg_text(drawn)
    return found


def _map_grid(map: Map) -> Grid:
    rows = [
        (
            sentences.plain(row[map.x]),
            sentences.plain(row[map.y]),
            f"{tables.points(row['difference'])} {tables.interval(row['low'], row['high'])}",
            f"{row['items']:,}",
        )
        for row in map.rows
    ]
    return Grid("", (map.x, map.y, "difference [95 % interval], points", "items"), {"": rows})


# Markdown


def _section(title: str, note: str, content: Iterable[str]) -> list[str]:
    found = [block for block in content if block]
    return [f"## {title}", *([note] if note else []), *found] if found else []


def _table(grid: Grid) -> str:
    lines = [f"| {' | '.join(map(_inline, grid.headings))} |", "|" + " --- |" * len(grid.headings)]
    for name, rows in grid.groups.items():
        lines += [f"| *{_inline(name)}* |" + " |" * (len(grid.headings) - 1)] if name else []
        lines += [f"| {' | '.join(map(_inline, row))} |" for row in rows]
    title = [f"**{_inline(grid.title)}**\n"] if grid.title else []
    return "\n".join(title + lines)


def _checks(task: Row, checks: Iterable[tuple[bool, str]]) -> str:
    return _list(f"{'✓' if holds else '✗'} {task['name']}: {sentence}" for holds, sentence in checks)


def _changes(task: Row) -> str:
    lines = []
    for name, changes in tables.discordant(task).items():
        counts = f"{len(changes[True]):,} gained, {len(changes[False]):,} lost"
        lines.append(f"- **{_inline(name)} on {_inline(task['name'])}**: {counts}")
        shown = [row for pair in zip_longest(changes[True], changes[False]) for row in pair if row][:SHOWN]
        lines += [f"  - {_item(row)}" for row in shown]
    return "\n".join(lines)


def _item(row: Row) -> str:
    fields = {
        "": "question",
        "; right answer: ": "gold",
        "; baseline: ": "baseline",
        f"; {row['condition']}: ": "answer",
    }
    said = "".join(f"{_inline(label)}{_inline(_cut(row[key]))}" for label, key in fields.items())
    return f"{'gained' if row['gained'] else 'lost'}, item {_inline(row['item'])}: {said}"


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {_inline(sentence)}" for sentence in sentences)


def _inline(text: str) -> str:
    """One line that is text and nothing else: no cell ends, no tag or link begins in it."""
    line = escape(" ".join(TURNING.sub("\ufffd", text).split()), quote=False)
    for letter in "\\`*_|$":
        line = line.replace(letter, f"\\{letter}")
    return line.replace("](", "]\\(")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
