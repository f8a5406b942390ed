"""Progress is shown on stderr: a bar on a terminal, a line each minute in a log."""

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from armlet.presentation import progress as progress_file
from armlet.presentation import terminal
from armlet.presentation.progress import LINE_SECONDS, duration, progress
from armlet.presentation.tables import titled_table
from armlet.presentation.terminal import FIRST_LINE_SECONDS, working


@pytest.fixture
def shown(monkeypatch):
    """What is written to stderr, which is no terminal."""
    return console(monkeypatch, force_terminal=False)


def console(monkeypatch, **how):
    file = io.StringIO()
    monkeypatch.setattr(terminal, "notes", Console(file=file, width=100, **how))
    return file


@pytest.fixture
def clock(monkeypatch):
    """The seconds that the progress reads; a test moves them on."""
    seconds = [0.0]
    monkeypatch.setattr(progress_file, "LINE_SECONDS", LINE_SECONDS)
    monkeypatch.setattr(terminal, "FIRST_LINE_SECONDS", FIRST_LINE_SECONDS)
    monkeypatch.setattr(progress_file, "monotonic", lambda: seconds[0])
    return seconds


def test_a_terminal_gets_a_bar_with_the_steps_done_and_it_goes_at_the_end(monkeypatch):
    file = console(monkeypatch, force_terminal=True, color_system=None)
    with progress("answering [a]", 7, done=2) as tick:
        tick()
        tick(3)
    text = file.getvalue()
    assert "answering" in text
    assert "6/7" in text
    assert text.endswith("\x1b[2K")  # the line is erased


def test_a_log_gets_a_line_soon_and_then_one_each_minute(shown, clock):
    with progress("answering [a]", 100, done=10) as tick:
        for _ in range(5):
            clock[0] += LINE_SECONDS / 2
            tick(2)
    lines = ["12 of 100", "16 of 100, about 21 min left", "20 of 100, about 20 min left"]
    assert shown.getvalue().splitlines() == [f"answering [a]: {line}" for line in lines]


def test_short_work_says_nothing_in_a_log(shown, clock):
    with progress("answering", 2) as tick:
        tick()
        clock[0] += FIRST_LINE_SECONDS - 1
        tick()
    assert shown.getvalue() == ""


def test_work_that_takes_long_is_mentioned_in_a_log(shown, monkeypatch):
    monkeypatch.setattr(terminal, "FIRST_LINE_SECONDS", 0.01)
    with working("loading [a]"):
        time.sleep(0.3)
    with working("writing"):
        pass
    assert shown.getvalue() == "loading [a] ...\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (90, "about 2 min"), (5399, "about 90 min"), (9000, "about 2.5 h")],
)
def test_a_time_in_words(seconds, words):
    assert duration(seconds) == words


def test_an_error_inside_passes_and_leaves_the_terminal_as_it_was(monkeypatch):
    console(monkeypatch, force_terminal=True)
    with pytest.raises(KeyboardInterrupt), progress("answering", 2):
        raise KeyboardInterrupt
    with progress("again", 2) as tick:  # rich allows one live display at a time
        tick()


NAMES = st.lists(st.text("ab c[/]-", max_size=30), min_size=1, max_size=6)


@given(NAMES, NAMES, st.integers(20, 100))
def test_a_table_of_any_width_breaks_no_word_and_repeats_the_names(headings, names, width):
    table = titled_table(" ".join(names), headings, "\n".join(headings))
    for number, name in enumerate(names):
        table.add_row(name, *(f"{number}.5 [−1, +{column}]" for column in range(1, len(headings))))
    file = io.StringIO()
    Console(file=file, width=width).print(table, crop=False)
    lines = [line.split() for line in file.getvalue().splitlines()]
    texts = [*names, *headings, *(f"{number}.5" for number in range(len(names)) if len(headings) > 1)]
    for word in " ".join(texts).split():
        assert any(word in line for line in lines), word
    for column in range(1, len(headings)):
        assert f"0.5 [−1, +{column}]" in file.getvalue()
    longest = max(map(len, " ".join((*names, *headings, "x" * 12)).split()))
    assert max(map(len, file.getvalue().splitlines())) <= max(width, longest + 1 + max(longest, 12))
