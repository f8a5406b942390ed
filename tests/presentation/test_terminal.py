"""Progress is shown on stderr: a bar on a terminal, and a line each minute elsewhere."""

import io

import pytest
from rich.console import Console

from armlet.presentation import terminal
from armlet.presentation.terminal import LINE_SECONDS, progress


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
    monkeypatch.setattr("armlet.presentation.terminal.LINE_SECONDS", LINE_SECONDS)
    monkeypatch.setattr(terminal, "monotonic", lambda: seconds[0])
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


def test_without_a_terminal_there_is_a_line_each_minute_and_no_bar(shown, clock):
    with progress("answering [a]", 100, done=10) as tick:
        for _ in range(5):
            clock[0] += LINE_SECONDS / 2
            tick(2)
    assert shown.getvalue() == "answering [a]: 14 of 100\nanswering [a]: 18 of 100\n"


def test_work_of_less_than_a_minute_says_nothing_without_a_terminal(shown, clock):
    with progress("answering", 2) as tick:
        tick()
        clock[0] += LINE_SECONDS - 1
        tick()
    assert shown.getvalue() == ""


def test_an_error_inside_passes_and_leaves_the_terminal_as_it_was(monkeypatch):
    console(monkeypatch, force_terminal=True)
    with pytest.raises(KeyboardInterrupt), progress("answering", 2):
        raise KeyboardInterrupt
    with progress("again", 2) as tick:  # rich allows one live display at a time
        tick()
