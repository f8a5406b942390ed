"""What every question's result can do: be shown as tables, drawn, saved, and written as JSON."""

import base64
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from armlet.presentation.arguments import output_folder
from armlet.presentation.files import write_json, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTEBOOK_CHARACTERS = 110  # width of a table
TABLE_HTML = '<pre style="font-family:monospace;white-space:pre;overflow-x:auto;line-height:1.3">{code}</pre>'


class Result(ABC):
    """The result of a question; frozen. A notebook shows its tables and its figure, a terminal its tables."""

    interrupted: bool  # whether Ctrl-C left something out

    @abstractmethod
    def tables(self) -> Sequence[Table]:
        """The tables that the command shows."""

    @abstractmethod
    def figure(self) -> "Figure":
        """The main figure."""

    @abstractmethod
    def to_dict(self) -> Mapping[str, object]:
        """Plain values for JSON: what the command prints with `--json`, except the paths of files.

        A copy: changing it does not change the result. The result's own containers are to be left as they are.
        """

    @abstractmethod
    def save(self, directory: str | Path) -> list[Path]:
        """Writes figures, tables and JSON into a folder, which is created if needed; returns their paths.

        Raises:
            ArgumentError: the directory is no path or a file, or cannot be created or written to.
            WriteError, OSError: a file cannot be written.
        """

    def _write(
        self,
        directory: str | Path,
        stem: str,
        figures: "Mapping[str, Callable[[], Figure]] | None" = None,
        *,
        key: str = "figure",
        texts: Mapping[str, str] | None = None,
        **paths: list[str],
    ) -> list[Path]:
        """Writes `stem`.json, text files, and figures as PNG and SVG; returns their paths, the figures' first.

        The figures come last, so that the numbers are kept if drawing fails.

        Args:
            directory: the folder.
            stem: name of the JSON file without its ending.
            figures: a function for each figure by its name; the main figure as `stem` by default.
            key: key of the figures' paths in the JSON file.
            texts: contents of other files by name.
            paths: other paths in the JSON file, by key.
        """
        from armlet.presentation.style import save

        folder, drawn = output_folder("directory", directory), figures or {stem: self.figure}
        drawings = [folder / f"{name}.{kind}" for name in drawn for kind in ("png", "svg")]
        content = {**self.to_dict(), key: list(map(str, drawings)), **paths}
        files = [write_json(folder / f"{stem}.json", content)]
        files += [write_text(folder / name, text) for name, text in (texts or {}).items()]
        for name, draw in drawn.items():
            save(draw(), folder, name)
        return [*drawings, *files]

    def sentences(self) -> Sequence[str]:
        """What the command says below its tables."""
        return ()

    def table(self) -> Table:
        """All tables in one, for rich or a notebook."""
        tables = self.tables()
        if len(tables) == 1:
            return tables[0]
        grid = Table.grid()
        for table in tables:
            grid.add_row(table)
        return grid

    def __repr__(self) -> str:
        console = Console(file=io.StringIO(), record=True, force_jupyter=False, emoji=False)
        console.print(*self.tables())
        return "\n".join([console.export_text().rstrip("\n"), *self.sentences()])

    def _repr_html_(self) -> str:
        console = Console(file=io.StringIO(), record=True, force_jupyter=False, emoji=False, width=NOTEBOOK_CHARACTERS)
        console.print(*self.tables())
        text = console.export_html(inline_styles=True, code_format=TABLE_HTML)
        return "".join([text, *(f"<p>{escape(sentence)}</p>" for sentence in self.sentences()), self._figure_html()])

    def _figure_html(self) -> str:
        from armlet.presentation.style import png_bytes

        data = base64.b64encode(png_bytes(self.figure())).decode()
        return f'<img alt="figure" style="max-width:100%" src="data:image/png;base64,{data}">'
