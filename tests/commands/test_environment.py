"""A command gives its result, or one clear line, in any environment: encodings, terminals, folders and pipes."""

import contextlib
import io
import os
import subprocess
import sys

import pytest

from armlet.cli import main
from command_line import run

COMMAND = [sys.executable, "-c", "from armlet.cli import main\nmain()"]
ODD = {
    "MPLBACKEND": "nonsense",  # a notebook's own is nonsense where its package is missing
    "PYTHONIOENCODING": "ascii",
    "LC_ALL": "C",
    "TERM": "dumb",
    "NO_COLOR": "1",
    "COLUMNS": "60",
    **dict.fromkeys(
        ("HOME", "HF_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"), "/proc/nowhere"
    ),  # not even root writes there
}


def test_a_notebooks_backend_is_left_out(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://nowhere.backend")
    assert run("--version")[0] == 0
    assert "MPLBACKEND" not in os.environ


def test_a_terminal_without_cursor_keeps_its_width(monkeypatch):
    for name in ("COLUMNS", "LINES"):
        monkeypatch.setenv(name, "")  # restored after the test
        monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("armlet.cli.get_terminal_size", lambda: os.terminal_size((60, 20)))
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    with contextlib.redirect_stdout(terminal), pytest.raises(SystemExit):
        main(["--version"])
    assert (os.environ["COLUMNS"], os.environ["LINES"]) == ("60", "20")


@pytest.mark.slow
def test_a_result_comes_in_an_odd_environment(tmp_path):
    command = [*COMMAND, "inspect", "--synthetic", "modes", "--policy", "transport", "--out", str(tmp_path)]
    done = subprocess.run(command, env=os.environ | ODD, cwd="/proc", capture_output=True, timeout=120, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    table = [line for line in done.stdout.decode("ascii").splitlines() if "|" in line]
    assert table
    assert max(map(len, table)) <= 60
    assert {path.name for path in tmp_path.iterdir()} == {"inspect.png", "inspect.svg", "inspect.json"}


@pytest.mark.slow
def test_a_reader_that_has_gone_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, "--help"], stdout=writer, stderr=subprocess.PIPE, timeout=120, check=False)
    os.close(writer)
    assert done.stderr == b""


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_one_line_and_the_result_is_shown(monkeypatch):
    monkeypatch.chdir("/proc")
    code, out, err = run("inspect", "--synthetic", "modes", "--policy", "transport")
    assert code == 2
    assert "Transport" in out
    assert err.startswith("armlet: armlet-inspect/")
    assert err.count("\n") == 1
