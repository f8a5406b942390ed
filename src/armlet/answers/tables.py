"""Two answers side by side in the terminal."""

from itertools import takewhile
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from armlet.answers.result import Answer, Answers
from armlet.attachment.attach import Attachment
from armlet.attachment.sites import GATE
from armlet.redistribution.policies import detail

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def answers_table(tokenizer: "PreTrainedTokenizerBase", answers: Answers, attachment: Attachment) -> Table:
    """The answers side by side; the first token that differs is bold, between » and «."""
    index = answers.first_difference
    caption = f"the same {len(answers.baseline.tokens)} tokens"
    if answers.interrupted:
        caption = "interrupted: this is what there is"
    elif index is not None:
        caption = f"first difference at token {index + 1}, »marked«"
    table = Table(expand=True, caption=Text(caption), caption_justify="left")
    for heading in ("baseline", _treatment(attachment)):
        table.add_column(Text(heading), ratio=1, overflow="fold")
    both = (answers.baseline, answers.treated)
    table.add_row(*(answer and _marked(*split_at(tokenizer, answer, index)) for answer in both))
    return table


def split_at(tokenizer: "PreTrainedTokenizerBase", answer: Answer, index: int | None) -> tuple[str, str, str]:
    """Splits the text into before the token at `index`, the token, and the rest; with None, all of it is before."""
    if index is None:
        return answer.text, "", ""
    start, end = (_characters(tokenizer, answer, count) for count in (index, index + 1))
    return answer.text[:start], answer.text[start:end], answer.text[end:]


def _characters(tokenizer: "PreTrainedTokenizerBase", answer: Answer, count: int) -> int:
    """The number of complete characters that the first `count` tokens produce."""
    decoded = str(tokenizer.decode(answer.tokens[:count], skip_special_tokens=True))
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(decoded, answer.text, strict=False))))


def _treatment(attachment: Attachment) -> str:
    policy, layers = attachment.policy, list(attachment.layers)
    names = f"layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}"
    if len(layers) > 2 and layers == list(range(layers[0], layers[-1] + 1)):
        names = f"layers {layers[0]}-{layers[-1]}"
    site = "" if attachment.site == GATE else f", {attachment.site}"
    return f"treated: {type(policy).__name__}, {detail(policy)}, {names}{site}"


def _marked(before: str, token: str, rest: str) -> Text:
    text = Text(before)
    if token or rest:
        text.append(f"»{token}«", style="bold reverse")
    return text.append(rest)
