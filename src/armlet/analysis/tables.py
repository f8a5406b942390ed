"""What the terminal shows of an inspection and of two answers."""

from math import isnan
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from armlet.analysis.answers import Answers, split_at
from armlet.analysis.inspection import Inspection, detail
from armlet.analysis.shape import MEASURES, difference
from armlet.layer.attach import Attachment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CELL = 8
"""Letters of a number, so that three policies fit 80 columns."""


def inspection_table(inspection: Inspection, title: str) -> Table:
    """One row for each measure: before, and for each policy after and the change. Fits 80 columns."""
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
    table.add_column("measure", no_wrap=True)
    for heading in ("before", *(name for e in inspection.effects for name in (e.panel.name, "change"))):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("share_moved", "", *(cell for e in inspection.effects for cell in (_number(e.share_moved), "")))
    changes = [difference(inspection.before, effect.after) for effect in inspection.effects]
    for name in MEASURES:
        cells = [_number(inspection.before[name])]
        for effect, change in zip(inspection.effects, changes, strict=True):
            cells += [_number(effect.after[name]), _number(change[name], signed=True)]
        table.add_row(name, *cells)
    return table


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
    where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {', '.join(map(str, layers))}"
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
