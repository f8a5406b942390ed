"""Tables of markdown."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(map(cell, row))} |" for row in (header, ["---"] * len(header), *rows)]


def cell(text: str) -> str:
    """Text for a cell: on one line, without a column's end, and without HTML outside of code."""
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


def summary(docstring: str | None) -> str:
    """The first sentence or two of a docstring: its first paragraph, in one line, with single backticks."""
    return " ".join((docstring or "").partition("\n\n")[0].split())
