"""Progress is shown on stderr: a bar on a terminal, a line each minute in a log."""

import ast
import io
import json
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from armlet.presentation import progress as progress_file
from armlet.presentation import terminal
from armlet.presentation.progress import LINE_SECONDS, LONG_SECONDS, REDRAW_SECONDS, duration, progress
from armlet.presentation.tables import titled_table
from armlet.presentation.terminal import FIRST_LINE_SECONDS, accept_every_character, print_json, working


@pytest.fixture
def shown(monkeypatch):
    """What is written to stderr, which is no terminal."""
    return console(monkeypatch, force_terminal=False)


def console(monkeypatch, **how):
    file = io.StringIO()
    monkeypatch.setattr(terminal, "notes", Console(file=file, width=100, **how))
    return file


@pytest.fixture
def real_seconds(monkeypatch):
    """Lines in a log come when they do outside of tests."""
    monkeypatch.setattr(terminal, "FIRST_LINE_SECONDS", FIRST_LINE_SECONDS)
    monkeypatch.setattr(progress_file, "LINE_SECONDS", LINE_SECONDS)


@pytest.fixture
def soon(monkeypatch):
    """Lines in a log come after 10 ms, and then every 10 ms."""
    monkeypatch.setattr(terminal, "FIRST_LINE_SECONDS", 0.01)
    monkeypatch.setattr(progress_file, "LINE_SECONDS", 0.01)


@pytest.fixture
def clock(monkeypatch):
    """The seconds that the progress reads; a test moves them on."""
    seconds = [0.0]
    monkeypatch.setattr(progress_file, "monotonic", lambda: seconds[0])
    return seconds


def wait_for_line(file, line):
    """Waits for one more line, which must be this."""
    count, end = len(file.getvalue().splitlines()), time.monotonic() + 20
    while (lines := file.getvalue().splitlines()[count + 1 :]) == [] and time.monotonic() < end:
        time.sleep(0.005)  # the next line may have been composed before; the one after it was not
    assert lines[-1] == line


def test_a_terminal_gets_a_bar_with_the_steps_done_and_it_goes_at_the_end(monkeypatch):
    file = console(monkeypatch, force_terminal=True, color_system=None)
    with progress("answering [a]", 7, done=2) as tick:
        tick()
        tick(3)
    text = file.getvalue()
    assert "answering" in text
    assert "6/7" in text
    assert text.endswith("\x1b[2K")  # the line is erased


@pytest.mark.usefixtures("soon")
def test_a_log_gets_lines_while_no_step_is_finished_and_none_after_the_block(shown):
    threads = set(threading.enumerate())
    with progress("answering [a]", 60):
        wait_for_line(shown, "answering [a]: 0 of 60")
        wait_for_line(shown, "answering [a]: 0 of 60")
    assert set(threading.enumerate()) <= threads
    lines = shown.getvalue()
    time.sleep(0.05)
    assert shown.getvalue() == lines


@pytest.mark.usefixtures("soon")
def test_lines_in_a_log_estimate_the_rest_from_the_first_step_and_later_without_it(shown, clock):
    with progress("answering", 1100, done=10) as tick:
        for seconds, steps, line in [
            (500, 2, "12 of 1,100, about 75.6 h left"),
            (30, 2, "14 of 1,100, about 4.5 h left"),
            (30, 86, "100 of 1,100, about 11 min left"),
        ]:
            clock[0] += seconds
            tick(steps)
            wait_for_line(shown, f"answering: {line}")


def test_long_work_says_how_long_it_takes_once_the_typical_steps_are_done(shown, clock, monkeypatch):
    monkeypatch.setattr(progress_file, "LONG_SECONDS", LONG_SECONDS)
    with progress("answering [a]", 1010, done=10, typical=4) as tick:
        for _ in range(3):
            clock[0] += 1
            tick(2)
    said = "answering [a]: about 8 min left, judging by the first 4 of 1,010\n"
    assert shown.getvalue() == said
    with progress("answering", 60) as tick:  # no longer than a minute
        clock[0] += 1
        tick()
    assert shown.getvalue() == said


def test_a_terminal_says_the_remaining_time_from_the_first_step_on(monkeypatch, clock):
    file = console(monkeypatch, force_terminal=True, color_system=None)
    with progress("answering", 11) as tick:
        clock[0] += 30
        tick()
    assert "5 min left" in file.getvalue()


@pytest.mark.usefixtures("real_seconds")
def test_the_first_line_in_a_log_comes_soon_and_then_one_each_minute(shown, monkeypatch):
    waits = []

    class Ended:
        """Says at the fourth wait that the block ended."""

        def wait(self, seconds):
            waits.append(seconds)
            return len(waits) > 3

        def set(self):
            pass

    monkeypatch.setattr(terminal, "Event", Ended)
    with progress("answering", 2):
        pass
    assert waits == [FIRST_LINE_SECONDS, LINE_SECONDS, LINE_SECONDS, LINE_SECONDS]
    assert shown.getvalue() == "answering: 0 of 2\n" * 3


@pytest.mark.usefixtures("real_seconds")
def test_short_work_says_nothing_in_a_log(shown):
    with progress("answering", 2) as tick:
        tick(2)
    with working("writing"):
        pass
    assert shown.getvalue() == ""


@pytest.mark.usefixtures("soon")
def test_work_that_takes_long_is_mentioned_once_in_a_log(shown):
    with working("loading [a]"):
        time.sleep(0.3)
    assert shown.getvalue() == "loading [a] ...\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.usefixtures("soon")
def test_an_error_ends_the_lines_of_a_log(shown, error):
    threads = set(threading.enumerate())
    for block in (progress("answering", 2), working("loading")):
        with pytest.raises(error), block:
            raise error
    assert set(threading.enumerate()) <= threads
    assert set(shown.getvalue().splitlines()) <= {"answering: 0 of 2", "loading ..."}


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn in a notebook: the display's number, how, and the HTML."""
    drawings, displays = [], []

    def display(handle, html):
        displays.append(handle.display_id)
        drawings.append((len(displays), "display", html.data))

    def update(handle, html):
        drawings.append((displays.index(handle.display_id) + 1, "update", html.data))

    console(monkeypatch, force_jupyter=True)
    monkeypatch.setattr("IPython.display.DisplayHandle.display", display)
    monkeypatch.setattr("IPython.display.DisplayHandle.update", update)
    return drawings


def test_a_notebook_gets_a_bar_that_is_redrawn_in_its_place_and_goes_at_the_end(drawn, clock):
    with progress("answering <a>", 100, done=10) as tick:
        tick(1)  # too soon to be drawn
        for steps in (1, 9):
            clock[0] += REDRAW_SECONDS
            tick(steps)
    lines = ["10 of 100", "12 of 100, 44 s left", "21 of 100, 8 s left"]
    values = [line.split()[0] for line in lines]
    bars = [
        f"<progress value={value} max=100></progress> answering &lt;a&gt;: {line}"
        for value, line in zip(values, lines, strict=True)
    ]
    assert drawn == [(1, "display", ""), *((1, "update", html) for html in (*bars, ""))]


def test_an_error_removes_the_bar_from_a_notebook(drawn):
    with pytest.raises(KeyboardInterrupt), progress("answering", 2):
        raise KeyboardInterrupt
    assert [html for *_, html in drawn] == ["", "<progress value=0 max=2></progress> answering: 0 of 2", ""]


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


def encoded_stdout(monkeypatch, encoding):
    """What is written to stdout, in an encoding that lacks some characters."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True))
    accept_every_character()
    return sys.stdout.buffer


def test_a_character_that_stdout_lacks_is_a_likeness_or_an_escape(monkeypatch):
    written = encoded_stdout(monkeypatch, "ascii")
    print("\u22120.5\u00a0% \u00d7 log\u2081\u2080 \u2026 caf\u00e9 \U0001f600")
    Console(file=sys.stdout).print(titled_table("\u03b5 \u2264 1", ["a"]))
    text = written.getvalue().decode("ascii")
    assert text.startswith("-0.5 % x log10 ... caf\\xe9 \\U0001f600\n")
    assert "\\u03b5 <= 1" in text


def test_json_says_the_same_whatever_stdouts_encoding(monkeypatch):
    written = encoded_stdout(monkeypatch, "latin-1")
    content = {"na\u00efve": ["\u22121 \U0001f600", 1e-300, None]}
    print_json(content)
    assert json.loads(written.getvalue().decode("latin-1")) == content


def test_half_a_surrogate_pair_in_a_path_is_an_escape(monkeypatch):
    written = encoded_stdout(monkeypatch, "utf-8")
    print("out/\udce9")
    assert written.getvalue() == b"out/\\udce9\n"


@pytest.mark.slow
def test_no_console_of_the_package_turns_words_between_colons_into_pictures():
    package = Path(terminal.__file__).parents[1]
    calls = [
        node
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Console"
    ]
    assert calls
    for call in calls:
        assert any(word.arg == "emoji" and word.value.value is False for word in call.keywords)
    assert terminal.notes.render_str("mine.py:fire: a", markup=False).plain == "mine.py:fire: a"
