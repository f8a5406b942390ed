"""How every figure looks, and how one becomes a file or a page's picture."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

COLOURS = {"Outward": "#D55E00", "Inward": "#0072B2", "Transport": "#009E73"}
"""A policy keeps its colour in every figure (Okabe and Ito's palette, told apart by colour-blind readers too)."""

OTHER_COLOUR = "#CC79A7"
GREY = "#666666"

STYLE: dict[Any, Any] = {
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
"""On top of Matplotlib's defaults: the reader's own settings would change the picture."""

DPI = 200


def save(figure: Figure, directory: str | Path, stem: str) -> list[Path]:
    """Write `stem`.png (200 dpi) and `stem`.svg; the same figure gives the same bytes.

    Args:
        figure: any of armlet's.
        directory: made if it does not exist.
        stem: file name without its ending.

    Returns:
        The two paths, PNG first.

    Raises:
        OSError: the directory cannot be made or written to.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{stem}.png", directory / f"{stem}.svg"]
    with style():
        figure.savefig(paths[0], dpi=DPI)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def svg_text(figure: Figure) -> str:
    """The figure as an `<svg>` element for a page; the same figure gives the same text."""
    text = io.StringIO()
    with style():
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


@contextmanager
def style() -> Iterator[None]:
    """Inside the block, the figures' own style on Matplotlib's defaults, whatever the reader has set."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # an emoji in a prompt: drawn as a box
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield
