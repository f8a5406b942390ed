"""What the terminal shows of an inspection, an explanation and two answers."""

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from armlet.analysis.answers import Answers, split_at
from armlet.analysis.explanation import AS_IT_IS, Explanation, Row, Setup
from armlet.analysis.fillers import RANDOM_SENTENCE
from armlet.analysis.inspection import Effect, Inspection, detail
from armlet.analysis.mechanism import CLAIMS, QUANTITIES
from armlet.analysis.shape import MEASURES, difference
from armlet.layer.attach import Attachment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CELL = 8
"""Letters of a number, so that three policies fit 80 columns."""

EXPLAINED = "95 % intervals: of the change, or of the value where it has none without (-)"


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


def explanation_table(explanation: Explanation, setup: Setup, title: str) -> Table:
    """The first layer: what the example's filler and the control change, and what the paper says. Fits 80 columns."""
    filler = setup.fillers[setup.example()]
    layer = explanation.findings[0].layer
    kinds = (filler.kind, RANDOM_SENTENCE)
    shown = {
        (row["filler"], row["quantity"]): row
        for row in explanation.rows
        if (row["layer"], row["count"]) == (layer, filler.count)
    }
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
    for heading in ("quantity", "without", f"{filler.count} × {filler.kind!r}", RANDOM_SENTENCE, "paper"):
        table.add_column(Text(heading), justify="left" if heading == "quantity" else "right", no_wrap=True)
    for name in QUANTITIES:
        row = shown[filler.kind, name]
        table.add_row(
            name, _optional(row["without"]), *(_bounds(shown[kind, name]) for kind in kinds), _claim(name, row)
        )
    lines = [EXPLAINED, *_class_lines(explanation, layer)]
    table.caption, table.caption_justify = Text("\n".join(lines)), "left"
    return table


def _bounds(row: Row) -> str:
    """The interval of the change, or of the value where there is none without filler."""
    signed = row["without"] is not None
    return f"{_optional(row['low'], signed=signed)} to {_optional(row['high'], signed=signed)}"


def _claim(name: str, row: Row) -> str:
    """What the paper says, and whether the interval bears it out."""
    if name not in CLAIMS or row["low"] is None:
        return ""
    ends = sorted(CLAIMS[name] * row[end] for end in ("low", "high"))
    found = "yes" if ends[0] > 0 else "no" if ends[1] < 0 else "?"
    return f"{'rises' if CLAIMS[name] > 0 else 'falls'}: {found}"


def _class_lines(explanation: Explanation, layer: int) -> list[str]:
    """The near-zero share of each class against "other", a line each."""
    own = [row for row in explanation.classes if (row["layer"], row["treatment"]) == (layer, AS_IT_IS)]
    return [
        f"near_zero of {row['class']} {_optional(row['with'])}, against other {_bounds(row)}; paper: higher"
        for row in own
        if row["class"] != "other"
    ]


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
