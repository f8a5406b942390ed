"""The figure of `armlet generate`: both answers side by side, with their common beginning in grey."""

from collections.abc import Mapping
from textwrap import fill, wrap
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from armlet.answers.records import Parts
from armlet.presentation.style import COLOURS, GREY, NotebookFigure, style

WIDTH, MARGIN, LINE_HEIGHT = 7.2, 0.12, 0.13  # inches
COLUMN_CHARACTERS, PROMPT_CHARACTERS = 56, 96  # per line, for the font size of `style`
MAX_LINES, LINES_BEFORE = 48, 8  # of an answer, and of these before the first difference
BASELINE_COLOUR = "#222222"


class Line(NamedTuple):
    """A line of an answer: the part that both answers share, and the part from the first difference on."""

    common: str
    different: str


def draw_answers(columns: Mapping[str, Parts], *, title: str, caption: str) -> Figure:
    """Draws each answer below its heading as wrapped monospaced text; of a long one, the lines around the difference.

    columns: the baseline's parts and those of the treated answer, whose heading determines its colour.
    """
    texts = [excerpt(wrapped(parts)) for parts in columns.values()]
    heading_texts = [fill(heading, COLUMN_CHARACTERS) for heading in columns]
    title = fill(title, PROMPT_CHARACTERS, max_lines=3)
    below_title = title.count("\n") + 2.0  # in lines from the top, as all of these
    below_headings = below_title + max(heading.count("\n") for heading in heading_texts) + 1.7
    below_answers = below_headings + max(map(len, texts)) + 0.7
    with style():
        page = _Page(below_answers + 1)
        page.write(title, 0, 0, weight="bold")
        page.write(caption, 0, below_answers, color=GREY)
        for column, (heading, lines) in enumerate(zip(heading_texts, texts, strict=True)):
            colour = next((colour for name, colour in COLOURS.items() if name in heading), BASELINE_COLOUR)
            page.write(heading, column, below_title, weight="bold", color=colour)
            for row, line in enumerate(lines, start=1):
                page.write_line(line, column, below_headings + row - 1, colour)
        return page.figure


class _Page:
    """A figure on which text is written at a line from the top of a column."""

    def __init__(self, lines: float) -> None:
        self.height = 2 * MARGIN + lines * LINE_HEIGHT  # inches
        self.figure = NotebookFigure(figsize=(WIDTH, self.height))

    def write(self, text: str, column: int, line: float, **look: Any) -> None:
        x = (MARGIN + column * WIDTH / 2) / WIDTH
        for row, words in enumerate(text.split("\n"), start=1):
            y = 1 - (MARGIN + (line + row) * LINE_HEIGHT) / self.height
            # Dollar signs in an answer do not start a formula.
            self.figure.text(x, y, words, va="baseline", parse_math=False, **look)

    def write_line(self, line: Line, column: int, at: float, colour: str) -> None:
        look = {"family": "DejaVu Sans Mono"}
        self.write(line.common, column, at, color=GREY, **look)
        self.write(" " * len(line.common) + line.different, column, at, color=colour, **look)


def wrapped(parts: Parts) -> list[Line]:
    """An answer's lines of at most `COLUMN_CHARACTERS`, without the spaces at which they are broken."""
    remaining = len(parts[0])  # characters before the first difference
    lines: list[Line] = []
    for paragraph in "".join(parts).expandtabs(1).split("\n"):
        # Nothing is dropped before it is known on which side of the difference it is.
        pieces = wrap(paragraph, COLUMN_CHARACTERS, drop_whitespace=False, replace_whitespace=False) or [""]
        for index, piece in enumerate(pieces):
            common = max(0, min(len(piece), remaining))
            remaining -= len(piece)
            break_spaces = len(piece) - len(piece.lstrip()) if index else 0
            lines.append(Line(piece[break_spaces:common], piece[max(common, break_spaces) :]))
        remaining -= 1  # the line break
    return lines


def excerpt(lines: list[Line]) -> list[Line]:
    """At most `MAX_LINES` lines around the first difference, with notes that say how many lines are left out."""
    if len(lines) <= MAX_LINES:
        return lines
    first = next((index for index, line in enumerate(lines) if line.different), 0)
    start = max(0, first - LINES_BEFORE)
    shown = lines[start : start + MAX_LINES]
    before, after = ([Line(f"[{n} lines left out]", "")] if n else [] for n in (start, len(lines) - start - len(shown)))
    return [*before, *shown, *after]
