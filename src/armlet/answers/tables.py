"""What the terminal shows of two answers."""

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from armlet.answers.generation import Answers, split_at
from armlet.attachment.attach import Attachment
from armlet.attachment.sites import GATE
from armlet.redistribution.spelling import detail

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
