"""Tables that break no word."""

from collections.abc import Iterable, Iterator, Sequence
from textwrap import fill

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text


class WholeWords(Table):
    """A table that breaks no word: columns without room continue below, next to the first columns again.

    Title, headings and caption wrap between words, and so does each column unless it has `no_wrap`. A word that is
    wider than the terminal sticks out.
    """

    repeated = 1  # number of first columns that are shown again in each part
    together = 1  # number of columns that stay next to each other

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Renders the title, the parts below each other, and the caption."""
        width = options.max_width
        yield from _whole(self.title, "table.title", width)
        for number, columns in enumerate(self._parts(width)):
            yield from [Text("")] if number else []
            needed = width - min(0, self._room(columns, width))
            yield from console.render(self._part(columns, width), options.update_width(needed))
        yield from _whole(self.caption, "table.caption", width)

    def _parts(self, width: int) -> list[list[int]]:
        """The indices of the columns in each part."""
        parts = [[*range(self.repeated)]]
        for start in range(self.repeated, len(self.columns), self.together):
            columns = [*range(start, min(start + self.together, len(self.columns)))]
            if len(parts[-1]) > self.repeated and self._room([*parts[-1], *columns], width) < 0:
                parts.append([*range(self.repeated)])
            parts[-1] += columns
        return parts

    def _room(self, columns: Sequence[int], width: int) -> int:
        """The width that is left if each column has its smallest width, and a space is between them."""
        return width + 1 - sum(1 + self._widths(index, width)[0] for index in columns)

    def _widths(self, index: int, width: int) -> tuple[int, int]:
        """The smallest width of a column, and the width in which nothing wraps. A third of the width does not wrap."""
        column = self.columns[index]
        heading, cells = str(column.header), "\n".join(map(str, column.cells))
        lines = [*heading.splitlines(), *cells.splitlines()]
        whole = [*_words(heading), *(cells.splitlines() if column.no_wrap else _words(cells))]
        smallest, widest = (max(map(cell_len, texts), default=0) for texts in (whole, lines))
        return smallest if column.no_wrap else max(smallest, min(widest, width // 3)), widest

    def _part(self, indices: Sequence[int], width: int) -> Table:
        part, room = Table(box=self.box, show_edge=False, padding=0, pad_edge=False), max(self._room(indices, width), 0)
        cells: list[list[Text]] = []
        for index in indices:
            smallest, widest = self._widths(index, width)
            column, extra = self.columns[index], min(room, widest - smallest)
            room -= extra
            texts = [_wrapped(str(text), smallest + extra) for text in (column.header, *column.cells)]
            part.add_column(texts[0], justify=column.justify, no_wrap=True)
            cells.append(texts[1:])
        for row, texts in zip(self.rows, zip(*cells, strict=True), strict=True):
            part.add_row(*texts, style=row.style)
        return part


def _whole(text: object, style: str, width: int) -> Iterator[Text]:
    if text:
        yield Text(_wrapped(str(text), width).plain, style, overflow="ignore", no_wrap=True)


def _words(text: str) -> list[str]:
    return text.replace("\n", " ").split(" ")  # not at no-break spaces


def _wrapped(text: str, width: int) -> Text:
    """Wraps between words only."""
    lines = (fill(line, max(width, 1), break_long_words=False, break_on_hyphens=False) for line in text.splitlines())
    return Text("\n".join(lines))


def titled_table(title: str, headings: Iterable[str], caption: str = "") -> WholeWords:
    """An empty table without a frame: names on the left, right-aligned numbers; text is never parsed as markup."""
    table = WholeWords(title=Text(title), caption=Text(caption), box=SIMPLE_HEAD)
    for index, heading in enumerate(headings):
        table.add_column(Text(heading), justify="right" if index else "left", no_wrap=index > 0)
    return table
