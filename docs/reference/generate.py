"""Writes the pages of the reference that are generated: `python docs/reference/generate.py`.

They are committed, and tests/docs/test_generated.py compares them with what they describe. models.md has a program of
its own, which_models.py.
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parents[1])]

from generators import api, commands, errors, formats, tested  # noqa: E402 - in this folder; reads tests_install


def pages() -> dict[str, str]:
    """The content of every generated file, by its path in docs/reference."""
    files = {"commands.md": commands.page(), "errors.md": errors.page(), "tested.md": tested.page()}
    return files | api.pages() | formats.pages()


if __name__ == "__main__":
    for name, content in pages().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
