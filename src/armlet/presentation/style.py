"""The style of all figures, and a figure as a file or as part of a page."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

COLOURS = {"Outward": "#D55E00", "Inward": "#0072B2", "Transport": "#009E73"}
"""Each policy's colour in every figure, from Okabe and Ito's palette, which colour-blind readers can tell apart."""

OTHER_COLOUR = "#CC79A7"
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
"""Changes to Matplotlib's defaults. The reader's own settings do not apply: they would change the picture."""


def save(figure: Figure, directory: str | Path, stem: str) -> list[Path]:
    """Writes `stem`.png (200 dpi) and `stem`.svg, and returns their paths; the same figure gives the same bytes.

    Raises:
        OSError: the directory cannot be made or written to.
    """
    png, svg = Path(directory, f"{stem}.png"), Path(directory, f"{stem}.svg")
    png.parent.mkdir(parents=True, exist_ok=True)
    with style():
        figure.savefig(png, dpi=200)
        figure.savefig(svg, metadata={"Date": None})
    return [png, svg]


def svg_text(figure: Figure) -> str:
    """The figure as an `<svg>` element for a page; the same figure gives the same text."""
    file = io.StringIO()
    with style():
        figure.savefig(file, format="svg", metadata={"Date": None})
    return "".join(file.getvalue().partition("<svg")[1:])


@contextmanager
def style() -> Iterator[None]:
    """Applies `FIGURE_STYLE` inside the block, whatever the reader's own settings of Matplotlib are."""
    with matplotlib.style.context(FIGURE_STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # such as an emoji in a prompt, which becomes a box
        yield
