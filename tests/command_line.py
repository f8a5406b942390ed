"""A command of the command line, run in this process."""

import contextlib
import io
import json
import re

import pytest

from armlet.cli import main

EARLIER = "^.* from an earlier run in .*\n"
"""The note on results that a run folder already contains."""


def run(*arguments):
    """Exit code, stdout and stderr of one command, without the note on what was loaded, whose seconds vary."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code or 0, out.getvalue(), re.sub("^loaded .*\n", "", err.getvalue(), flags=re.MULTILINE)


def result(*arguments, code=0):
    """The JSON of one command."""
    found, out, err = run(*arguments, "--json")
    announced = f"^interrupted: .*\n|^.* items? .* at 80 % power.*\n|^run folder: .*\n|{EARLIER}"
    assert (found, re.sub(announced, "", err, flags=re.MULTILINE)) == (code, "")
    return json.loads(out)


def shown(*arguments):
    """What one command prints."""
    code, out, err = run(*arguments)
    assert (code, re.sub(EARLIER, "", err, flags=re.MULTILINE)) == (0, "")
    return out
