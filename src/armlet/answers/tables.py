"""Two answers side by side in the terminal."""

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from armlet.answers.records import Parts


def answers_table(columns: Mapping[str, Parts], caption: str) -> Table:
    """The answers side by side; the first token that differs is bold, between » and «."""
    table = Table(expand=True, caption=Text(caption), caption_justify="left")
    for heading in columns:
        table.add_column(Text(heading), ratio=1, overflow="fold")  # no part of an answer is left out
    table.add_row(*map(_marked, columns.values()))
    return table


def _marked(parts: Parts) -> Text:
    before, token, rest = parts
    text = Text(before)
    if token or rest:
        text.append(f"»{token}«", style="bold reverse")
    return text.append(rest)
