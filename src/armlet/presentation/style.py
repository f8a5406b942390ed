"""The style of all figures, and functions that write a figure to files or into a page."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

COLOURS = {"Outward": "#D55E00", "Inward": "#0072B2", "Transport": "#009E73", "Cut": "#56B4E9"}
"""Colours of the policies in every figure, from Okabe and Ito's palette, which suits colour-blind readers."""

DARK_COLOURS = {"Outward": "#FF8A3D", "Inward": "#56B4E9", "Transport": "#2FC79A", "Cut": "#D9A8FF"}
"""The same on a dark page, lighter, so that they are as clear."""

OTHER_COLOUR = "#CC79A7"
VERDICT_COLOURS = {"helped": "#0a6b2d", "hurt": "#b3261e"}
"""Colours of what is shown, as on a report's page; no policy and no filler has them."""

GREY = "#666666"

FIGURE_STYLE: dict[str, object] = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "svg.hashsalt": "armlet",
}
"""Changes to Matplotlib's defaults. The user's own settings are ignored, because they would change the figure."""


class NotebookFigure(Figure):
    """A figure that a notebook shows as the value of a cell; it does not use pyplot."""

    def _repr_png_(self) -> bytes:
        return png_bytes(self)


def png_bytes(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as a PNG for a page."""
    file = io.BytesIO()
    with style():
        figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


KIND_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 200},
    "svg": {"metadata": {"Date": None}},
    "pdf": {"metadata": {"CreationDate": None}},
}
"""The kinds of files of a figure, with what makes the bytes of equal figures equal."""


def save(figure: Figure, directory: str | Path, stem: str, kinds: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Writes `stem`.png (200 dpi), `stem`.svg, or `stem`.pdf; returns their paths. Equal figures have equal bytes.

    Raises OSError if the directory cannot be created or written to.
    """
    paths = {kind: Path(directory, f"{stem}.{kind}") for kind in kinds}
    Path(directory).mkdir(parents=True, exist_ok=True)
    with style():
        for kind, path in paths.items():
            figure.savefig(path, **KIND_OPTIONS[kind])
    return [*paths.values()]


def svg_text(figure: Figure) -> str:
    """The figure as an `<svg>` element for a page; equal figures have equal text."""
    file = io.StringIO()
    with style():
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


@contextmanager
def style() -> Iterator[None]:
    """Applies `FIGURE_STYLE` inside the block, regardless of the user's Matplotlib settings."""
    with matplotlib.style.context(FIGURE_STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # for example an emoji in a prompt, drawn as a box
        yield
