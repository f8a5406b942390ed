"""A result is saved whole into a folder, and a folder that cannot be one is refused in one line."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from armlet.answers import generate
from armlet.checkpoints.folder import ABACUS
from armlet.cost import bench
from armlet.evaluation import evaluate, tune
from armlet.inspection import inspect
from armlet.mechanism import explain
from armlet.precision import quantize
from armlet.presentation.result import Result
from armlet.presentation.style import NotebookFigure
from armlet.redistribution.errors import ArgumentError
from tiny_checkpoints import save


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


TEXT = " ".join(f"w{(7 * at * at + 3 * at) % 61 + 1}" for at in range(100))
ITEMS = {"items": 4, "difficulty": 1, "max_new_tokens": 2}
RESULTS = {
    "Inspection": lambda _: inspect(synthetic="modes", policy="inward"),
    "Explanation": lambda tiny: explain(tiny, layers=0, prompt="w20 w21", filler="w7", count=2, system="w10 w11"),
    "Answers": lambda tiny: generate(tiny, "w5 w6", max_new_tokens=2),
    "Findings": lambda _: evaluate(ABACUS, **ITEMS, placebos=False),
    "Search": lambda _: tune(ABACUS, **ITEMS, search="strength", trials=0),
    "Precision": lambda tiny: quantize(tiny, text=TEXT, windows=2, tokens=4, calibration=1),
    "Cost": lambda _: bench(widths=8, tokens=1, dtypes="float32", turns=2, only="function"),
}


@pytest.fixture(scope="module", params=RESULTS)
def result(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # for run folders
        made = RESULTS[request.param](save(folder / "tiny"))
    assert type(made).__name__ == request.param
    return made


def empty(value):
    """Empties a container, and first those in it."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        empty(part)
    if isinstance(value, dict | list):
        value.clear()


@pytest.mark.slow
@pytest.mark.parametrize("directory", ["file", Path("file/below"), 3, "", None], ids=repr)
def test_every_questions_result_refuses_what_is_no_folder_and_writes_nothing(result, directory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("kept")
    with pytest.raises(ArgumentError, match=r"^directory: [^\n]+$"):
        result.save(directory)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "kept")]


@pytest.mark.slow
def test_changing_the_dictionary_of_a_questions_result_does_not_change_the_result(result):
    before = copy.deepcopy(result.to_dict())
    empty(result.to_dict())
    assert result.to_dict() == before
