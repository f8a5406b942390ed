"""The report as a page: one HTML file that needs no network and runs no script."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from armlet.evaluation.report import sentences, tables
from armlet.evaluation.report.tables import Grid

Row = Mapping[str, Any]

SHOWN, LONGEST = 20, 1500
"""Discordant items of each kind, and characters of a text."""

FOLDED = 12
"""Rows of a table from which on it is folded away."""

MARKS = {"helped": "▲", "hurt": "▼", "no difference shown": "○"}

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #5b5b60; --line: #d6d6da; --page: #fff; --card: #f5f5f7;
  --good: #0a6b2d; --bad: #b3261e; --warn: #fff1c9; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececef; --soft: #a6a6ad; --line: #45454b; --page: #161618;
  --card: #222226; --good: #6fd08c; --bad: #ff8a80; --warn: #4a3b00; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: .5rem 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p, li { max-width: 46rem; }
.banner { background: var(--warn); padding: .5rem .8rem; border-radius: .4rem; font-weight: 600; max-width: none; }
.verdicts, .checks { list-style: none; padding: 0; }
.verdicts li, .checks li { padding-left: 1.6rem; text-indent: -1.6rem; margin: .35rem 0; max-width: none; }
.verdicts li { font-size: 1.08rem; }
.mark { display: inline-block; width: 1.6rem; text-indent: 0; }
.helped, .holds { color: var(--good); }
.hurt, .fails { color: var(--bad); }
.note { color: var(--soft); font-size: .92rem; }
figure, .scroll { margin: .6rem 0; overflow-x: auto; }
figure { background: #fff; border: 1px solid var(--line); border-radius: .4rem; padding: .5rem; }
figure svg { display: block; width: 100%; min-width: 40rem; height: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
  white-space: nowrap; overflow-wrap: normal; }
thead th { white-space: normal; vertical-align: bottom; }
th:first-child { text-align: left; white-space: normal; min-width: 8rem; max-width: 20rem; overflow-wrap: anywhere; }
th:last-child, td:last-child { padding-right: 0; }
tbody th { font-weight: 600; }
.apart th, .apart td { color: var(--soft); font-weight: 400; }
.apart th[scope=rowgroup] { max-width: none; padding-top: .8rem; font-style: italic; }
.words td { text-align: left; }
.words td:nth-of-type(2) { white-space: normal; min-width: 18rem; }
details { margin: .4rem 0; }
summary { cursor: pointer; }
article { background: var(--card); border-radius: .4rem; padding: .6rem .8rem; margin: .6rem 0; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr)); gap: .8rem; }
.answers > div { min-width: 0; }
pre { margin: .1rem 0 .5rem; white-space: pre-wrap; overflow-wrap: anywhere; font: .85rem/1.4 ui-monospace, monospace; }
h4 { font-size: .9rem; margin: .2rem 0; }
dl { display: grid; grid-template-columns: minmax(6rem, 11rem) 1fr; gap: .2rem 1rem; font-size: .9rem; }
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; white-space: pre-line; }
footer { margin-top: 2.5rem; color: var(--soft); font-size: .85rem; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
"""


def page(findings: Row, figures: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        findings: of `results.findings`.
        figures: inline SVG by what each shows in a sentence; the forest plot first.
    """
    title = escape(sentences.heading(findings))
    parts = (
        _verdicts(findings),
        *(_figure(at, name, svg) for at, (name, svg) in enumerate(figures.items())),
        _conditions(findings["tasks"]),
        _format(findings["tasks"]),
        _checks(findings["tasks"]),
        _power(findings["tasks"]),
        _arm(findings["tasks"]),
        _discordant(findings["tasks"]),
        _settings(findings),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Should a text of a model ever stand here unescaped, it can neither run nor load anything.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
        f"{''.join(parts)}</main>\n<footer>armlet {escape(findings['armlet'])}; the same numbers are in report.json"
        "</footer>\n</body>\n</html>\n"
    )


def _verdicts(findings: Row) -> str:
    missing = sentences.partial(findings)
    banner = f'<p class="banner">{escape(missing)}</p>\n' if missing else ""
    judged = [row["verdict"] for task in findings["tasks"] for row in task["comparisons"] if row["judged"]]
    items = "".join(_verdict(*pair) for pair in zip(findings["verdicts"], judged, strict=True))
    listed = f'<ul class="verdicts">\n{items}</ul>\n' if items else "<p>There is nothing to judge yet.</p>\n"
    search = sentences.searched(findings)
    said = f"<p>{escape(search)}</p>\n" if search else ""
    return f'{banner}{listed}{said}<p class="note">{escape(sentences.JUDGING)}</p>\n'


def _verdict(sentence: str, kind: str) -> str:
    mark = f'<span class="mark {kind.partition(" ")[0]}" aria-hidden="true">{MARKS[kind]}</span>'
    return f"<li>{mark}{escape(sentence)}</li>\n"


def _figure(at: int, name: str, svg: str) -> str:
    # Two drawings use the same ids; on one page each needs its own.
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>f{at}-", svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(name)}" ', 1)
    return f'<figure tabindex="0">\n{svg}</figure>\n'


def _conditions(tasks: Sequence[Row]) -> str:
    return _section("Accuracy", "", (_grid(tables.conditions_grid(task)) for task in tasks))


def _format(tasks: Sequence[Row]) -> str:
    spoken, chosen = ([t for t in tasks if (t["kind"] == "choice") is choice] for choice in (False, True))
    several = [grid for task in tasks if (grid := tables.samples_grid(task))]
    return (
        _section("Format", sentences.FORMAT, (_grid(tables.format_grid(task)) for task in spoken))
        + _section("Multiple choice", sentences.NORMALISED, (_grid(tables.format_grid(task)) for task in chosen))
        + _section("Several answers to an item", sentences.SAMPLES, map(_grid, several))
    )


def _checks(tasks: Sequence[Row]) -> str:
    lists = (_list(task["name"], sentences.placebo_checks(task)) for task in tasks if task["same_as_baseline"])
    return _section("Do the placebos hold?", "", lists)


def _power(tasks: Sequence[Row]) -> str:
    own = (
        f"<p>{escape(sentences.planned(task))}</p>\n{_folded('after the run', tables.power_grid(task))}"
        for task in tasks
    )
    return _section("What could this run have shown?", "", own)


def _arm(tasks: Sequence[Row]) -> str:
    grids = ((task, tables.arm_grid(task)) for task in tasks)
    own = (
        _list(task["name"], checks) + (_folded("by layer", grid) if grid else "")
        for task, grid in grids
        if (checks := list(sentences.arm_checks(task)))
    )
    return _section("Did ARM fire?", "", own)


def _discordant(tasks: Sequence[Row]) -> str:
    own = (
        _changes(f"{name} on {task['name']}", changes)
        for task in tasks
        for name, changes in tables.discordant(task).items()
    )
    return _section("What changed", sentences.changed(tasks), own)


def _changes(name: str, changes: Mapping[bool, Sequence[Row]]) -> str:
    parts = []
    for gained, word in ((True, "gained"), (False, "lost")):
        if rows := changes[gained]:
            first = f", the first {SHOWN} of them here" if len(rows) > SHOWN else ""
            items = "".join(_item(row) for row in rows[:SHOWN])
            parts.append(f"<details><summary>{len(rows):,} {word}{first}</summary>\n{items}</details>\n")
    counts = f"{len(changes[True]):,} gained, {len(changes[False]):,} lost"
    return f"<h3>{escape(name)}: {counts}</h3>\n{''.join(parts)}"


def _item(row: Row) -> str:
    sides = (("baseline", row["baseline"]), (row["condition"], row["answer"]))
    answers = "".join(f"<div><h4>{escape(name)}</h4><pre>{_text(text)}</pre></div>" for name, text in sides)
    return (
        f"<article><h4>item {escape(row['item'])}</h4><pre>{_text(row['question'])}</pre>"
        f'<h4>right answer</h4><pre>{_text(row["gold"])}</pre><div class="answers">{answers}</div></article>\n'
    )


def _settings(findings: Row) -> str:
    meanings = "".join(f"<dt>{escape(n)}</dt><dd>{escape(m)}</dd>\n" for n, m in sentences.words(findings).items())
    run = "".join(f"<dt>{escape(n)}</dt><dd>{escape(own)}</dd>\n" for n, own in sentences.settings(findings).items())
    grid = _grid(sentences.conditions_settings(findings), "words")
    return f"<section>\n<h2>Words</h2>\n<dl>\n{meanings}</dl>\n<h2>Settings</h2>\n<dl>\n{run}</dl>\n{grid}</section>\n"


# Elements


def _section(title: str, note: str, content: Iterable[str]) -> str:
    found = "".join(content)
    if not found:
        return ""
    said = f"<p>{escape(note)}</p>\n" if note else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{said}{found}</section>\n"


def _list(name: str, checks: Iterable[tuple[bool, str]]) -> str:
    marks = {True: '<span class="mark holds">✓</span>', False: '<span class="mark fails">✗</span>'}
    items = "".join(f"<li>{marks[holds]}{escape(name)}: {escape(sentence)}</li>\n" for holds, sentence in checks)
    return f'<ul class="checks">\n{items}</ul>\n'


def _folded(name: str, grid: Grid) -> str:
    long = sum(map(len, grid.groups.values())) > FOLDED
    return f"<details><summary>{escape(name)}</summary>\n{_grid(grid)}</details>\n" if long else _grid(grid)


def _grid(grid: Grid, kind: str = "") -> str:
    heads = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in grid.headings)
    bodies = "".join(_body(name, rows, len(grid.headings)) for name, rows in grid.groups.items())
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(grid.title)}">\n<table class="{kind}">\n'
        f"<caption>{escape(grid.title)}</caption>\n<thead><tr>{heads}</tr></thead>\n{bodies}</table>\n</div>\n"
    )


def _body(name: str, rows: Iterable[Sequence[str]], columns: int) -> str:
    above = f'<tr><th scope="rowgroup" colspan="{columns}">{escape(name)}</th></tr>\n' if name else ""
    lines = (
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>\n"
        for row in rows
    )
    kind = ' class="apart"' if name else ""
    return f"<tbody{kind}>\n{above}{''.join(lines)}</tbody>\n"


def _text(text: str) -> str:
    return escape(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")
