"""The figure of two answers: every line has its colour, nothing is lost, and long answers say what is left out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import same_color

from armlet.answers.figures import COLUMN_CHARACTERS, LINES_BEFORE, MAX_LINES, Line, draw_answers, excerpt, wrapped
from armlet.presentation.style import COLOURS, GREY

LETTERS = st.text(st.sampled_from("ab .\n-"), max_size=200)


@given(LETTERS, LETTERS, LETTERS)
def test_lines_fit_and_only_spaces_at_breaks_are_dropped(before, token, rest):
    lines = wrapped((before, token, rest))
    assert all(len(line.common + line.different) <= COLUMN_CHARACTERS for line in lines)
    common, different = ("".join(part.split()) for part in (before, token + rest))
    assert "".join("".join(line.common.split()) for line in lines) == common
    assert "".join("".join(line.different.split()) for line in lines) == different


def test_the_difference_is_coloured_from_its_first_character_on():
    assert wrapped(("one ", "two", " three\nfour")) == [Line("one ", "two three"), Line("", "four")]


def test_a_long_answer_is_cut_around_the_difference_and_says_so():
    lines = [Line(str(index), "") for index in range(100)] + [Line("", "x")] * 100
    shown = excerpt(lines)
    assert shown[0].common == f"[{100 - LINES_BEFORE} lines left out]"
    assert shown[1 : 1 + MAX_LINES] == lines[100 - LINES_BEFORE : 100 - LINES_BEFORE + MAX_LINES]
    assert shown[-1].common == f"[{len(lines) - MAX_LINES - 100 + LINES_BEFORE} lines left out]"
    assert excerpt(lines[:MAX_LINES]) == lines[:MAX_LINES]


@pytest.mark.slow
def test_the_common_beginning_is_grey_and_dollar_signs_are_text():
    columns = {"baseline": ("$x^$ is ", "$1", " or so"), "treated: Outward, layer 0": ("$x^$ is ", "$2", "")}
    figure = draw_answers(columns, title="$y_$?", caption="first difference at token 4")
    figure.draw_without_rendering()  # a formula would raise
    assert not figure.axes
    colours = {text.get_text().strip(): text.get_color() for text in figure.texts}
    assert same_color(colours["$x^$ is"], GREY)
    assert same_color(colours["$2"], COLOURS["Outward"])
    assert not same_color(colours["$1 or so"], GREY)
    assert {"$y_$?", "baseline", "first difference at token 4"} <= set(colours)
    width = figure.get_window_extent().width
    assert all(text.get_window_extent().x1 < width for text in figure.texts)
