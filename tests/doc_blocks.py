"""The fenced blocks of the README and of the site's pages, and what a page tells the tests about them.

A comment on the lines before a block, which no reader sees, says what else is to be known:

    <!-- test: parse only: the reason why the block is not run here -->
    <!-- test: before: python code that the reader has run before -->
    <!-- test: file: the name under which the reader has saved the block -->
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LANGUAGES = {"python", "sh", "json", "toml", "yaml", "text"}
FENCE = re.compile(r"^( *)```(.*)$")
COMMENT = re.compile(r"<!-- test: (parse only|before|file): (.*?) -->", re.DOTALL)
LEAST_WORDS = 3  # of a reason


class Block(NamedTuple):
    """One fenced block."""

    page: Path
    line: int  # of its first line of text, from 1
    language: str
    text: str
    parse_only: str = ""  # the reason; empty if the block is run
    before: str = ""  # code that runs before it
    file: str = ""  # name of a file with its text, in the folder in which the page's code runs
    printed: str = ""  # what it prints, if the next block is a text that says so

    @property
    def end(self) -> int:
        """The line of the closing fence, from 1."""
        return self.line + self.text.count("\n")

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page with blocks that a reader may copy."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order, those of code with what they print."""
    content = page.read_text(encoding="utf-8")
    parts = list(read_blocks(page, content))
    for index, (code, below) in enumerate(pairwise(parts)):
        if says_what_is_printed(code, below, content.split("\n")):
            parts[index] = code._replace(printed=below.text)
    return parts


def says_what_is_printed(code: Block, below: Block, lines: list[str]) -> bool:
    """Whether the block `below` is the output of `code`: a text in the same section of the page."""
    in_same_section = not any(line.startswith("#") for line in lines[code.end : below.line - 2])
    return code.language in ("python", "sh") and below.language == "text" and not below.parse_only and in_same_section


def read_blocks(page: Path, content: str) -> Iterator[Block]:
    """The blocks of a page's content; raises ValueError for a comment to the tests that no block follows."""
    told, opened, start, inside = "", None, 0, list[str]()
    for number, line in enumerate(content.split("\n"), 1):
        fence = FENCE.match(line)
        if opened is None and fence:
            opened, start, inside = fence, number + 1, []
        elif opened is not None and fence and not fence[2]:
            comments = {name.replace(" ", "_"): content for name, content in COMMENT.findall(told)}
            text = "".join(f"{row.removeprefix(opened[1])}\n" for row in inside)
            yield Block(page, start, opened[2], text, **comments)
            told, opened = "", None
        elif opened is not None:
            inside.append(line)
        elif "<!-- test:" in line or (told and "-->" not in told):
            told += f"{line}\n"
        elif told and line.strip():
            raise ValueError(f"{page}:{number}: a comment to the tests stands before a block")
    if told or opened:
        raise ValueError(f"{page}: the last block or comment does not end")
