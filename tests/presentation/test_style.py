"""A figure looks the same for every reader, byte by byte."""

import matplotlib

from armlet.presentation.style import FIGURE_STYLE, NotebookFigure, save, style, svg_text

KINDS = ("png", "svg", "pdf")


def figure(title="before → after"):
    with style():
        drawn = NotebookFigure(figsize=(2, 1))
        axes = drawn.subplots()
        axes.plot([0, 1, 2], [0, 1, 0], label="gate")
        axes.set_title(title)
    return drawn


def test_a_figure_is_saved_with_the_same_bytes_whatever_the_reader_has_set(tmp_path):
    first = save(figure(), tmp_path / "a" / "b", "plot", KINDS)
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": "mine", "savefig.dpi": 40, "axes.grid": True}):
        second = save(figure(), str(tmp_path / "c"), "plot", KINDS)
    assert [path.name for path in first] == [path.name for path in second] == [f"plot.{kind}" for kind in KINDS]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert b"CreationDate" not in first[2].read_bytes()
    assert [path.name for path in save(figure(), tmp_path, "plot")] == ["plot.png", "plot.svg"]


def test_a_notebook_shows_a_figure_without_pyplot():
    assert figure()._repr_png_().startswith(b"\x89PNG")


def test_the_svg_of_a_page_is_one_element_and_always_the_same():
    text = svg_text(figure())
    assert text.startswith("<svg")
    assert text.rstrip().endswith("</svg>")
    assert "<dc:date>" not in text
    assert text == svg_text(figure())
    assert text != svg_text(figure("another"))


def test_the_style_applies_inside_the_block_alone():
    with matplotlib.rc_context({"font.size": 30}):
        before = dict(matplotlib.rcParams)
        with style():
            assert {name: matplotlib.rcParams[name] for name in ("font.size", "axes.grid")} == {
                "font.size": FIGURE_STYLE["font.size"],
                "axes.grid": False,
            }
        assert dict(matplotlib.rcParams) == before


def test_a_letter_that_the_font_lacks_is_drawn_without_a_warning(tmp_path):
    save(figure("\U0001f600"), tmp_path, "plot")
