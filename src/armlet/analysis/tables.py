"""What the terminal shows of an inspection, an explanation and two answers."""

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from armlet.analysis.answers import Answers, split_at
from armlet.analysis.explanation import AS_IT_IS, Explanation, Row, Setup
from armlet.analysis.inspection import Effect, Inspection, detail
from armlet.analysis.mechanism import CLAIMS, QUANTITIES
from armlet.analysis.shape import MEASURES, difference
from armlet.layer.attach import Attachment
from armlet.layer.sites import GATE
from armlet.prompting.fillers import RANDOM_SENTENCE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CELL = 8
"""Letters of a number, so that three policies fit 80 columns."""

EXPLAINED = "95 % intervals of the change; where nothing stands under without, of the value"

FEW = 8
"""Prompts below which a bootstrap's intervals are known to be too narrow."""


def inspection_table(inspection: Inspection, title: str) -> Table:
    """One row for each measure: before, and for each policy after and the change. Fits 80 columns."""
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
    table.add_column("measure", no_wrap=True)
    headings = _headings(inspection.effects)
    for heading in ("before", *(part for name in headings for part in (name, "change"))):
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)  # a number goes below its name
    settings = (f"{heading}: {e.panel.detail}" for heading, e in zip(headings, inspection.effects, strict=True))
    table.caption, table.caption_justify = Text("\n".join(settings)), "left"
    table.add_row("share_moved", "", *(cell for e in inspection.effects for cell in (_number(e.share_moved), "")))
    changes = [difference(inspection.before, effect.after) for effect in inspection.effects]
    for name in MEASURES:
        cells = [_number(inspection.before[name])]
        for effect, change in zip(inspection.effects, changes, strict=True):
            cells += [_number(effect.after[name]), _number(change[name], signed=True)]
        table.add_row(name, *cells)
    return table


def _headings(effects: Sequence[Effect]) -> list[str]:
    """The names of the policies, numbered where one stands there with several settings."""
    names = [effect.panel.name for effect in effects]
    return [f"{name} {names[: at + 1].count(name)}" if names.count(name) > 1 else name for at, name in enumerate(names)]


def explanation_table(explanation: Explanation, setup: Setup, kind: str, title: str) -> Table:
    """What one filler and the control change in the first layer, at the highest count. Fits 80 columns.

    Args:
        explanation: of the run.
        setup: of the run.
        kind: of the filler.
        title: above the table.
    """
    count = max(filler.count for filler in setup.fillers)
    layer = explanation.findings[0].layer
    shown = {
        (row["filler"], row["quantity"]): row
        for row in explanation.rows
        if (row["layer"], row["count"]) == (layer, count)
    }
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
    claimed = ["paper"] if layer == 0 else []  # it speaks of the first layer alone
    for heading in ("quantity", "without", f"{count} × {kind!r}", RANDOM_SENTENCE, *claimed):
        table.add_column(Text(heading), justify="left" if heading == "quantity" else "right", no_wrap=True)
    for name in QUANTITIES:
        row = shown[kind, name]
        cells = (_bounds(shown[each, name]) for each in (kind, RANDOM_SENTENCE))
        table.add_row(name, _optional(row["without"]), *cells, *(_claim(CLAIMS.get(name, 0), row) for _ in claimed))
    rough = [f"{len(setup.prompts)} prompts: intervals are too narrow"] if len(setup.prompts) < FEW else []
    table.caption, table.caption_justify = Text("\n".join([EXPLAINED, *rough])), "left"
    return table


def classes_table(explanation: Explanation, title: str) -> Table:
    """The near-zero share of each class of tokens in the first layer, as it is and against other words."""
    layer = explanation.findings[0].layer
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
    claimed = ["paper"] if layer == 0 else []
    for heading in ("class", "tokens", "near-zero share", "against other", *claimed):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for row in explanation.classes:
        if (row["layer"], row["treatment"]) == (layer, AS_IT_IS):
            other = row["class"] == row["against"]
            cells = (
                ("", *("" for _ in claimed)) if other else (_bounds(row), *(_claim(1, row, "higher") for _ in claimed))
            )
            table.add_row(row["class"], str(row["tokens"]), _optional(row["share"]), *cells)
    return table


def _bounds(row: Row) -> str:
    """The interval, signed where it is that of a change."""
    if row["low"] is None:
        return "-"
    signed = row.get("interval_of") != "value"
    return f"{_optional(row['low'], signed=signed)} to {_optional(row['high'], signed=signed)}"


def _claim(sign: int, row: Row, verb: str = "") -> str:
    """What the paper says, 1 up or −1 down, and whether the interval bears it out; "" where it says nothing."""
    if not sign:
        return ""
    ends = [] if row["low"] is None else sorted(sign * row[end] for end in ("low", "high"))
    found = "?" if not ends or ends[0] <= 0 <= ends[1] else "yes" if ends[0] > 0 else "no"
    return f"{verb or ('rises' if sign > 0 else 'falls')}: {found}"


def _optional(value: float | None, *, signed: bool = False) -> str:
    return "-" if value is None else _number(value, signed=signed)


def answers_table(tokenizer: "PreTrainedTokenizerBase", answers: Answers, attachment: Attachment) -> Table:
    """The answers side by side; the token at which they part is bold and stands between » and «."""
    table = Table(expand=True, caption=Text(_verdict(answers)), caption_justify="left")
    table.add_column("baseline", ratio=1)
    table.add_column(Text(_treatment(attachment)), ratio=1)
    at = answers.first_difference
    shown = [found and _marked(*split_at(tokenizer, found, at)) for found in (answers.baseline, answers.treated)]
    table.add_row(*shown)
    return table


def _treatment(attachment: Attachment) -> str:
    layers = attachment.layers
    run = len(layers) > 2 and layers == list(range(layers[0], layers[-1] + 1))
    where = f"{layers[0]}-{layers[-1]}" if run else ", ".join(map(str, layers))
    where = f"layer{'s' * (len(layers) > 1)} {where}"
    where += "" if attachment.site == GATE else f", {attachment.site}"
    return f"treated: {type(attachment.policy).__name__}, {detail(attachment.policy)}, {where}"


def _verdict(answers: Answers) -> str:
    if answers.baseline is None or answers.treated is None or answers.interrupted:
        return "interrupted: this is what there is"
    at = answers.first_difference
    return f"the same {len(answers.baseline.tokens)} tokens" if at is None else f"they part at token {at + 1}, »marked«"


def _marked(before: str, parting: str, behind: str) -> Text:
    text = Text(before)
    if parting or behind:
        text.append(f"»{parting}«", style="bold reverse")
    return text.append(behind)


def _number(value: float, *, signed: bool = False) -> str:
    """Three digits, for reading, or two where three do not fit `CELL`; `--json` has them all."""
    if isnan(value):
        return "-"
    sign = "+" if signed else ""
    text = f"{value:{sign}.3g}"
    return text if len(text) <= CELL else f"{value:{sign}.2g}"
