"""Notes on stderr, so that stdout contains only the result, and characters that a terminal's encoding lacks."""

import codecs
import json
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from rich.console import Console
from rich.table import Table
from rich.text import Text

from armlet.presentation.files import json_text

BAD_INPUT = 2  # exit code
FIRST_LINE_SECONDS = 5  # work that takes longer is mentioned in a log

ASCII_FORMS = {"−": "-", "–": "-", "─": "-", "━": "-", "×": "x", "·": ".", "→": "->", "≤": "<=", "≥": ">=", "’": "'"}
"""Replacements for characters that are missing from a stream's encoding."""

notes = Console(stderr=True, emoji=False)


def print_tables(*tables: Table) -> None:
    """Prints tables on stdout, whole even where they are wider than the terminal."""
    console = Console(emoji=False)  # not kept, because stdout may be redirected
    for table in tables:
        console.print(table, crop=False)


def note(text: str, *, style: str | None = None) -> None:
    """Prints a line on stderr, without markup or line breaks of its own."""
    notes.print(text, style=style, markup=False, highlight=False, soft_wrap=not notes.is_jupyter)


@contextmanager
def log_lines(text: Callable[[], str], seconds: float | None = None) -> Iterator[None]:
    """Prints `text()` after FIRST_LINE_SECONDS, and then every `seconds` if given, until the block ends."""
    ended = Event()

    def write() -> None:
        wait: float | None = FIRST_LINE_SECONDS
        while not ended.wait(wait):
            note(text())
            wait = seconds

    thread = Thread(target=write, daemon=True)
    try:
        thread.start()
        yield
    finally:
        ended.set()
        thread.join()  # a line that is being printed is printed before what follows the block


@contextmanager
def working(what: str) -> Iterator[None]:
    """Says what the block does: a spinner while it runs on a terminal; elsewhere one line, if it takes long."""
    if notes.is_terminal and not notes.is_jupyter:
        with notes.status(Text(f"{what} ...")):
            yield
        return
    with log_lines(lambda: f"{what} ..."):
        yield


def accept_every_character() -> None:
    """Makes stdout and stderr write "-" for "−", and so on, where their encoding lacks a character.

    A character without such a likeness is written as its escape, so that nothing is lost. Without this, the result of
    a long run would end in a UnicodeEncodeError, for example with PYTHONIOENCODING=ascii.
    """
    codecs.register_error("armlet", _plain)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):  # a notebook's stream has none
            reconfigure(errors="armlet")


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    pairs = ((character, ASCII_FORMS.get(character, unicodedata.normalize("NFKD", character))) for character in text)
    return "".join(plain if plain.isascii() else ascii(character)[1:-1] for character, plain in pairs), error.end


def print_json(content: object) -> None:
    """Prints JSON on stdout, in ASCII if its encoding lacks a character."""
    text = json_text(content)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text), indent=2) + "\n"
    print(text, end="")
