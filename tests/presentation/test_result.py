"""A result is saved whole into a folder, and a folder that cannot be one is refused in one line."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from armlet.presentation.result import Result
from armlet.presentation.style import NotebookFigure
from armlet.redistribution.errors import ArgumentError


@dataclass(frozen=True, repr=False)
class Count(Result):
    """A result with two figures and a text."""

    count: int
    interrupted: bool = False

    def tables(self):
        return []

    def figure(self):
        return NotebookFigure(figsize=(1, 1))

    def to_dict(self):
        return {"count": self.count}

    def save(self, directory):
        figures = {"count": self.figure, "count-again": self.figure}
        return self._write(directory, "count", figures, key="figures", texts={"count.csv": "3\n"}, other=["here"])


def test_the_json_has_the_paths_and_the_paths_of_all_files_are_returned(tmp_path):
    folder = tmp_path / "new" / "folder"
    paths = Count(3).save(str(folder))
    figures = [f"{folder}/{name}.{kind}" for name in ("count", "count-again") for kind in ("png", "svg")]
    assert [*map(str, paths)] == [*figures, f"{folder}/count.json", f"{folder}/count.csv"]
    assert json.loads((folder / "count.json").read_text()) == {"count": 3, "figures": figures, "other": ["here"]}
    assert {file.name for file in folder.iterdir()} == {path.name for path in paths}
    assert (folder / "count.csv").read_text() == "3\n"


def test_the_numbers_are_kept_if_drawing_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(Count, "figure", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Count(3).save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"count.json", "count.csv"}


@pytest.mark.parametrize(
    ("directory", "message"),
    [
        ("file.json", "directory: file.json cannot be written: file.json is a file"),
        (Path("file.json/below"), "directory: file.json/below cannot be written: "),
        ("", "directory: expected a path, found ''"),
        (3, "directory: expected a path, found 3"),
        (None, "directory: expected a path, found None"),
    ],
    ids=repr,
)
def test_what_is_no_folder_is_refused_and_nothing_is_written(directory, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file.json").write_text("{}")
    with pytest.raises(ArgumentError) as caught:
        Count(3).save(directory)
    assert str(caught.value).startswith(message)
    assert [file.name for file in tmp_path.iterdir()] == ["file.json"]
    assert Path("file.json").read_text() == "{}"
