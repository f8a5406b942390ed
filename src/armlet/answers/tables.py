"""Two answers side by side in the terminal."""

from collections.abc import Mapping

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from armlet.answers.records import Parts


class SideBySide(Table):
    """A table of one row, whose columns stand below each other if one is too narrow for the longest word."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Renders the columns side by side, or each as a heading and a row of a single column."""
        texts = [text for column in self.columns for text in (column.header, *column.cells)]
        longest = max((cell_len(word) for text in texts for word in str(text).split()), default=0)
        border_and_padding = 3  # of a column
        if longest <= (options.max_width - 1) // len(self.columns) - border_and_padding:
            yield from super().__rich_console__(console, options)
            return
        table = Table(expand=True, show_header=False, show_lines=True, caption=self.caption, caption_justify="left")
        table.add_column(overflow="fold")
        for text in texts:
            table.add_row(text)
        yield from console.render(table, options)


def answers_table(columns: Mapping[str, Parts], caption: str) -> Table:
    """The answers side by side; the first token that differs is bold, between » and «."""
    table = SideBySide(expand=True, caption=Text(caption), caption_justify="left")
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
